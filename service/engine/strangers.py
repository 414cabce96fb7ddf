"""Characters that a SentencePiece vocabulary does not know, and where they let a text be cut."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterator
from typing import Any

import llama_cpp.llama_cpp as llama

from service.engine import library

# llama.cpp copies all tokens so far for each of them, in one call: 25 000 took 14 s.
_MOST_STRANGERS = 500
# A search holds the interpreter lock; between stretches of this many characters others get a turn.
_STRETCH = 16_384
# A character that is meant for nobody.
_NOBODY = "\U0010fffd"

Tokenize = Callable[[str], list[int]]


class Strangers:
    """Cuts texts in front of characters that occur in no token.

    Nothing is merged across such a character, so that the pieces have the tokens that the whole
    would have. Any thread.
    """

    def __init__(self, known: set[str], tokenize: Tokenize) -> None:
        escaped = "".join(map(re.escape, sorted(known)))
        self._stranger = re.compile(f"[^{escaped}]" if escaped else ".", re.DOTALL)
        alone = len(tokenize(_NOBODY))
        # Each call puts a space in front; so many tokens of a later piece are not the text's.
        self._num_in_front = alone - (len(tokenize(_NOBODY * 2)) - alone)

    def tokenize(self, text: str, tokenize: Tokenize) -> list[int]:
        """As `tokenize` would do it, in a time that grows with the text and no faster."""
        ids: list[int] = []
        start = 0
        for cut in (*self._cuts(text), len(text)):
            piece = tokenize(text[start:cut])
            ids += piece[self._num_in_front :] if start else piece
            start = cut
        return ids

    def _cuts(self, text: str) -> Iterator[int]:
        num = 0
        for at in range(0, len(text), _STRETCH):
            for match in self._stranger.finditer(text, at, at + _STRETCH):
                num += 1
                if num % _MOST_STRANGERS == 0 and match.start():
                    yield match.start()


def find_strangers(vocab: Any, size: int, tokenize: Tokenize) -> Strangers | None:
    """None for vocabularies whose tokenizers do not mind, or that know every character."""
    if llama.llama_vocab_type(vocab) != llama.LLAMA_VOCAB_TYPE_SPM:
        return None
    text_of = library.function(
        "llama_vocab_get_text", ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int32, keep_gil=True
    )
    attribute_of = library.function(
        "llama_vocab_get_attr", ctypes.c_int, ctypes.c_void_p, ctypes.c_int32, keep_gil=True
    )
    known = {" "}
    for token_id in range(size):
        if not attribute_of(vocab, token_id) & llama.LLAMA_TOKEN_ATTR_BYTE:
            known.update((text_of(vocab, token_id) or b"").decode("utf-8", "replace"))
    return None if _NOBODY in known else Strangers(known, tokenize)
