"""Writes a small projector file of random weights: what a model that sees needs besides itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.engine.gguf_file import write_gguf

_U32, _F32, _BOOL, _STRING, _ARRAY = 4, 6, 7, 8, 9


@dataclass(frozen=True)
class RandomProjector:
    """A LLaVA projector of this shape, for a model with embeddings of `text_width`; a picture
    becomes `num_tokens` places of its prompt, whatever its size. What it sees is noise, but always
    the same noise of the same picture."""

    text_width: int
    width: int = 32
    feed_forward: int = 64
    layers: int = 2
    patch: int = 14
    image: int = 56
    seed: int = 0

    @property
    def num_tokens(self) -> int:
        return (self.image // self.patch) ** 2

    def write(self, path: Path) -> Path:
        return write_gguf(path, self._metadata(), self._tensors())

    def _metadata(self) -> dict[str, tuple[int, Any]]:
        return {
            "general.architecture": (_STRING, "clip"),
            "clip.has_vision_encoder": (_BOOL, True),
            "clip.projector_type": (_STRING, "mlp"),
            "clip.use_gelu": (_BOOL, False),
            "clip.vision.image_size": (_U32, self.image),
            "clip.vision.patch_size": (_U32, self.patch),
            "clip.vision.embedding_length": (_U32, self.width),
            "clip.vision.feed_forward_length": (_U32, self.feed_forward),
            "clip.vision.block_count": (_U32, self.layers),
            "clip.vision.projection_dim": (_U32, self.text_width),
            "clip.vision.attention.head_count": (_U32, 2),
            "clip.vision.attention.layer_norm_epsilon": (_F32, 1e-5),
            "clip.vision.image_mean": (_ARRAY, (_F32, [0.5, 0.5, 0.5])),
            "clip.vision.image_std": (_ARRAY, (_F32, [0.3, 0.3, 0.3])),
        }

    def _tensors(self) -> dict[str, np.ndarray[Any, Any]]:
        rng = np.random.default_rng(self.seed)
        width, text = self.width, self.text_width
        matrices: dict[str, tuple[int, ...]] = {
            "v.patch_embd.weight": (width, 3, self.patch, self.patch),
            "v.position_embd.weight": (self.num_tokens + 1, width),
            "mm.0.weight": (text, width),
            "mm.2.weight": (text, text),
        }
        vectors = {"v.class_embd": width, "mm.0.bias": text, "mm.2.bias": text}
        for layer in range(self.layers):
            block = f"v.blk.{layer}"
            for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
                matrices[f"{block}.{name}.weight"] = (width, width)
                vectors[f"{block}.{name}.bias"] = width
            matrices[f"{block}.ffn_up.weight"] = (self.feed_forward, width)
            matrices[f"{block}.ffn_down.weight"] = (width, self.feed_forward)
            vectors |= {f"{block}.ffn_up.bias": self.feed_forward, f"{block}.ffn_down.bias": width}
            vectors |= {f"{block}.{name}.bias": width for name in ("ln1", "ln2")}
        tensors = {
            name: rng.standard_normal(shape).astype(np.float32) * np.float32(0.2)
            for name, shape in (matrices | {n: (size,) for n, size in vectors.items()}).items()
        }
        ones = [f"v.blk.{layer}.{name}.weight" for layer in range(self.layers) for name in _NORMS]
        return tensors | {name: np.ones(width, np.float32) for name in ones}


_NORMS = ("ln1", "ln2")
