"""Whole conversations, put together from skills, memories and tool episodes.

`conversation(random)` draws one; the same seed draws the same conversations. Every word that Pocket
ever sees is made in this package.
"""

from __future__ import annotations

import json
from random import Random

from pocket.chat_format import Conversation, Message
from pocket.copying import drill, repeat, word_list
from pocket.heldout import is_clean
from pocket.records import json_answer
from pocket.skills import (
    Turn,
    code,
    count,
    facts,
    haiku,
    listing,
    smalltalk,
    story,
    sums,
)
from pocket.tools import Tool, known_tool, random_tool
from pocket.unknown import unknown
from pocket.vocabulary import KNOWN, LISTS, PHRASES, city, made_up, name, upper, word

WEIGHTS = {
    smalltalk: 11,
    facts: 20,
    sums: 3,
    unknown: 9,
    repeat: 18,
    word_list: 4,
    count: 10,
    story: 2,
    haiku: 2,
    listing: 5,
    code: 4,
    json_answer: 11,
}
EXACT = (repeat, word_list, json_answer)  # a word more would change what they ask for
BEFORE: list[str] = PHRASES["before"]
AFTER_QUESTION: list[str] = PHRASES["after_question"]
AFTER_SENTENCE: list[str] = PHRASES["after_sentence"]
LATE_WORDS: list[str] = PHRASES["late_words"]


def conversation(r: Random, drills: float = 0.0) -> Conversation:
    """One conversation without anything that is held out.

    `drills` is the share of mere copying exercises.
    """
    while not is_clean(drawn := _draw(r, drills)):
        pass
    return drawn


def _draw(r: Random, drills: float) -> Conversation:
    kind = r.random()
    tools: list[Message] = []
    if r.random() < drills:
        messages = _messages(drill(r))
    elif kind < 0.30:
        messages, tools = tool_episodes(r)
    elif kind < 0.43:
        tell, ask = memory(r)
        between = [skill(r) for _ in range(r.choice([0, 0, 0, 1, 1, 2, 3]))]
        messages = _messages([*tell, *between, *ask])
    else:
        messages = _messages([skill(r) for _ in range(r.choice([1, 1, 1, 1, 2, 2, 3, 4, 6, 9]))])
    thinking = r.random() < 0.2
    if thinking:  # end at any answer, so that a thought is learnt for every kind of turn
        ends = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
        messages = messages[: r.choice(ends) + 1]
    if r.random() < 0.3:
        messages.insert(0, {"role": "system", "content": _system(r)})
    return Conversation(messages, tools, thinking, sort_keys=r.random() < 0.25)


def _system(r: Random) -> str:
    if r.random() < 0.75:
        known: str = r.choice(KNOWN["systems"])
        return known
    asks = ["You are a {} {}.", "Always be {} and {}.", "You help people with {} and {}."]
    return r.choice(asks).format(word(r), word(r))


def _messages(turns: list[Turn]) -> list[Message]:
    found: list[Message] = []
    for user, answer, thought in turns:
        found.append({"role": "user", "content": user})
        found.append({"role": "assistant", "content": answer, "think": thought})
    return found


def skill(r: Random) -> Turn:
    """One exchange, asked as people in a hurry ask."""
    draw = r.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    turn: Turn = draw(r)
    return turn if draw in EXACT else turn._replace(user=loose(r, turn.user))


def loose(r: Random, user: str) -> str:
    """The same request as a hurried person might type it."""
    if r.random() < 0.12:
        user = user[0].lower() + user[1:]
    if r.random() < 0.12:
        user = user.rstrip("?.!")
    if r.random() < 0.14:
        topic = f"I was thinking about {word(r)}. "
        other = f"{word(r).capitalize()} {word(r)}. "
        return r.choice([*BEFORE, topic, other, f"{name(r)} wants to know: "]) + user
    if r.random() < 0.06:
        if user.endswith("?"):
            return user[:-1] + r.choice(AFTER_QUESTION)
        return user + r.choice(AFTER_SENTENCE)
    return user


def memory(r: Random) -> tuple[list[Turn], list[Turn]]:
    """Turns in which the user tells something, and turns that ask for it later."""
    if r.random() < 0.07:  # asked before it was told
        asks = KNOWN["memory"][r.choice(["name", "colour", "city"])]["asks"]
        unknown_yet = "You have not told me that yet."
        return [], [Turn(r.choice(asks), unknown_yet, "The user has not told me that.")]
    values = {
        "name": name(r),
        "city": city(r),
        "thing": made_up(r) if r.random() < 0.5 else word(r),
        "colour": r.choice(LISTS["colours|colors"]) if r.random() < 0.6 else made_up(r),
    }
    tell, ask = [], []
    for kind in r.sample(list(values), r.choice([1, 1, 2, 3])):
        value, known = values[kind], KNOWN["memory"][kind]
        answer, says = known["answer"].format(value), r.choice(known["says"]).format(value)
        if kind == "name" and r.random() < 0.1:  # told and asked at once
            both = f"{says} {r.choice(known['asks'])}"
            tell.append(Turn(both, answer, f"The user said the name {value}."))
        else:
            thought = f"The user tells me the {kind} {value}."
            tell.append(Turn(_told(r, says), known["confirm"].format(value), thought))
        asked = loose(r, r.choice(known["asks"]))
        ask.append(Turn(asked, answer, f"The user told me the {kind} {value}."))
    r.shuffle(ask)
    return tell, ask


