"""JSON objects: from what the user said, or made up where nothing was given."""

from __future__ import annotations

import json
from random import Random

from pocket.skills import Turn
from pocket.vocabulary import CAPITALS, LISTS, PHRASES, city, listed, made_up, name, upper, word

Value = str | int | bool

SAMPLE: dict[str, Value] = {
    "name": "Alice",
    "age": 30,
    "city": "Paris",
    "country": "France",
    "colour": "blue",
    "color": "blue",
    "animal": "cat",
    "fruit": "apple",
    "title": "Hello",
    "price": 10,
    "year": 2024,
    "language": "English",
    "ok": True,
    "answer": 42,
    "message": "Hello",
    "status": "ok",
    "id": 1,
}
KINDS = {
    "city": ["name", "country"],
    "person": ["name", "age", "city"],
    "book": ["title", "year"],
    "user": ["id", "name"],
    "fruit": ["fruit", "colour"],
    "country": ["country", "city"],
}
KIND_ASKS: list[str] = PHRASES["kind_asks"]
KEY_ASKS: list[str] = PHRASES["key_asks"]
THOUGHT = "The user wants JSON."


def json_answer(r: Random) -> Turn:
    """A JSON object; three times in four of values that the user gives."""
    pick = r.random()
    if pick < 0.1:
        return _of_a_kind(r)
    if pick < 0.2:
        return _with_keys(r)
    if pick < 0.3:
        return _capital(r)
    return _of_given(r)


def _of_a_kind(r: Random) -> Turn:
    kind = r.choice(list(KINDS))
    data = {key: SAMPLE[key] for key in KINDS[kind]} | ({"name": "Paris"} if kind == "city" else {})
    user = r.choice(KIND_ASKS).format(a="an" if kind[0] in "aeio" else "a", kind=kind)
    return Turn(user, json.dumps(data), THOUGHT)


def _with_keys(r: Random) -> Turn:
    keys = r.sample(list(SAMPLE), r.randint(1, 3))
    answer = json.dumps({key: SAMPLE[key] for key in keys})
    return Turn(r.choice(KEY_ASKS).format(listed(keys)), answer, THOUGHT)


def _capital(r: Random) -> Turn:
    land, town = r.choice([(a, b) for a, b in CAPITALS.items() if not a.startswith("the ")])
    asks = ["Give me the capital of {} as JSON with the keys country and capital."]
    asks += ["What is the capital of {}? Answer in JSON with country and capital."]
    answer = json.dumps({"country": land, "capital": town})
    return Turn(r.choice(asks).format(land), answer, THOUGHT)


def _of_given(r: Random) -> Turn:
    data = _data(r)
    keys = listed(list(data))
    pairs = [r.choice([" is ", ": ", ": ", " = "])] * len(data)
    shown = [f"{key}{glue}{value}" for (key, value), glue in zip(data.items(), pairs, strict=True)]
    given = ("the " + ", the ".join(shown)) if r.random() < 0.15 else ", ".join(shown)
    user = r.choice(
        [
            f"Answer in JSON with the keys {keys}: {given}.",
            f"Turn this into JSON: {given}",
            f"Write this as a JSON object: {given}.",
            f"Return JSON with {keys}. {upper(given)}.",
            f"{upper(given)}. Answer in JSON.",
            f"Convert to JSON: {given}",
            f"Make JSON of this: {given}",
            f"Can you write this as JSON? {given}",
            f"I need this as JSON: {given}",
            f"Extract {keys} as JSON: {given}.",
        ]
    )
    return Turn(user, json.dumps(data), THOUGHT)


def _data(r: Random) -> dict[str, Value]:
    """One to four pairs under known and made-up keys."""
    pool: dict[str, Value] = {
        "name": name(r),
        "age": r.randint(1, 99),
        "city": city(r),
        "country": r.choice(list(CAPITALS)).replace("the ", ""),
        "item": word(r),
        "price": r.randint(1, 500),
        "colour": r.choice(LISTS["colours|colors"]),
        "quantity": r.randint(1, 50),
        "animal": r.choice(LISTS["animals"]),
        "year": r.randint(1900, 2030),
        "title": word(r).capitalize(),
    }
    pool |= {made_up(r, 1, 3): word(r), made_up(r, 2, 2): r.randint(0, 999), word(r): word(r)}
    return {key: pool[key] for key in r.sample(list(pool), r.randint(1, 4))}
