"""Tool episodes: a request, one or more calls, what the tools answer, and a sentence about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from pocket.chat_format import Message
from pocket.vocabulary import KNOWN, city, made_up, text, upper, value_word, word

Data = str | dict[str, Any]
Reply = tuple[Data, str]
"""What a tool returns, and the sentence that tells the user; {} stands for what was asked."""

Param = tuple[str, str, str]
"""Name, JSON type, description."""

GLUES = ["to", "into", "with", "about", "from", "for", "at", "on", "and"]
JOINS = ["for", "of", "in", "at", "with", "from", "on"]


@dataclass(frozen=True)
class Tool:
    """A function that the model may call, and how users ask for it."""

    spec: Message
    params: tuple[str, ...]
    asks: list[str]
    values: Callable[[Random], tuple[str, ...]]
    reply: Callable[[Random], Reply]
    takes_late_words: bool = True

    @property
    def name(self) -> str:
        called: str = self.spec["function"]["name"]
        return called

    def call(self, values: tuple[str, ...]) -> Message:
        return {"name": self.name, "arguments": dict(zip(self.params, values, strict=True))}


def schema(tool: str, description: str, params: list[Param]) -> Message:
    """A function definition as clients send it."""
    properties = {p: {"type": kind, "description": about} for p, kind, about in params}
    parameters = {"type": "object", "properties": properties, "required": [p for p, _, _ in params]}
    return {
        "type": "function",
        "function": {"name": tool, "description": description, "parameters": parameters},
    }


# ---------------------------------------------------------------- tools that everybody has


def known_tool(r: Random) -> Tool:
    """Weather, time, calculator or search, under one of their usual names."""
    kind = r.choice(["weather", "weather", "time", "calculate", "search"])
    known = KNOWN["tools"][kind]
    param = r.choice(known["params"])
    spec = schema(
        r.choice(known["names"]),
        r.choice(known["about"]),
        [(param, "string", r.choice(known["describe"]))],
    )
    value = {"calculate": _sum, "search": _query}.get(kind, city)
    return Tool(
        spec,
        (param,),
        known["asks"],
        lambda r: (value(r),),
        REPLIES[kind],
        takes_late_words=kind in ("weather", "time"),
    )


def _sum(r: Random) -> str:
    parts = [str(r.randint(1, 999)) for _ in range(r.choice([2, 2, 3]))]
    return f" {r.choice('+-*/')} ".join(parts)


def _query(r: Random) -> str:
    return text(r, 1, 4).rstrip(".!?")


def _weather(r: Random) -> Reply:
    t, sky = r.randint(-10, 38), r.choice(["sunny", "cloudy", "rainy", "windy", "snowy", "clear"])
    facts = {"temperature": t, "condition": sky}
    data: list[Data] = [facts, {"city": "{}", **facts}, f"{t} degrees and {sky}", f"{sky}, {t} C"]
    return r.choice(data), f"The weather in {{}} is {sky} with {t} degrees."


def _time(r: Random) -> Reply:
    clock = f"{r.randint(0, 23):02}:{r.randint(0, 59):02}"
    data: list[Data] = [{"time": clock}, clock, {"city": "{}", "time": clock}]
    return r.choice(data), f"It is {clock} in {{}}."


def _calculate(r: Random) -> Reply:
    value = r.randint(0, 99999)
    data: list[Data] = [{"result": value}, str(value)]
    return r.choice(data), f"{{}} = {value}"


def _search(r: Random) -> Reply:
    found = text(r, 2, 8).rstrip(".!?").replace("{", "")
    data: list[Data] = [{"result": found}, {"results": [found]}, found]
    return r.choice(data), f"I found this about {{}}: {found}."


REPLIES: dict[str, Callable[[Random], Reply]] = {
    "weather": _weather,
    "time": _time,
    "calculate": _calculate,
    "search": _search,
}


# ---------------------------------------------------------------- tools that nobody has seen


def random_tool(r: Random) -> Tool:
    """A tool put together at random, so that copying from its schema is the only way."""
    verb, noun, more = _any(r, KNOWN["verbs"]), _any(r, KNOWN["nouns"]), word(r)
    phrase, name = r.choice(
        [(f"{verb} {{}} {noun}", f"{verb}_{noun}")] * 4
        + [(f"{verb} {{}} {more} {noun}", f"{verb}_{more}_{noun}")] * 3
        + [
            (f"{verb} on {{}} {noun}", f"{verb}_on_{noun}"),
            (f"{verb} {{}} {noun}", f"{verb}{noun.capitalize()}"),
            (f"{verb} {{}} {noun}", f"{noun}_{verb}"),
            (f"{verb} {{}} {noun}", verb),
        ]
    )
    the, a = phrase.format("the"), phrase.format("a")
    about = upper(r.choice([a, the, f"{a} for {word(r)}", f"{the} in {word(r)}", f"{a} {word(r)}"]))
    params = _parameters(r, 2 if r.random() < 0.4 else 1)
    spec = schema(name, about, [(p, "string", _describe(r, p, noun)) for p in params])
    asks = _pair_asks(r, verb, the, a) if len(params) == 2 else _asks(r, verb, noun, (the, a))
    return Tool(
        spec,
        params,
        asks,
        lambda r: tuple(value_word(r) for _ in params),
        lambda r: _random_reply(r, noun),
    )


def _any(r: Random, known: list[str]) -> str:
    return r.choice(known) if r.random() < 0.4 else word(r)


def _parameters(r: Random, count: int) -> tuple[str, ...]:
    found: list[str] = []
    for _ in range(count):
        pick = r.random()
        if pick < 0.5:
            param = r.choice(KNOWN["params"]) if r.random() < 0.5 else word(r)
        elif pick < 0.75:
            param = f"{word(r)}_{r.choice(['id', 'name', 'code', 'key', word(r)])}"
        else:
            param = made_up(r, 1, 3)
        found.append(param + "2" * (param in found))
    return tuple(found)


def _describe(r: Random, param: str, noun: str) -> str:
    return r.choice(
        [param, f"The {param}", f"The {param}", word(r), f"The {word(r)} of the {noun}"]
    )


def _asks(r: Random, verb: str, noun: str, phrases: tuple[str, str]) -> list[str]:
    the, a = phrases
    thing, join = the.split(" the ")[1], r.choice(JOINS)
    return [
        f"{the} {join} {{}}.",
        f"{the} {join} the {{}}.",
        f"{a} {join} {{}}",
        f"please {the} {{}}.",
        f"can you {the} {join} {{}}?",
        f"I want to {the} {{}}.",
        f"{the} {{}}.",
        f"{a} {join} {{}}.",
        f"what is the {thing} {join} {{}}?",
        f"which {thing} is {join} {{}}?",
        f"{verb} {noun} {{}}",
        f"show me the {thing} {{}}",
        f"{verb} {{}}.",
        f"I need the {thing} {join} {{}}.",
        f"{verb} {{}} in the {noun}.",
    ]


def _pair_asks(r: Random, verb: str, the: str, a: str) -> list[str]:
    glue = r.choice(GLUES)
    return [
        f"{the} {{}} {glue} {{}}.",
        f"{verb} {{}} {glue} {{}}.",
        f"{verb} {{}} {glue} {{}}.",
        f"can you {verb} {{}} {glue} {{}}?",
        f"{a} for {{}} {glue} {{}}.",
        f"{a} to {{}} {glue} {{}}.",
        f"please {a} from {{}} {glue} {{}}",
    ]


def _random_reply(r: Random, noun: str) -> Reply:
    value = str(r.randint(0, 9999))
    if r.random() < 0.6:
        value = text(r, 1, 3).rstrip(".!?").replace("{", "")
    data: list[Data] = [{"result": value}, {noun: value}, {"status": value}, value]
    return r.choice(data), f"The {noun} for {{}}: {value}."
