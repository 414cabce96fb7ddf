"""What must never be trained on, because the checks ask for it.

`heldout.json` holds names, cities, words, tools and phrasings of the checks. The dialogues ask
`is_clean` before anything is handed to training, so that a part that comes about by chance (a
made-up word, a phrase put together of parts) is thrown away too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pocket.chat_format import Conversation, full_text
from pocket.vocabulary import KNOWN, LISTS, NUMBER_WORDS

HELD: dict[str, Any] = json.loads(Path(__file__).with_name("heldout.json").read_text("utf-8"))

# These belong to what is taught: a fact's answer, and phrasings too plain to do without.
TAUGHT_WORDS = frozenset({"giraffe"})
TAUGHT_PHRASINGS = frozenset(KNOWN["ask_repeat"])

HELD_WORDS = (
    frozenset(
        word.lower() for kind in ("names", "cities", "words", "colours") for word in HELD[kind]
    )
    - TAUGHT_WORDS
)
HELD_TOOLS = tuple(tool["name"] for tool in HELD["unseen_tools"])

_LETTERS = re.compile(r"[^\W\d_]+")
_COUNTS = "|".join([*NUMBER_WORDS, "[1-5]"])
_KINDS = "|".join(re.escape(key) for keys in LISTS for key in keys.split("|"))


def is_clean(conversation: Conversation) -> bool:
    """Whether a conversation has nothing in it that the checks ask for."""
    seen = full_text(conversation)
    if not HELD_WORDS.isdisjoint(_LETTERS.findall(seen.lower())):
        return False
    if any(tool in seen for tool in HELD_TOOLS):
        return False
    asks = _TOOL_ASKS if conversation.tools else _ASKS
    return not any(asks.fullmatch(text.strip()) for text in conversation.user_texts)


def _pattern(phrasings: Iterable[str]) -> re.Pattern[str]:
    parts = []
    for phrasing in phrasings:
        pieces = [re.escape(piece) for piece in phrasing.split("{}")]
        parts.append("(?:.+)".join(pieces))
    return re.compile("|".join(parts), re.IGNORECASE | re.DOTALL)


def _phrasings() -> list[str]:
    """Whole requests of the checks, with {} for what varies."""
    kinds = ("capital", "fact", "term", "repeat", "count", "story", "haiku", "code", "json")
    found = [ask for kind in kinds for ask in HELD[f"ask_{kind}"]]
    found += [ask for group in HELD["simple"] for ask in group["asks"]]
    found += ["Repeat after me: " + text for text in HELD["texts"]]
    return [ask for ask in found if ask not in TAUGHT_PHRASINGS]


def _tool_phrasings() -> list[str]:
    kinds = ("weather", "time", "calculate", "search")
    found = [ask for kind in kinds for ask in HELD[f"ask_{kind}"]]
    return found + [tool["ask"] for tool in HELD["unseen_tools"]]


_LIST_ASKS = [
    re.escape(ask).replace(r"\{\}", f"(?:{_COUNTS})", 1).replace(r"\{\}", f"(?:{_KINDS})")
    for ask in HELD["ask_list"]
]
_ASKS = re.compile(
    "|".join([_pattern(_phrasings()).pattern, *_LIST_ASKS]), re.IGNORECASE | re.DOTALL
)
_TOOL_ASKS = re.compile(
    "|".join([_ASKS.pattern, _pattern(_tool_phrasings()).pattern]), re.IGNORECASE | re.DOTALL
)
