"""The words that dialogues are made of: known ones, and made-up ones to copy."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

KNOWN: dict[str, Any] = json.loads(Path(__file__).with_name("knowledge.json").read_text("utf-8"))
PHRASES: dict[str, list[str]] = json.loads(
    Path(__file__).with_name("phrases.json").read_text("utf-8")
)
CAPITALS: dict[str, str] = KNOWN["capitals"]
FACTS: dict[str, str] = KNOWN["facts"]
LISTS: dict[str, list[str]] = KNOWN["lists"]
CODE: dict[str, str] = KNOWN["code"]
NAMES: list[str] = KNOWN["names"]
TERMS: dict[str, str] = KNOWN["terms"] | KNOWN["more_terms"]
CITIES: list[str] = sorted(set(CAPITALS.values()) - {"Washington, D.C."}) + KNOWN["cities"]

ONSETS = [
    "b",
    "c",
    "d",
    "f",
    "g",
    "h",
    "j",
    "k",
    "l",
    "m",
    "n",
    "p",
    "r",
    "s",
    "t",
    "v",
    "w",
    "z",
    "br",
    "ch",
    "cl",
    "dr",
    "fl",
    "gr",
    "kr",
    "pl",
    "pr",
    "sh",
    "sl",
    "st",
    "th",
    "tr",
    "qu",
    "y",
]
VOWELS = ["a", "e", "i", "o", "u", "a", "e", "i", "o", "ai", "ea", "ee", "ia", "io", "ou", "y"]
CODAS = ["", "", "", "n", "r", "s", "l", "t", "m", "nd", "ck", "th", "x", "rt"]
COMMON = (
    "house tree river stone window table bottle garden letter mountain paper silver yellow under "
    "over before after walk run jump sing open close bright dark slow quick happy sad funny old "
    "new long short warm cool sweet sour round flat deep high low left right north south east "
    "west bread milk cheese honey salt pepper sugar coffee tea book pen chair door floor wall "
    "roof street bridge train car boat plane wheel engine key lock clock coin ring box bag hat "
    "coat shoe glove shirt button needle thread rope chain hammer nail saw drill never always "
    "often maybe because although where when why how which every some any none both each many "
    "few much little more less"
)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
NUMBER_WORDS = ["one", "two", "three", "four", "five"]
SMALL_WORDS = ["the", "the", "a", "of", "to", "and", "is", "in", "that", "or", "not", "be"]


def _all_words() -> list[str]:
    texts = [*TERMS.values(), *FACTS, COMMON]
    texts += [" ".join(items) for items in LISTS.values()]
    texts += [line for part in KNOWN["haiku"] for line in part]
    found = {w.strip(".,?!").lower() for t in texts for w in t.replace("|", " ").split()}
    return sorted({w for w in found if w.isalpha()} | set(KNOWN["words"]))


WORDS = _all_words()
PIECES: list[str] = []  # training puts the tokenizer's tokens here, so that each is copied at times


def made_up(r: Random, low: int = 1, high: int = 3) -> str:
    """A word that nobody has seen: of tokens, of cuttings of real words, or of syllables."""
    if PIECES and r.random() < 0.3:
        return "".join(r.choices(PIECES, k=r.randint(1, high)))
    if r.random() < 0.5:
        real = r.choices(WORDS, k=r.randint(low, high))
        return "".join(w[(i := r.randrange(len(w))) : i + r.randint(2, 5)] for w in real)
    count = r.randint(low, high)
    return "".join(r.choice(ONSETS) + r.choice(VOWELS) + r.choice(CODAS) for _ in range(count))


def word(r: Random) -> str:
    return r.choice(WORDS) if r.random() < 0.6 else made_up(r)


def name(r: Random) -> str:
    return r.choice(NAMES) if r.random() < 0.35 else made_up(r, 1, 3).capitalize()


def city(r: Random) -> str:
    return r.choice(CITIES) if r.random() < 0.5 else made_up(r, 2, 3).capitalize()


def value_word(r: Random) -> str:
    """What a user may fill in: a word, a name, a code, a number, two words."""
    pick = r.random()
    if pick < 0.12:
        return "".join(r.choice(LETTERS) for _ in range(r.randint(2, 5)))
    if pick < 0.22:
        return r.choice(LETTERS) + str(r.randint(1, 99))
    if pick < 0.30:
        return f"{word(r)} {word(r)}"
    if pick < 0.36:
        return str(r.randint(1, 9999))
    return r.choice([word, word, name, city])(r)


def plain_words(r: Random, count: int) -> list[str]:
    """Lower-case words, some of them unseen, often with repetitions."""
    odd = r.choice([0.1, 0.3, 0.6, 0.9])
    pool = [made_up(r).lower() if r.random() < odd else r.choice(WORDS) for _ in range(count)]
    if count > 1 and r.random() < 0.5:
        pool = r.choices(pool[: r.randint((count + 1) // 2, count)], k=count)
    return pool


def text(r: Random, low: int, high: int) -> str:
    """Words as people write them: mostly plain, at times with numbers and punctuation."""
    found = plain_words(r, r.randint(low, high))
    if r.random() < 0.2:
        found = [r.choice(SMALL_WORDS) if r.random() < 0.4 else w for w in found]
    if r.random() < 0.25:
        found = [_number(r) if r.random() < 0.2 else w for w in found]
    if r.random() < 0.06:
        at = r.randrange(len(found))
        found[at] = "".join(r.choice("äöüßéèñçåøÄÖÜ") if r.random() < 0.3 else c for c in found[at])
    style = r.random()
    if style < 0.3:
        found = [w + (r.choice(",,,,:;.!") if r.random() < 0.15 else "") for w in found]
        found[-1] = found[-1].rstrip(",:;.!") + r.choice(".!?")
        found[0] = found[0].capitalize()
    elif style < 0.4:
        found = [w.capitalize() for w in found]
    return " ".join(found)


def _number(r: Random) -> str:
    whole = str(r.randint(0, r.choice([9, 99, 999, 9999])))
    return r.choice([whole, whole, whole, f"{whole}.{r.randint(0, 99)}", f"{word(r)}.{word(r)}"])


def upper(sentence: str) -> str:
    """The sentence with a capital first letter."""
    return sentence[0].upper() + sentence[1:]


def listed(items: list[str]) -> str:
    """a, b and c"""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]
