"""Repeating what the user gave: the skill on which nearly every other one builds.

The hard part for a byte-level tokenizer is a word's beginning: " paper" and "paper" are different
tokens, and the first word of an answer, or every word behind a quotation mark, has to change from
one to the other. The word lists here are dense in such changes.
"""

from __future__ import annotations

import json
from random import Random

from pocket.skills import Turn
from pocket.vocabulary import KNOWN, PHRASES, made_up, plain_words, text

WORD_LIST_ASKS: list[str] = PHRASES["word_list_asks"]
LINE_ASKS: list[str] = PHRASES["line_asks"]
COMMA_ASKS: list[str] = PHRASES["comma_asks"]


def repeat(r: Random) -> Turn:
    """A text to say again, of one word to sixty."""
    low, high = r.choice([(1, 4), (1, 10), (8, 30), (11, 30), (28, 60)])
    return _repeated(r, text(r, low, high))


def _repeated(r: Random, given: str) -> Turn:
    ask = r.choice(KNOWN["ask_repeat"])
    quoted = f'"{given}"' if r.random() < 0.12 else given
    return Turn(ask.format(quoted), given, "I repeat the text.")


def word_list(r: Random) -> Turn:
    """The user's words in another arrangement."""
    found = [w for w in plain_words(r, r.choice([2, 3, 4, 5, 6, 8, 12])) if w.isascii()] or ["word"]
    given, pick = " ".join(found), r.random()
    if pick < 0.6:
        asks, answer = WORD_LIST_ASKS, json.dumps(found)
    elif pick < 0.85:
        asks, answer = LINE_ASKS, "\n".join(found)
    else:
        asks, answer = COMMA_ASKS, ", ".join(found)
    return Turn(r.choice(asks).format(given), answer, "I write the words as the user wants them.")


def drill(r: Random) -> list[Turn]:
    """Copying and nothing else: a few plain texts, word lists and single odd words."""
    turns = []
    for _ in range(r.randint(1, 3)):
        pick = r.random()
        if pick < 0.55:
            turns.append(
                _repeated(r, " ".join(plain_words(r, r.randint(2, r.choice([6, 30, 60])))))
            )
        elif pick < 0.7:
            turns.append(_repeated(r, " ".join(made_up(r) for _ in range(r.randint(1, 3)))))
        else:
            turns.append(word_list(r))
    return turns
