"""Writes small BERTs of random weights, and computes by numpy what they should answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.engine.gguf_file import (
    _ARRAY,
    _BOOL,
    _CONTROL,
    _F32,
    _I32,
    _NORMAL,
    _STRING,
    _U32,
    write_gguf,
)

Floats = NDArray[np.float64]

PAD, UNKNOWN, CLS, SEP, MASK = range(5)
_MEAN, _CLS_POOLING, _RANK = 1, 2, 4
_POOLING = {"mean": _MEAN, "cls": _CLS_POOLING, "rank": _RANK}
_EPSILON = 1e-12
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,?!'"


@dataclass(frozen=True)
class RandomEncoder:
    """A BERT of this shape, whose words are a few whole ones and otherwise letters.

    `pooling` is mean, cls, or rank, which adds a head that judges a query and a document.
    """

    layers: int = 2
    width: int = 64
    feed_forward: int = 128
    heads: int = 4
    context_length: int = 128
    pooling: str = "mean"
    words: tuple[str, ...] = ("the", "cat", "sat", "on", "mat", "is", "a", "what")
    seed: int = 0

    @cached_property
    def vocabulary(self) -> list[str]:
        """As the file has it: the beginnings of words are marked, the rest of a word is not."""
        specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        words = [w for w in self.words if len(w) > 1]
        return [
            *specials,
            *(f"\u2581{word}" for word in words),
            *(f"\u2581{letter}" for letter in _LETTERS),
            *_LETTERS,
        ]

    def write(self, path: Path) -> Path:
        return write_gguf(path, self._metadata(), self.weights)

    def ids(self, text: str) -> list[int]:
        """The text's tokens, without what stands around them; words of small letters only."""
        found = []
        for word in text.split():
            if f"\u2581{word}" in self.vocabulary:
                found.append(self.vocabulary.index(f"\u2581{word}"))
                continue
            found.append(self.vocabulary.index(f"\u2581{word[0]}"))
            first = len(self.vocabulary) - len(_LETTERS)
            found += [first + _LETTERS.index(letter) for letter in word[1:]]
        return found

    def vector(self, text: str) -> Floats:
        """What the model should make of a text, of length 1."""
        pooled = self.pooled([CLS, *self.ids(text), SEP])
        return np.asarray(pooled / np.linalg.norm(pooled))

    def score(self, query: str, document: str) -> float:
        """How well the document answers, in the model's eyes."""
        return float(self.pooled([CLS, *self.ids(query), SEP, *self.ids(document), SEP])[0])

    def pooled(self, ids: Sequence[int]) -> Floats:
        states = self._states(ids)
        if self.pooling == "mean":
            return np.asarray(states.mean(axis=0))
        if self.pooling == "cls":
            return np.asarray(states[0])
        inner = np.tanh(states[0] @ self._weight("cls.weight").T + self._weight("cls.bias"))
        scores = inner @ self._weight("cls.output.weight").T + self._weight("cls.output.bias")
        return np.asarray(scores)

    @cached_property
    def weights(self) -> dict[str, np.ndarray[Any, Any]]:
        rng = np.random.default_rng(self.seed)
        width, inner, context = self.width, self.feed_forward, self.context_length
        shapes: dict[str, tuple[int, ...]] = {
            "token_embd.weight": (len(self.vocabulary), width),
            "token_types.weight": (2, width),
            "position_embd.weight": (context, width),
            "token_embd_norm.weight": (width,),
            "token_embd_norm.bias": (width,),
        }
        for layer in range(self.layers):
            for name, shape in {
                "attn_q": (width, width),
                "attn_k": (width, width),
                "attn_v": (width, width),
                "attn_output": (width, width),
                "attn_output_norm": (width,),
                "ffn_up": (inner, width),
                "ffn_down": (width, inner),
                "layer_output_norm": (width,),
            }.items():
                shapes[f"blk.{layer}.{name}.weight"] = shape
                shapes[f"blk.{layer}.{name}.bias"] = shape[:1]
        if self.pooling == "rank":
            shapes |= {
                "cls.weight": (width, width),
                "cls.bias": (width,),
                "cls.output.weight": (1, width),
                "cls.output.bias": (1,),
            }
        return {name: _random(rng, name, shape) for name, shape in shapes.items()}

    def _metadata(self) -> dict[str, tuple[int, Any]]:
        kinds = [_CONTROL] * 5 + [_NORMAL] * (len(self.vocabulary) - 5)
        bert: dict[str, tuple[int, Any]] = {
            "context_length": (_U32, self.context_length),
            "embedding_length": (_U32, self.width),
            "block_count": (_U32, self.layers),
            "feed_forward_length": (_U32, self.feed_forward),
            "attention.head_count": (_U32, self.heads),
            "attention.layer_norm_epsilon": (_F32, _EPSILON),
            "attention.causal": (_BOOL, False),
            "pooling_type": (_U32, _POOLING[self.pooling]),
        }
        tokenizer: dict[str, tuple[int, Any]] = {
            "model": (_STRING, "bert"),
            "pre": (_STRING, "jina-v2-en"),
            "token_type_count": (_U32, 2),
            "tokens": (_ARRAY, (_STRING, self.vocabulary)),
            "token_type": (_ARRAY, (_I32, kinds)),
            "bos_token_id": (_U32, CLS),
            "unknown_token_id": (_U32, UNKNOWN),
            "seperator_token_id": (_U32, SEP),
            "padding_token_id": (_U32, PAD),
            "mask_token_id": (_U32, MASK),
        }
        return {
            "general.architecture": (_STRING, "bert"),
            "general.name": (_STRING, "Random encoder"),
            **{f"bert.{key}": value for key, value in bert.items()},
            **{f"tokenizer.ggml.{key}": value for key, value in tokenizer.items()},
        }

    # --- the same by numpy ---------------------------------------------------------------------

    def _weight(self, name: str) -> Floats:
        return np.asarray(self.weights[name], np.float64)

    def _states(self, ids: Sequence[int]) -> Floats:
        """The last layer's state of each token."""
        states = self._weight("token_embd.weight")[list(ids)]
        states = states + self._weight("token_types.weight")[0]
        states = states + self._weight("position_embd.weight")[: len(ids)]
        states = self._norm(states, "token_embd_norm")
        for layer in range(self.layers):
            attended = self._attend(states, f"blk.{layer}.")
            states = self._norm(states + attended, f"blk.{layer}.attn_output_norm")
            inner = _gelu(self._linear(states, f"blk.{layer}.ffn_up"))
            outer = self._linear(inner, f"blk.{layer}.ffn_down")
            states = self._norm(states + outer, f"blk.{layer}.layer_output_norm")
        return states

    def _attend(self, states: Floats, block: str) -> Floats:
        size = self.width // self.heads
        query, key, value = (
            self._linear(states, f"{block}attn_{name}").reshape(-1, self.heads, size)
            for name in "qkv"
        )
        scores = np.einsum("ihd,jhd->hij", query, key) / np.sqrt(size)
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        mixed = np.einsum("hij,jhd->ihd", shares, value).reshape(-1, self.width)
        return self._linear(mixed, f"{block}attn_output")

    def _linear(self, states: Floats, name: str) -> Floats:
        return states @ self._weight(f"{name}.weight").T + self._weight(f"{name}.bias")

    def _norm(self, states: Floats, name: str) -> Floats:
        centred = states - states.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt(centred.var(axis=-1, keepdims=True) + _EPSILON)
        return np.asarray(scaled * self._weight(f"{name}.weight") + self._weight(f"{name}.bias"))


def _random(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    values = rng.standard_normal(shape, np.float32)
    if name.endswith("norm.weight"):
        return 1 + np.float32(0.1) * values
    if len(shape) == 1 or name == "cls.output.weight":
        return np.float32(0.1) * values
    scale = 1.0 if "embd" in name or "types" in name else shape[-1] ** -0.5
    return np.float32(scale) * values


def _gelu(values: Floats) -> Floats:
    """By the tangent, as llama.cpp has it."""
    inner = np.sqrt(2 / np.pi) * (values + 0.044715 * values**3)
    return np.asarray(0.5 * values * (1 + np.tanh(inner)))
