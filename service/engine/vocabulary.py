"""From text to token ids and back, with no way for people's text to speak as the template."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import groupby, pairwise
from typing import Any

import llama_cpp.llama_cpp as llama
import numpy as np

from service.domain.chat import Prompt
from service.domain.errors import InvalidRequest
from service.engine import library
from service.engine.sampling.dry import Breakers, find_breakers
from service.engine.spellings import Spellings
from service.engine.strangers import find_strangers

_UNKNOWN, _CONTROL, _USER_DEFINED = (
    llama.LLAMA_TOKEN_ATTR_UNKNOWN,
    llama.LLAMA_TOKEN_ATTR_CONTROL,
    llama.LLAMA_TOKEN_ATTR_USER_DEFINED,
)

# A scan for spellings holds the interpreter lock; between stretches of this many characters
# the engine thread gets its turn.
_STRETCH = 16_384

# Sets of breakers (see dry.py) that are remembered; clients hardly use more than one.
_NUM_BREAKERS = 32


class Vocabulary:
    """The tokens of one model: pieces, ends, and tokenization. All methods are thread-safe.

    A *reserved* spelling is that of a control token, an unknown token, or a user-defined token
    that is markup (`<think>`, `<tool_call>`). llama.cpp reads the latter as tokens in any text,
    so that text from outside is cut inside such spellings before it is tokenized.
    """

    def __init__(self, vocab: Any, *, max_prompt_bytes: int) -> None:
        self._vocab = vocab
        self._max_prompt_bytes = max_prompt_bytes
        self.size = int(llama.llama_vocab_n_tokens(vocab))
        self.pieces = Spellings(_read_pieces(vocab, self.size))
        self.ends = frozenset(i for i in range(self.size) if llama.llama_vocab_is_eog(vocab, i))
        self.suppressed = _read_suppressed(vocab)
        self.adds_bos = bool(llama.llama_vocab_get_add_bos(vocab))
        self._bos = int(llama.llama_vocab_bos(vocab))
        self._control, self._markup, self._reserved_ids = _read_special(vocab, self.size)
        self._breakers = lru_cache(_NUM_BREAKERS)(self._find_breakers)
        self._single = frozenset(s for s in self._control if len(s) == 1)
        self._reserved = _any_of({s for s in self._control | self._markup if len(s) > 1})
        kind = llama.llama_vocab_type(vocab)
        self._keeps_text = kind in (llama.LLAMA_VOCAB_TYPE_SPM, llama.LLAMA_VOCAB_TYPE_BPE)
        named = (len(spelling.encode()) for spelling in self._control)
        self._longest_token = max(1, self.pieces.longest, *named)
        plain = partial(self._tokenize_piece, parse_special=False)
        self._strangers = find_strangers(vocab, self.size, plain)
        self._longest = max((len(s) for s in self._control | self._markup), default=1)

    @property
    def address(self) -> int:
        """Of the `llama_vocab`, for who calls C functions on it."""
        return ctypes.cast(self._vocab, ctypes.c_void_p).value or 0

    @property
    def control_tokens(self) -> tuple[str, ...]:
        """The spellings that must never be read as tokens from untrusted text."""
        return tuple(sorted(self._control))

    @property
    def markup_tokens(self) -> tuple[str, ...]:
        """The spellings that llama.cpp reads as tokens in any text, the model's own included."""
        return tuple(sorted(self._markup))

    def spelling(self, kind: str) -> str:
        """The spelling of the model's `bos` or `eos` token; empty when it has none."""
        token_id = {"bos": llama.llama_vocab_bos, "eos": llama.llama_vocab_eos}[kind](self._vocab)
        return _text(self._vocab, token_id) if token_id >= 0 else ""

    def infill(self) -> tuple[str, str, str] | None:
        """The spellings around a gap to be filled in, as `ModelInfo.infill_tokens`."""
        ids = (
            int(llama.llama_vocab_fim_pre(self._vocab)),
            int(llama.llama_vocab_fim_suf(self._vocab)),
            int(llama.llama_vocab_fim_mid(self._vocab)),
        )
        if min(ids) < 0:
            return None
        before, after, middle = (_text(self._vocab, token_id) for token_id in ids)
        return before, after, middle

    def spell(self, token_ids: Iterable[int]) -> list[bytes]:
        """The bytes of each token; control tokens, which have none in text, by their names."""
        return [self.pieces.of(i) or _text(self._vocab, i).encode() for i in token_ids]

    def around(self) -> tuple[list[int], list[int]]:
        """What the model expects before and after a text that stands alone: `[CLS]`, `[SEP]`."""
        text = "a"
        bare = self._tokenize_text(text, parse_special=False)
        whole = self._tokenize_text(text, parse_special=False, add_special=True)
        for at in range(len(whole) - len(bare) + 1):
            if whole[at : at + len(bare)] == bare:
                return whole[:at], whole[at + len(bare) :]
        return [], []

    def between(self) -> list[int]:
        """What the model expects between two texts that belong together, as query and document."""
        _, after = self.around()
        separator = int(llama.llama_vocab_sep(self._vocab))
        wants = bool(llama.llama_vocab_get_add_sep(self._vocab)) and separator >= 0
        if wants and (not after or llama.llama_vocab_get_add_eos(self._vocab)):
            return [*after, separator]
        return after

    def is_reserved(self, token_id: int) -> bool:
        """Whether people's text never becomes this token."""
        return token_id in self._reserved_ids

    def find_reserved(self, text: str, start: int, stop: int) -> int:
        """Where the first reserved spelling begins within `start` to `stop`, or -1."""
        if self._reserved is None:
            return -1
        for at in range(start, stop, _STRETCH):
            end = min(at + _STRETCH, stop)
            match = self._reserved.search(text, at, min(end + self._longest, len(text)))
            if match is not None and match.start() < end:
                return match.start()
        return -1

    def breakers(self, texts: tuple[str, ...]) -> Breakers:
        """Where these texts cut a repetition; remembered, because it takes milliseconds."""
        return self._breakers(texts)

    def tokenize(self, prompt: Prompt) -> list[int]:
        """Token ids of the whole prompt, with BOS in front where the model wants one; not in front
        of token ids, which are complete as they came.

        Deep recursion in some tokenizers needs a thread with a large stack. Raises
        `InvalidRequest` for text over the limit.
        """
        ids = self.content(prompt)
        complete = bool(prompt) and bool(prompt[0].token_ids) and not prompt[0].picture
        if self.adds_bos and self._bos >= 0 and not complete and ids[:1] != [self._bos]:
            ids.insert(0, self._bos)
        return ids

    def fewest_tokens(self, prompt: Prompt) -> int:
        """That many tokens it has at least, without tokenizing it: each has only so many bytes. 0
        where tokenizers shorten what they read, or for text over the limit."""
        size = sum(len(piece.text.encode("utf-8", "replace")) for piece in prompt)
        if not self._keeps_text or size > self._max_prompt_bytes:
            return 0
        return -(-size // self._longest_token)

    def content(self, prompt: Prompt) -> list[int]:
        """Token ids of the prompt, and nothing around them.

        Pieces are joined first, so that where a prompt is divided does not change its tokens;
        only a reserved spelling that touches untrusted text is torn apart. Otherwise as
        `tokenize`.
        """
        ids: list[int] = []
        for has_ids, pieces in groupby(prompt, key=lambda piece: bool(piece.token_ids)):
            if has_ids:
                for piece in pieces:
                    ids += piece.token_ids if piece.picture else map(self._checked, piece.token_ids)
            else:
                ids += self._content_of_text(tuple(pieces))
        return ids

    def _checked(self, token_id: int) -> int:
        if not 0 <= token_id < self.size:
            raise InvalidRequest(
                f"{token_id} is no token id; those are 0 to {self.size - 1}.", param="prompt"
            )
        return token_id

    def _content_of_text(self, prompt: Prompt) -> list[int]:
        text = "".join(piece.text for piece in prompt)
        size = len(text.encode("utf-8", "replace"))
        if size > self._max_prompt_bytes:
            raise InvalidRequest(
                f"The prompt has {size} bytes; at most {self._max_prompt_bytes} are accepted.",
                param="messages",
            )
        ids: list[int] = []
        for segment in self._segments(text, _untrusted_ranges(prompt)):
            ids += self._tokenize_text(segment.text, parse_special=segment.parse_special)
        return ids

    def _find_breakers(self, texts: tuple[str, ...]) -> Breakers:
        def tokenize(rest: bytes) -> list[int]:
            return self._tokenize_text(rest.decode("utf-8", "replace"), parse_special=False)

        breakers = [text.encode("utf-8", "replace") for text in texts]
        return find_breakers(breakers, list(self.pieces), tokenize)

    def _segments(self, text: str, untrusted: list[range]) -> list[_Segment]:
        """Stretches in which every reserved spelling that is left may be read as a token."""
        cuts = {0, len(text)}
        plain: set[int] = set()
        for zone in untrusted:
            cuts.update(self._cuts_in(text, zone))
            if self._single and not self._single.isdisjoint(text[zone.start : zone.stop]):
                cuts.update((zone.start, zone.stop))
                plain.add(zone.start)
        ordered = sorted(cuts)
        segments, literal_until = [], 0
        for start, stop in pairwise(ordered):
            if start in plain:
                literal_until = next(z.stop for z in untrusted if z.start == start)
            segments.append(_Segment(text[start:stop], parse_special=start >= literal_until))
        return segments

    def _cuts_in(self, text: str, zone: range) -> Iterator[int]:
        """One place inside each reserved spelling that touches `zone`, never inside another's.

        A spelling that begins in trusted text is cut where the untrusted text begins, so that
        a trusted token in front of it stays whole.
        """
        if self._reserved is None:
            return
        first = max(0, zone.start - self._longest + 1)
        for start in range(first, zone.stop, _STRETCH):
            stop = min(start + _STRETCH, zone.stop)
            for match in self._reserved.finditer(text, start, stop + self._longest):
                at = match.start()
                if at < stop and at + len(match[1]) > zone.start:
                    yield max(at + 1, zone.start)

    def _tokenize_text(
        self, text: str, *, parse_special: bool, add_special: bool = False
    ) -> list[int]:
        tokenize = partial(
            self._tokenize_piece, parse_special=parse_special, add_special=add_special
        )
        if self._strangers is None or add_special:
            return tokenize(text)
        return self._strangers.tokenize(text, tokenize)

    def _tokenize_piece(
        self, text: str, *, parse_special: bool, add_special: bool = False
    ) -> list[int]:
        data = text.encode("utf-8", "replace")
        if not data:
            return []
        room = len(data) // 2 + 16
        while True:
            buffer = np.empty(room, np.int32)
            pointer = buffer.ctypes.data_as(llama.llama_token_p)
            count = llama.llama_tokenize(
                self._vocab, data, len(data), pointer, room, add_special, parse_special
            )
            if count >= 0:
                ids: list[int] = buffer[:count].tolist()
                return ids
            room = -count


@dataclass(frozen=True, slots=True)
class _Segment:
    text: str
    parse_special: bool


def _untrusted_ranges(prompt: Prompt) -> list[range]:
    """Where the joined text comes from outside; neighbours are one range."""
    ranges: list[range] = []
    at = 0
    for piece in prompt:
        end = at + len(piece.text)
        if not piece.trusted and piece.text:
            if ranges and ranges[-1].stop == at:
                ranges[-1] = range(ranges[-1].start, end)
            else:
                ranges.append(range(at, end))
        at = end
    return ranges


def _any_of(spellings: set[str]) -> re.Pattern[str] | None:
    """Matches, without consuming, the longest spelling at each place where one begins."""
    if not spellings:
        return None
    return re.compile(f"(?=({_trie_pattern(sorted(spellings))}))")


def _trie_pattern(words: Sequence[str]) -> str:
    """An alternation of sorted words that shares their beginnings, so that matching is quick."""
    branches: dict[str, list[str]] = {}
    for word in words:
        if word:
            branches.setdefault(word[0], []).append(word[1:])
    parts = [re.escape(first) + _trie_pattern(rest) for first, rest in branches.items()]
    if not parts:
        return ""
    optional = "?" if "" in words else ""
    return f"(?:{'|'.join(parts)}){optional}"


def _text(vocab: Any, token_id: int) -> str:
    return bytes(llama.llama_vocab_get_text(vocab, token_id)).decode("utf-8", "replace")


def _read_pieces(vocab: Any, size: int) -> Iterator[bytes]:
    """The bytes of every token; none for control tokens."""
    to_piece = library.function(
        "llama_token_to_piece",
        ctypes.c_int32,
        *(ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32),
        ctypes.c_bool,
        keep_gil=True,
    )
    room = 256
    buffer = ctypes.create_string_buffer(room)
    for token_id in range(size):
        length = to_piece(vocab, token_id, buffer, room, 0, False)
        if length < 0:
            room = -length
            buffer = ctypes.create_string_buffer(room)
            length = to_piece(vocab, token_id, buffer, room, 0, False)
        yield buffer.raw[:length]


def _read_suppressed(vocab: Any) -> tuple[int, ...]:
    """Tokens that the model's makers forbid it to write."""
    count = ctypes.c_int32(0)
    ids = llama.llama_vocab_get_suppress_tokens(vocab, ctypes.byref(count))
    return tuple(ids[: count.value]) if count.value else ()


def _read_special(vocab: Any, size: int) -> tuple[frozenset[str], frozenset[str], frozenset[int]]:
    """Spellings of the control tokens, and of the user-defined tokens that are markup; the ids of
    both.

    User-defined tokens of letters or white space alone (runs of spaces, rare characters) are
    ordinary text and must stay whole.
    """
    attribute_of = library.function(
        "llama_vocab_get_attr", ctypes.c_int, ctypes.c_void_p, ctypes.c_int32, keep_gil=True
    )
    control, markup, ids = set(), set(), set()
    for token_id in range(size):
        attribute = attribute_of(vocab, token_id)
        if attribute & (_CONTROL | _UNKNOWN):
            control.add(_text(vocab, token_id))
            ids.add(token_id)
        elif attribute & _USER_DEFINED:
            spelling = _text(vocab, token_id)
            if not all(c.isalnum() or c.isspace() or c == "▁" for c in spelling):
                markup.add(spelling)
                ids.add(token_id)
    return frozenset(control - {""}), frozenset(markup), frozenset(ids)
