"""Writes small GGUF models of random weights, for what Pocket is too fast to show."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_U32, _F32, _BOOL, _STRING, _ARRAY, _I32 = 4, 6, 7, 8, 9, 5
_F16_TENSOR, _F32_TENSOR = 1, 0
_ALIGNMENT = 32
_CONVOLUTION, _STATE = 4, 16
WINDOW = 16
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6

# Enough for the letters of "</s>" to be merged into the spelling of a control token.
SENTENCE_PIECES = ("\u2581", "<", "/", "s", ">", "</", "s>", "</s", "a", "b", "\u2581a")


@dataclass(frozen=True)
class RandomModel:
    """A llama of this shape whose weights mean nothing.

    The vocabulary is bytes and fillers, byte-level as GPT-2's. With `sentencepiece` it is one as
    Llama's: `<unk>`, `<s>` (always in front) and `</s>`, bytes, and `SENTENCE_PIECES`. A
    `recurrent` one is a Mamba, whose memory cannot be cut; a `hybrid` is a Jamba, whose layers are
    a Mamba's and a llama's in turn; in a `windowed` one, a Gemma 2, they see only the last
    `WINDOW` tokens and everything in turn.
    """

    layers: int = 2
    embedding: int = 256
    feed_forward: int = 512
    heads: int = 4
    kv_heads: int = 2
    vocabulary: int = 512
    context_length: int = 4096
    seed: int = 0
    sentencepiece: bool = False
    recurrent: bool = False
    hybrid: bool = False
    windowed: bool = False

    @property
    def _architecture(self) -> str:
        kinds = {"mamba": self.recurrent, "jamba": self.hybrid, "gemma2": self.windowed}
        return next((name for name, is_it in kinds.items() if is_it), "llama")

    def write(self, path: Path) -> Path:
        rng = np.random.default_rng(self.seed)
        tensors = {name: _values(rng, name, shape) for name, shape in self._shapes().items()}
        return write_gguf(path, self._metadata(), tensors)

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        width = self.embedding
        shapes: dict[str, tuple[int, ...]] = {
            "token_embd.weight": (self.vocabulary, width),
            "output_norm.weight": (width,),
        }
        for layer in range(self.layers):
            if self.recurrent or (self.hybrid and layer % 2 == 0):
                parts = self._mamba_layer()
            else:
                parts = self._attention_layer()
            if not self.recurrent:
                parts |= self._feed_forward_layer()
            shapes |= {f"blk.{layer}.{name}": shape for name, shape in parts.items()}
        return shapes

    def _attention_layer(self) -> dict[str, tuple[int, ...]]:
        width = self.embedding
        kv = width // self.heads * self.kv_heads
        return {
            "attn_norm.weight": (width,),
            "attn_q.weight": (width, width),
            "attn_k.weight": (kv, width),
            "attn_v.weight": (kv, width),
            "attn_output.weight": (width, width),
        } | ({"post_attention_norm.weight": (width,)} if self.windowed else {})

    def _feed_forward_layer(self) -> dict[str, tuple[int, ...]]:
        width, inner = self.embedding, self.feed_forward
        return {
            "ffn_norm.weight": (width,),
            "ffn_gate.weight": (inner, width),
            "ffn_up.weight": (inner, width),
            "ffn_down.weight": (width, inner),
        } | ({"post_ffw_norm.weight": (width,)} if self.windowed else {})

    def _mamba_layer(self) -> dict[str, tuple[int, ...]]:
        width, inner, rank = self.embedding, 2 * self.embedding, self.embedding // 16
        return {
            "attn_norm.weight": (width,),
            "ssm_in.weight": (2 * inner, width),
            "ssm_conv1d.weight": (inner, _CONVOLUTION),
            "ssm_conv1d.bias": (inner,),
            "ssm_x.weight": (rank + 2 * _STATE, inner),
            "ssm_dt.weight": (inner, rank),
            "ssm_dt.bias": (inner,),
            "ssm_a": (inner, _STATE),
            "ssm_d": (inner,),
            "ssm_out.weight": (width, inner),
        } | (
            {
                "ssm_dt_norm.weight": (rank,),
                "ssm_b_norm.weight": (_STATE,),
                "ssm_c_norm.weight": (_STATE,),
            }
            if self.hybrid
            else {}
        )

    def _metadata(self) -> dict[str, tuple[int, Any]]:
        tokenizer = self._sentencepiece() if self.sentencepiece else self._byte_level()
        architecture = self._architecture
        kv_heads: tuple[int, Any] = (_U32, 0 if self.recurrent else self.kv_heads)
        if self.hybrid:
            counts = [self.kv_heads if layer % 2 else 0 for layer in range(self.layers)]
            kv_heads = (_ARRAY, (_I32, counts))
        sizes = {
            "context_length": (_U32, self.context_length),
            "embedding_length": (_U32, self.embedding),
            "block_count": (_U32, self.layers),
            "feed_forward_length": (_U32, 0 if self.recurrent else self.feed_forward),
            "attention.head_count": (_U32, 0 if self.recurrent else self.heads),
            "attention.head_count_kv": kv_heads,
            "attention.sliding_window": (_U32, WINDOW),
            "attention.layer_norm_rms_epsilon": (_F32, 1e-6),
            "ssm.conv_kernel": (_U32, _CONVOLUTION),
            "ssm.inner_size": (_U32, 2 * self.embedding),
            "ssm.state_size": (_U32, _STATE),
            "ssm.time_step_rank": (_U32, self.embedding // 16),
        }
        return {
            "general.architecture": (_STRING, architecture),
            "general.name": (_STRING, "Random"),
            **{f"{architecture}.{key}": value for key, value in sizes.items()},
            **{f"tokenizer.ggml.{key}": value for key, value in tokenizer.items()},
        }

    def _byte_level(self) -> dict[str, tuple[int, Any]]:
        names = self._filled(_byte_tokens())
        return {
            "model": (_STRING, "gpt2"),
            "pre": (_STRING, "qwen2"),
            "tokens": (_ARRAY, (_STRING, [*names[:-1], "<|end|>"])),
            "token_type": (_ARRAY, (_I32, [*[_NORMAL] * (self.vocabulary - 1), _CONTROL])),
            "merges": (_ARRAY, (_STRING, ["a b"])),
            "eos_token_id": (_U32, self.vocabulary - 1),
            "add_bos_token": (_BOOL, False),
        }

    def _sentencepiece(self) -> dict[str, tuple[int, Any]]:
        special = ["<unk>", "<s>", "</s>"]
        bytes_ = [f"<0x{b:02X}>" for b in range(256)]
        names = self._filled([*special, *bytes_, *SENTENCE_PIECES])
        kinds = [_UNKNOWN, _CONTROL, _CONTROL, *[_BYTE] * 256]
        scores = [0.0] * 259 + [-float(i) for i in range(self.vocabulary - 259)]
        return {
            "model": (_STRING, "llama"),
            "tokens": (_ARRAY, (_STRING, names)),
            "scores": (_ARRAY, (_F32, scores)),
            "token_type": (_ARRAY, (_I32, [*kinds, *[_NORMAL] * (self.vocabulary - len(kinds))])),
            "bos_token_id": (_U32, 1),
            "eos_token_id": (_U32, 2),
            "unknown_token_id": (_U32, 0),
            "add_bos_token": (_BOOL, True),
        }

    def _filled(self, names: list[str]) -> list[str]:
        return [*names, *(f"filler{i}" for i in range(len(names), self.vocabulary))]


def write_gguf(
    path: Path, metadata: dict[str, tuple[int, Any]], tensors: dict[str, np.ndarray[Any, Any]]
) -> Path:
    """A GGUF file; `metadata` has a type and a value for each key."""
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)))
        for key, (kind, value) in metadata.items():
            file.write(_string(key) + struct.pack("<I", kind) + _value(kind, value))
        offset = 0
        for name, data in tensors.items():
            kind = _F16_TENSOR if data.dtype == np.float16 else _F32_TENSOR
            file.write(_string(name) + struct.pack("<I", data.ndim))
            file.write(struct.pack(f"<{data.ndim}Q", *reversed(data.shape)))
            file.write(struct.pack("<IQ", kind, offset))
            offset += -(-data.nbytes // _ALIGNMENT) * _ALIGNMENT
        for data in tensors.values():
            file.write(b"\0" * (-file.tell() % _ALIGNMENT))
            file.write(data.tobytes())
    return path


def _values(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    if len(shape) == 1:
        return np.ones(shape, np.float32)
    if name.endswith("ssm_a"):
        return np.full(shape, -1, np.float32)
    values = rng.standard_normal(shape, np.float32) * np.float32(shape[-1] ** -0.5)
    return values if "conv1d" in name else values.astype(np.float16)


def _byte_tokens() -> list[str]:
    """The characters by which byte-level vocabularies spell the 256 bytes."""
    shown = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [b for b in range(256) if b not in shown]
    return [chr(b) if b in shown else chr(256 + hidden.index(b)) for b in range(256)]


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(kind: int, value: Any) -> bytes:
    if kind == _STRING:
        return _string(value)
    if kind == _ARRAY:
        inner, items = value
        head = struct.pack("<IQ", inner, len(items))
        return head + b"".join(_value(inner, item) for item in items)
    return struct.pack({_U32: "<I", _I32: "<i", _F32: "<f", _BOOL: "<?"}[kind], value)