def _told(r: Random, says: str) -> str:
    if r.random() < 0.4:
        says = says.rstrip(".") + r.choice(["", "", "!", ".", "."])
    if r.random() < 0.1:
        return r.choice(["Hi! ", "Hello! ", "OK, ", "Hey, ", "By the way, "]) + says
    return upper(says)


# ---------------------------------------------------------------- tools in a conversation


def tool_episodes(r: Random) -> tuple[list[Message], list[Message]]:
    """Messages of one or two tool episodes, and the schemas that go with them."""
    drawn = [
        known_tool(r) if r.random() < 0.45 else random_tool(r)
        for _ in range(r.choice([1, 1, 2, 2, 3, 3, 4]))
    ]
    tools = list({tool.name: tool for tool in drawn}.values())
    messages: list[Message] = []
    for _ in range(r.choice([1, 1, 1, 2])):
        pick = r.random()
        if pick < 0.07:
            messages += _forced_call(r, tools[0])
            break
        messages += _no_tool_fits(r) if pick < 0.25 else _episode(r, tools)
    return messages, [tool.spec for tool in tools]


def _forced_call(r: Random, tool: Tool) -> list[Message]:
    """A call that hardly fits, whose beginning a grammar has given."""
    user = r.choice([smalltalk, facts, unknown, story])(r).user
    given = " ".join(user.split()[:4]).rstrip(".,?!")
    answer: Message = {"role": "assistant", "content": "", "forced": True}
    answer["think"] = f"I call {tool.name} for {given}."
    answer["tool_calls"] = [tool.call((given,) * len(tool.params))]
    return [{"role": "user", "content": user}, answer]


def _no_tool_fits(r: Random) -> list[Message]:
    draw = r.choice([smalltalk, smalltalk, facts, facts, repeat, count, listing, json_answer])
    turn = draw(r)
    return _messages([turn._replace(thought="No tool is needed. " + turn.thought)])


def _episode(r: Random, tools: list[Tool]) -> list[Message]:
    """Request, calls, tool answers, and the sentence that passes them on."""
    user, wanted = _request(r, tools)
    calls = [tool.call(values) for tool, values in wanted]
    for_what = " and ".join(" and ".join(values) for _, values in wanted)
    names = " and ".join(dict.fromkeys(tool.name for tool, _ in wanted))
    answer: Message = {"role": "assistant", "content": "", "tool_calls": calls}
    messages: list[Message] = [
        {"role": "user", "content": loose(r, upper(user))},
        {**answer, "think": f"I call {names} for {for_what}."},
    ]
    sentences = []
    for tool, values in wanted:
        data, sentence = tool.reply(r)
        shown = data if isinstance(data, str) else json.dumps(data)
        messages.append({"role": "tool", "content": shown.replace("{}", values[0])})
        sentences.append(sentence.replace("{}", values[0]))
    told = "The tool has answered. I tell the user."
    return [*messages, {"role": "assistant", "content": " ".join(sentences), "think": told}]


def _request(r: Random, tools: list[Tool]) -> tuple[str, list[tuple[Tool, tuple[str, ...]]]]:
    """What the user says, and the calls that it means."""
    tool = r.choice(tools)
    values = tool.values(r)
    ask = r.choice(tool.asks)
    if len(tool.params) > 1:
        return ask.format(*values), [(tool, values)]
    if tool.params[0] not in ("expression", "formula") and r.random() < 0.25:
        second = tool.values(r)
        user = ask.format(f"{values[0]} and {second[0]}")
        return _late(r, tool, user), [(tool, values), (tool, second)]
    others = [t for t in tools if t is not tool and len(t.params) == 1]
    if others and r.random() < 0.15:
        other = r.choice(others)
        more = other.values(r)
        also = r.choice(other.asks).format(more[0])
        user = ask.format(values[0])
        if r.random() < 0.7:
            user = user.rstrip(".?!") + r.choice([" and ", ", and "]) + also[0].lower() + also[1:]
        else:
            user = f"{user} {upper(also)}"
        return user, [(tool, values), (other, more)]
    return _late(r, tool, ask.format(values[0])), [(tool, values)]


def _late(r: Random, tool: Tool, user: str) -> str:
    """At times with a word at the end that is no part of the value."""
    if user[-1] in ".?" and tool.takes_late_words and r.random() < 0.25:
        return f"{user[:-1]} {r.choice(LATE_WORDS)}{user[-1]}"
    return user
