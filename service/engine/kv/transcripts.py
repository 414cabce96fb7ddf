"""Conversations as they were read and sampled, so that the next turn need not be tokenized anew.

A model's words rarely come back as the tokens it chose: what it wrote as two may be one in the
tokenizer's eyes, and from there on nothing that was computed fits. So what is known as tokens
stays so, and only what is new is tokenized.
"""

from __future__ import annotations

import codecs
import threading
from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise, zip_longest

import numpy as np

from service.domain.chat import Prompt, PromptPiece
from service.engine.kv.prefix import TokenArray
from service.engine.runner import Spelling

# Conversations that are remembered as text; some ten kilobytes each.
MAX_TRANSCRIPTS = 128
# A token that ends inside a character.
_NOWHERE = -1


@dataclass(frozen=True, slots=True)
class Transcript:
    """A prompt and what followed; the first `num_prompt` of `tokens` are the prompt's."""

    prompt: Prompt
    tokens: TokenArray
    num_prompt: int


@dataclass(frozen=True, slots=True)
class Splice:
    """The tokens of a prompt's beginning, and the part of it that they don't cover."""

    token_ids: list[int]
    rest: Prompt


class Transcripts:
    """The latest conversations under each tag. Any thread, but only one at a time splices."""

    def __init__(self, spelling: Spelling) -> None:
        self._spelling = spelling
        self._lock = threading.Lock()
        self._latest: OrderedDict[int, tuple[str, Transcript]] = OrderedDict()
        self._aligned: dict[int, _Aligned | None] = {}
        self._num = 0

    def remember(self, tag: str, transcript: Transcript) -> None:
        """Cheap: nothing is looked at until somebody asks."""
        with self._lock:
            self._num += 1
            self._latest[self._num] = (tag, transcript)
            if len(self._latest) > MAX_TRANSCRIPTS:
                self._latest.popitem(last=False)

    def splice(self, tag: str, prompt: Prompt) -> Splice | None:
        """The longest beginning of `prompt` that is known as tokens under this tag."""
        with self._lock:
            known = [(n, t) for n, (owner, t) in self._latest.items() if owner == tag]
            for number in self._aligned.keys() - self._latest.keys():
                del self._aligned[number]
        wanted = _Text.of(prompt)
        best: tuple[int, int, int] | None = None
        for number, transcript in known:
            aligned = self._align(number, transcript)
            cut = aligned.cut_for(wanted, self._spelling) if aligned is not None else None
            if cut is not None and (best is None or cut[0] >= best[0]):
                best = (*cut, number)
        if best is None:
            return None
        at, num_tokens, number = best
        with self._lock:
            if number in self._latest:
                self._latest.move_to_end(number)
        tokens = next(t.tokens for n, t in known if n == number)
        return Splice(tokens[:num_tokens].tolist(), wanted.from_(at))

    def _align(self, number: int, transcript: Transcript) -> _Aligned | None:
        if number not in self._aligned:
            self._aligned[number] = _align(transcript, self._spelling)
        return self._aligned[number]


@dataclass(frozen=True, slots=True)
class _Text:
    """A prompt as one text, and the ranges of it that are not trusted."""

    text: str
    untrusted: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, prompt: Prompt) -> _Text:
        ranges: list[tuple[int, int]] = []
        at = 0
        for piece in prompt:
            end = at + len(piece.text)
            if not piece.trusted and piece.text:
                if ranges and ranges[-1][1] == at:
                    ranges[-1] = (ranges[-1][0], end)
                else:
                    ranges.append((at, end))
            at = end
        return cls("".join(piece.text for piece in prompt), tuple(ranges))

    def trusts(self, first: int, end: int) -> bool:
        """Whether all of these characters are trusted."""
        return not any(start < end and first < stop for start, stop in self.untrusted)

    def turns_reserved_at(self, at: int, spelling: Spelling) -> bool:
        """Whether a control token or markup stands there."""
        return self.trusts(at, at + 1) and spelling.find_reserved(self.text, at, at + 1) == at

    def edges_until(self, limit: int) -> list[int]:
        """Where trust changes, up to there."""
        return [edge for both in self.untrusted for edge in both if edge < limit]

    def from_(self, at: int) -> Prompt:
        """The prompt behind that many characters."""
        places = {at, len(self.text)}
        for start, stop in self.untrusted:
            places |= {max(at, start), max(at, stop)}
        return tuple(
            PromptPiece(self.text[start:stop], trusted=self.trusts(start, stop))
            for start, stop in pairwise(sorted(places))
        )


