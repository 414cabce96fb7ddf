"""What grammars know of a model's vocabulary."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import llama_cpp.llama_cpp as llama
from llguidance import LLTokenizer

from service.engine import library
from service.engine.spellings import Spellings
from service.engine.vocabulary import Vocabulary

# llguidance's mark of a token that no text stands for.
_SPECIAL = b"\xff"

# A grammar may force a long text. Only the next token of it is wanted, and tokenizing much at once
# takes time and, in some vocabularies, more stack than the engine thread has.
_MAX_FORCED_BYTES = 512

_TOKENIZE = ctypes.CFUNCTYPE(
    ctypes.c_int32,
    *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32),
    *(ctypes.c_void_p, ctypes.c_int32, ctypes.c_bool, ctypes.c_bool),
)


@dataclass(frozen=True, slots=True)
class Alphabet:
    """The tokens as a grammar sees them: the bytes of each, those that end an answer, and a
    tokenizer, whose making takes a fifth of a second where the vocabulary is large."""

    spellings: Spellings
    ends: frozenset[int]
    create_tokenizer: Callable[[], LLTokenizer]


def create_alphabet(vocabulary: Vocabulary) -> Alphabet:
    """The alphabet of a loaded model.

    A grammar calls a token that is no ordinary text by its name between angle brackets:
    `<tool_call>`, `<|im_end|>`, and `<TOOL_CALLS>` for what the model spells `[TOOL_CALLS]`.
    """
    names = {name.encode() for name in (*vocabulary.control_tokens, *vocabulary.markup_tokens)}
    spellings = Spellings(
        piece or bytes(llama.llama_vocab_get_text(vocabulary.address, token_id))
        for token_id, piece in enumerate(vocabulary.pieces)
    )

    def create() -> LLTokenizer:
        tokens = [_marked(text) if text in names else text for text in spellings]
        from_llamacpp: Any = LLTokenizer.from_llamacpp  # type: ignore[attr-defined]  # undeclared
        tokenizer: LLTokenizer = from_llamacpp(
            tokens=tokens,
            vocab_ptr=vocabulary.address,
            tokenize_fptr=ctypes.cast(_tokenize_some, ctypes.c_void_p).value,
            eos_token=sorted(vocabulary.ends),
        )
        return tokenizer

    return Alphabet(spellings, vocabulary.ends, create)


def special_names(vocabulary: Vocabulary) -> list[str]:
    """What a grammar calls the tokens that are no ordinary text."""
    names = (*vocabulary.control_tokens, *vocabulary.markup_tokens)
    return [_marked(name.encode()).removeprefix(_SPECIAL).decode() for name in names]


def _marked(name: bytes) -> bytes:
    if name.startswith(b"<") and name.endswith(b">"):
        return _SPECIAL + name
    return _SPECIAL + b"<" + name.strip(b"[]") + b">"


_llama_tokenize = library.function(
    "llama_tokenize",
    ctypes.c_int32,
    *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32),
    *(ctypes.c_void_p, ctypes.c_int32, ctypes.c_bool, ctypes.c_bool),
    keep_gil=True,
)


def _tokenize(vocab: int, text: int, length: int, *others: int) -> int:
    """`llama_tokenize` for the beginning of the text, up to whole characters."""
    if length > _MAX_FORCED_BYTES:
        data = ctypes.string_at(text, _MAX_FORCED_BYTES + 1)
        length = _MAX_FORCED_BYTES
        while length and data[length] & 0xC0 == 0x80:  # inside a character
            length -= 1
    count: int = _llama_tokenize(vocab, text, length, *others)
    return count


# Rust keeps its address as long as the process lives.
_tokenize_some = _TOKENIZE(_tokenize)
