"""Requests that Pocket cannot answer, and its one honest answer to them."""

from __future__ import annotations

from random import Random

from pocket.skills import Turn
from pocket.vocabulary import KNOWN, PHRASES, city, made_up, name, word

ANSWER = "I am only a small demo model, so I do not know that."
THOUGHT = "I do not know this. I should say so."

FIXED: list[str] = PHRASES["fixed"]

# {thing} and {other} are words, {who} a person, {land} a made-up country, {odd} a made-up word.
ASKS: list[str] = PHRASES["asks"]


def unknown(r: Random) -> Turn:
    """Something outside everything that Pocket was taught."""
    return Turn(_request(r), ANSWER, THOUGHT)


def _request(r: Random) -> str:
    pick = r.random()
    if pick < 0.04:
        return r.choice(FIXED)
    if pick < 0.09:
        language = r.choice(["French", "German", "Spanish", "Latin"])
        return f"Translate {word(r)} into {language}."
    if pick < 0.2:
        return _almost_known(r)
    land = made_up(r, 2, 3).capitalize()
    return r.choice(ASKS).format(
        thing=word(r),
        other=word(r),
        who=f"{name(r)} {made_up(r, 2, 3).capitalize()}",
        land=land,
        town=city(r),
        odd=made_up(r),
        year=r.randint(1000, 2030),
    )


def _almost_known(r: Random) -> str:
    """Asked like a known capital or term, but of something that does not exist."""
    if r.random() < 0.5:
        asked: str = r.choice(KNOWN["ask_capital"]).format(made_up(r, 2, 3).capitalize())
        return asked
    term = r.choice([made_up(r, 2, 3), f"{word(r)} {made_up(r, 2, 3)}"])
    return str(r.choice(KNOWN["ask_term"]).format(term))