@dataclass(frozen=True, slots=True)
class _Aligned:
    """A transcript's text, and at which character of it each token ends.

    Up to `prompt_end` trust is as it was then. Behind it is what the model wrote, up to where it
    spelled something reserved by letters. `claims` are the places where it wrote reserved tokens:
    those come back only where the template, or who else is trusted, has put them.
    """

    said: _Text
    ends: list[int]
    reserved: list[bool]
    prompt_end: int
    claims: list[tuple[int, int]]

    def cut_for(self, wanted: _Text, spelling: Spelling) -> tuple[int, int] | None:
        """Up to which character, and which token, `wanted` can be taken from here.

        Only next to a control token or markup, where tokenizers start afresh anyway. None where
        that is nowhere.
        """
        limit = self._agrees_until(wanted)
        for count in range(len(self.ends), 0, -1):
            end = self.ends[count - 1]
            if not 0 < end <= limit:
                continue
            if self.reserved[count - 1] or wanted.turns_reserved_at(end, spelling):
                return end, count
        return None

    def _agrees_until(self, wanted: _Text) -> int:
        """How far the texts are alike, and trusted alike."""
        alike = _common_length(self.said.text, wanted.text)
        limit = min(alike, self.prompt_end)
        edges = zip_longest(
            self.said.edges_until(limit), wanted.edges_until(limit), fillvalue=limit
        )
        end = next((min(ours, theirs) for ours, theirs in edges if ours != theirs), alike)
        denied = (start for start, stop in self.claims if not wanted.trusts(start, stop))
        return min(end, next(denied, end))


def _common_length(one: str, other: str) -> int:
    """How many first characters are equal."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _align(transcript: Transcript, spelling: Spelling) -> _Aligned | None:
    """None where the tokens of the prompt do not spell its text."""
    said = _Text.of(transcript.prompt)
    token_ids = transcript.tokens.tolist()
    in_prompt, written = token_ids[: transcript.num_prompt], token_ids[transcript.num_prompt :]
    ends = _ends_in_prompt(said.text, in_prompt, spelling)
    if ends is None:
        return None
    prompt_end = len(said.text)
    reserved = [spelling.is_reserved(token_id) for token_id in in_prompt]
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    answer, claims, at = [], [], prompt_end
    for token_id, piece in zip(written, spelling.spell(written), strict=True):
        start = at
        answer.append(decoder.decode(piece))
        at += len(answer[-1])
        ends.append(_NOWHERE if decoder.getstate()[0] else at)
        reserved.append(spelling.is_reserved(token_id))
        if reserved[-1]:
            claims.append((start, at))
    text = said.text + "".join(answer)
    text = text[: _end_of_plain(text, prompt_end, claims, spelling)]
    return _Aligned(_Text(text, said.untrusted), ends, reserved, prompt_end, claims)


def _end_of_plain(text: str, start: int, claims: list[tuple[int, int]], spelling: Spelling) -> int:
    """Where something reserved is first spelled that is not claimed; the end where nothing is."""
    stops = dict(claims)
    while (at := spelling.find_reserved(text, start, len(text))) >= 0:
        if at not in stops:
            return at
        start = stops[at]
    return len(text)


def _ends_in_prompt(text: str, token_ids: list[int], spelling: Spelling) -> list[int] | None:
    data = text.encode("utf-8", "replace")
    whole = np.frombuffer(data, np.uint8) & 0xC0 != 0x80
    # The character that begins at each byte, or that it belongs to; one more for the end.
    characters = np.append(np.cumsum(whole) - 1, len(text))
    begins = np.append(whole, True)
    ends: list[int] = []
    at, fresh = 0, True
    for token_id, piece in zip(token_ids, spelling.spell(token_ids), strict=True):
        is_reserved = spelling.is_reserved(token_id)
        if data.startswith(piece, at):
            at += len(piece)
        elif fresh and piece[:1] == b" " and data.startswith(piece[1:], at):
            at += len(piece) - 1  # SentencePiece puts a space in front where it starts
        elif not (is_reserved and not ends):  # the text does not have the BOS in front
            return None
        ends.append(int(characters[at]) if begins[at] else _NOWHERE)
        fresh = is_reserved
    return ends if at == len(data) else None
