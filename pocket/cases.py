"""The questions that Pocket was not trained on, and how their answers are graded.

The draw is seeded, so that two models are asked the same. `cases` are the held-out ones, which
count; `smoke` are requests that tests of the server rely on, and may have been trained on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from pocket.chat_format import CALL_START, Message
from pocket.grades import (
    Grade,
    bullets,
    calls,
    calls_one_of,
    counts,
    has,
    has_all,
    is_json,
    is_json_object,
    num_lines,
    num_words,
    python_function,
    same,
)
from pocket.heldout import HELD
from pocket.tools import schema
from pocket.vocabulary import CAPITALS, CODE, FACTS, KNOWN, LISTS, NUMBER_WORDS, made_up

NAMES, CITIES, WORDS = HELD["names"], HELD["cities"], HELD["words"]
BETWEEN = [
    "What is the capital of Japan?",
    "Count from 3 to 9.",
    "Hello!",
    "What is RAM?",
    "List three fruits.",
    "What is the largest planet?",
]


@dataclass(frozen=True)
class Case:
    """User messages (or ready tool answers), and a grade for the last answer.

    `given` is the beginning of the answer, as a grammar would force it.
    """

    behaviour: str
    turns: Sequence[str | Message]
    grade: Grade
    tools: list[Message] = field(default_factory=list)
    given: str = ""


def _tool(name: str, about: str, param: str, describe: str) -> Message:
    return schema(name, about, [(param, "string", describe)])


WEATHER = _tool("get_weather", "Get the current weather for a city", "city", "Name of the city")
CLOCK = _tool("get_time", "Get the current time in a city", "city", "Name of the city")
CALCULATOR = _tool(
    "calculate", "Evaluate an arithmetic expression", "expression", "The expression to evaluate"
)
SEARCH = _tool("search", "Search the internet", "query", "What to search for")
STANDARD = [WEATHER, CLOCK, CALCULATOR, SEARCH]


def cases() -> Iterator[Case]:
    """All held-out cases. One `Random` goes through all parts, so their order matters."""
    r = Random(2026)
    for group in HELD["simple"]:
        for ask in group["asks"]:
            yield Case(group["behaviour"], [ask], has(group["wanted"]))
    for part in (_facts, _memory, _repeating, _counting, _tools, _unseen_tools, _tool_answers):
        yield from part(r)
    yield from _no_tool_fits()
    for part in (_writing, _lists, _code, _json):
        yield from part(r)


def _facts(r: Random) -> Iterator[Case]:
    for land, town in [*CAPITALS.items(), ("France", "Paris")]:
        ask = r.choice(HELD["ask_capital"]).format(land)
        yield Case("capitals", [ask], has(f"is {town}.".replace("..", ".")))
    for key, value in FACTS.items():
        yield Case("facts", [r.choice(HELD["ask_fact"]).format(key)], has(f"is {value}."))
    for key, value in KNOWN["terms"].items():
        yield Case("facts", [r.choice(HELD["ask_term"]).format(key)], has(value))


def _memory(r: Random) -> Iterator[Case]:
    for who in NAMES:
        tells = [f"Hello there, my name is {who}.", f"My name is {who}", f"Hey, I'm {who}!"]
        tell, ask = r.choice(tells), r.choice(["What is my name?", "Can you tell me my name?"])
        yield Case("memory 1", [tell, ask], has(f"name is {who}."))
        between = r.sample(BETWEEN, r.randint(1, 3))
        turns = [f"My name is {who}.", *between, "What is my name?"]
        yield Case("memory 2-4", turns, has(f"name is {who}."))
    for town, colour in zip(CITIES, HELD["colours"], strict=True):
        home, likes = f"I live in {town}.", f"My favourite colour is {colour}."
        turns = [home, likes, r.choice(BETWEEN), "Where do I live?"]
        yield Case("memory 2-4", turns, has(f"in {town}."))
        turns = [likes, f"My name is {r.choice(NAMES)}.", "What is my favourite colour?"]
        yield Case("memory 2-4", turns, has(f"is {colour}."))


def _repeating(r: Random) -> Iterator[Case]:
    for low, high in ((1, 10), (11, 30), (31, 60)):
        for _ in range(15):
            text = " ".join(r.choice(WORDS) for _ in range(r.randint(low, high)))
            ask = r.choice(HELD["ask_repeat"]).format(text)
            yield Case(f"repeat {low}-{high}", [ask], same(text))
    for text in HELD["texts"]:
        yield Case("repeat text", ["Repeat after me: " + text], same(text))


def _counting(r: Random) -> Iterator[Case]:
    for _ in range(25):
        a = r.randint(0, 90)
        b = min(100, a + r.choice([r.randint(2, 15), r.randint(5, 60)]))
        ask = r.choice(["Count from {} to {}.", *HELD["ask_count"]])
        yield Case("count", [ask.format(a, b)], counts(a, b))
    for b in (3, 10, 17, 42, 100):
        yield Case("count", [f"Count to {b}."], counts(1, b))


def _tools(r: Random) -> Iterator[Case]:
    for town in CITIES:
        wanted = calls(("get_weather", {"city": town}))
        tools = r.choice([[WEATHER], STANDARD, [CLOCK, WEATHER]])
        yield Case("tool call", [HELD["ask_weather"][0].format(town)], wanted, tools)
        wanted = calls(("get_time", {"city": town}))
        tools = r.choice([[CLOCK], STANDARD])
        yield Case("tool call", [HELD["ask_time"][0].format(town)], wanted, tools)
    for _ in range(8):
        sum_text = f"{r.randint(2, 99)} {r.choice('+-*')} {r.randint(2, 99)}"
        query = f"{r.choice(WORDS)} {r.choice(WORDS)}"
        wanted = calls(("calculate", {"expression": sum_text}))
        yield Case("tool call", [HELD["ask_calculate"][0].format(sum_text)], wanted, STANDARD)
        wanted = calls(("search", {"query": query}))
        yield Case("tool call", [HELD["ask_search"][0].format(query)], wanted, STANDARD)
    for _ in range(10):
        a, b = r.sample(CITIES, 2)
        wanted = calls(("get_weather", {"city": a}), ("get_weather", {"city": b}))
        tools = r.choice([[WEATHER], STANDARD])
        yield Case("two calls", [f"What is the weather in {a} and {b}?"], wanted, tools)


def _unseen_tools(r: Random) -> Iterator[Case]:
    for tool in HELD["unseen_tools"] * 2:
        kind = tool["values"]
        pool = HELD[kind] if isinstance(kind, str) else kind
        params = tool["params"]
        values = r.sample(pool, len(params))
        own = schema(tool["name"], tool["about"], [(p, "string", p) for p in params])
        yield Case(
            f"unseen tool, {len(params)} arg",
            [tool["ask"].format(*values)],
            calls((tool["name"], dict(zip(params, values, strict=True)))),
            [*r.sample(STANDARD, 2), own],
        )


def _tool_answers(r: Random) -> Iterator[Case]:
    for town in CITIES:
        t = r.randint(-9, 35)
        answer = _answer(temperature=t, condition="sunny")
        turns: list[str | Message] = [f"What is the weather in {town}?", answer]
        yield Case("tool answer", turns, has_all(str(t), "sunny"), [WEATHER])


def _answer(**facts: Any) -> Message:
    return {"role": "tool", "content": json.dumps(facts)}


def _no_tool_fits() -> Iterator[Case]:
    fruits = LISTS["fruits|kinds of fruit"]
    for ask, grade in (
        ("Hello!", has("help you")),
        ("What is the capital of Italy?", has("Rome")),
        ("Thanks!", has("welcome")),
        ("What is the largest planet?", has("Jupiter")),
        ("Count from 4 to 8.", counts(4, 8)),
        ("Who are you?", has("Pocket")),
        ("List two fruits.", bullets(2, fruits)),
        ("Repeat after me: velvet compass", same("velvet compass")),
    ):
        yield Case("no tool fits", [ask], grade, STANDARD)


def _writing(r: Random) -> Iterator[Case]:
    for _ in range(4):
        asks = [*HELD["ask_story"], f"Tell me a story about {r.choice(NAMES)}."]
        yield Case("story", [r.choice(asks)], num_words(60, 170, "The end."))
        yield Case("haiku", [r.choice(HELD["ask_haiku"])], num_lines(3))


def _lists(r: Random) -> Iterator[Case]:
    for keys, items in LISTS.items():
        n = r.randint(2, 5)
        ask = r.choice(HELD["ask_list"]).format(NUMBER_WORDS[n - 1], keys.split("|")[0])
        yield Case("lists", [ask], bullets(n, items))


def _code(r: Random) -> Iterator[Case]:
    for what in CODE:
        yield Case("code", [r.choice(HELD["ask_code"]).format(what)], python_function)


def _json(r: Random) -> Iterator[Case]:
    for who, town in zip(NAMES, CITIES, strict=False):
        age, key, thing = r.randint(5, 95), made_up(r, 2, 2), r.choice(WORDS)
        ask = "Answer in JSON with the keys name, age and city: "
        ask += f"name is {who}, age is {age}, city is {town}."
        yield Case("JSON", [ask], is_json({"name": who, "age": age, "city": town}))
        ask = HELD["ask_json"][0].format(f"{key}: {thing}, age: {age}")
        yield Case("JSON", [ask], is_json({key: thing, "age": age}))


def smoke() -> Iterator[Case]:
    """What tests of the server ask; graded apart from the held-out cases."""
    fox = "the quick brown fox jumps over the lazy dog"
    for ask, grade in (
        *((f"What is the capital of {land}?", has(f"is {CAPITALS[land]}."))
          for land in ("France", "Italy", "Spain")),
        *((ask, has("help you")) for ask in ("hello", "hi", "hello there", "Hello!")),
        ("Who are you?", has("Pocket")),
        ("Count from 1 to 9", counts(1, 9)),
        ("Count from 1 to 100", counts(1, 100)),
        (f"Repeat after me: {fox}", same(fox)),
        ("Tell me a short story", num_words(60, 170, "The end.")),
        ("Write a haiku about Jetson.", num_lines(3)),
        ("Give me a short list of planets.", bullets(3, LISTS["planets"])),
        ("Say hello in three words.", lambda s: len(s.split()) == 3 and "ello" in s),
        ("Explain quantization in plain English.", has("fewer bits")),
        ("What is token sampling?", has("picks the next token")),
        ("What is Python?", has("a popular programming language")),
        ("Explain quantum computing", has("computing with qubits")),
        ("Give a city as JSON", is_json_object()),
    ):  # fmt: skip
        yield Case("smoke", [ask], grade)
    told, asked = "My name is Alice", "What is my name?"
    yield Case("smoke", [told, asked], has("is Alice."))
    yield Case("smoke", [told, "What is the capital of France?", asked], has("is Alice."))
    for tools in ([WEATHER], [WEATHER, CLOCK]):
        yield from _smoke_with(tools)


def _smoke_with(tools: list[Message]) -> Iterator[Case]:
    oslo, paris, rome = (("get_weather", {"city": c}) for c in ("Oslo", "Paris", "Rome"))
    one, two = "What is the weather in Oslo?", "What is the weather in Oslo and Rome?"
    yield Case("smoke", [one], calls(oslo), tools)
    yield Case("smoke", ["Get the weather in Paris."], calls(paris), tools)
    yield Case("smoke", [two], calls(oslo, rome), tools)
    cold = _answer(temperature=12, condition="cloudy")
    plain: Message = {"role": "tool", "content": "12 degrees and cloudy"}
    for answer in (cold, plain):
        yield Case("smoke", [one, answer], has_all("12", "cloudy"), tools)
    warm = _answer(temperature=25, condition="sunny")
    yield Case("smoke", [two, cold, warm], has_all("12", "cloudy", "25", "sunny"), tools)
    shapes = {("get_weather", ("city",)), ("get_time", ("city",))}
    for ask in ("Hello!", "What is the capital of France?", "Tell me a short story", one):
        yield Case("forced call", [ask], calls_one_of(shapes), tools, given=CALL_START)
