"""Control-token spellings in people's text: found, hidden while a template runs, and kept apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from service.domain.chat import Prompt, PromptPiece
from service.domain.errors import InvalidRequest

# Private-use planes: no text means anything by them, no template looks for them.
_PRIVATE_USE = re.compile("[\U000f0000-\U000ffffd\U00100000-\U0010fffd]")
_STAND_INS = (*range(0xF0000, 0xFFFFE), *range(0x100000, 0x10FFFE))


class Spellings:
    """The tokens of one vocabulary that text must not turn into, as searches for them: `control`
    tokens in anybody's text, `markup` only where it is not the model's own."""

    def __init__(self, control: Iterable[str], markup: Iterable[str] = ()) -> None:
        in_own_words = {word for word in control if word}
        self._in_own_words = _any_of(in_own_words)
        self._in_other_words = _any_of(in_own_words | {word for word in markup if word})

    def pattern(self, *, own_words: bool) -> re.Pattern[str] | None:
        return self._in_own_words if own_words else self._in_other_words


class Scan:
    """A guard that passes values through as they are, and notes what is in their strings."""

    def __init__(self, spellings: Spellings) -> None:
        self._spellings = spellings
        self.found = False
        self.private_use: set[str] = set()

    def __call__(self, value: Any, *, own_words: bool = False) -> Any:
        pattern = self._spellings.pattern(own_words=own_words)

        def look(text: str) -> str:
            if not text.isascii():
                self.private_use.update(_PRIVATE_USE.findall(text))
            self.found = self.found or (pattern is not None and pattern.search(text) is not None)
            return text

        return _map_strings(value, look)


class Disguise:
    """A guard that puts one private-use character in the place of each spelling, until `reveal`.

    `taken` are the private-use characters that must not be used, because the text itself has them.
    """

    def __init__(self, spellings: Spellings, taken: set[str]) -> None:
        self._spellings = spellings
        self._free = (chr(code) for code in _STAND_INS if chr(code) not in taken)
        self._stand_ins: dict[str, str] = {}

    def __call__(self, value: Any, *, own_words: bool = False) -> Any:
        pattern = self._spellings.pattern(own_words=own_words)
        if pattern is None:
            return value
        return _map_strings(value, lambda text: pattern.sub(self._stand_in, text))

    def reveal(self, rendered: str) -> Prompt:
        """The rendered text with the spellings back in it, each an untrusted piece of its own."""
        spelling_of = {char: spelling for spelling, char in self._stand_ins.items()}
        parts = re.split(f"([{''.join(spelling_of)}])", rendered) if spelling_of else [rendered]
        return tuple(
            PromptPiece(spelling_of.get(part, part), trusted=part not in spelling_of)
            for part in parts
            if part
        )

    def _stand_in(self, match: re.Match[str]) -> str:
        spelling = match[0]
        if spelling not in self._stand_ins:
            free = next(self._free, None)
            if free is None:
                raise InvalidRequest("The messages use every private-use character there is.")
            self._stand_ins[spelling] = free
        return self._stand_ins[spelling]


def _map_strings(value: Any, change: Callable[[str], str]) -> Any:
    """`value` with all its strings changed: text, or lists and mappings of JSON with text."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): _map_strings(inner, change) for key, inner in value.items()}
    if isinstance(value, list):
        return [_map_strings(inner, change) for inner in value]
    return value


def _any_of(words: set[str]) -> re.Pattern[str] | None:
    return re.compile(_trie_pattern(sorted(words))) if words else None


def _trie_pattern(words: Sequence[str]) -> str:
    """An alternation of sorted words that shares their beginnings: thousands of control tokens
    cost no more than a few, and the longest one matches."""
    branches: dict[str, list[str]] = {}
    for word in words:
        if word:
            branches.setdefault(word[0], []).append(word[1:])
    if not branches:
        return ""
    parts = [re.escape(first) + _trie_pattern(rest) for first, rest in branches.items()]
    return f"(?:{'|'.join(parts)}){'?' if '' in words else ''}"
