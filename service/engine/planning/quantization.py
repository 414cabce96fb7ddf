"""Whether another quantisation of the same model would be faster on this processor, measured.

Q4_0 can be rearranged for the widest instructions a processor has; how much that gains over the
usual Q4_K differs from one processor to the next. Two small models of random weights tell: speed
does not depend on what the weights are.
"""

from __future__ import annotations

import math
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import llama_cpp.llama_cpp as llama
import numpy as np
from numpy.typing import NDArray

from service.domain.errors import ModelFileError
from service.engine.planning.loading import LoadedModel, load_weights
from service.engine.planning.probe import Probe, race
from service.engine.planning.tuning import Tuning
from service.settings import EngineSettings

TimeOf = Callable[[Probe, int, int], float]

# llama_ftype: those that a Q4_0 of the same model stands to reason for.
_COMPARED = {14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M"}

# Less than this is not worth another download.
_WORTHWHILE = 1.1

_SECONDS = 1.5
_ROWS = 64

# More than the caches of most processors hold, as real models are.
_LAYERS, _WIDTH, _INNER, _HEADS, _KV_HEADS, _VOCABULARY = 8, 1024, 3072, 16, 4, 32

_F32 = 0
_U32_VALUE, _F32_VALUE, _STRING_VALUE = 4, 6, 8
_ALIGNMENT = 32


@dataclass(frozen=True, slots=True)
class _Kind:
    """A quantised type: its number in ggml, weights and bytes of a block, and which of these
    bytes are 16-bit scales."""

    number: int
    weights: int
    size: int
    scales: tuple[int, ...]


_Q4_0 = _Kind(2, 32, 18, (0,))
_Q4_K = _Kind(12, 256, 144, (0, 2))
_Q5_K = _Kind(13, 256, 176, (0, 2))
_Q6_K = _Kind(14, 256, 210, (208,))


def advice(model: LoadedModel, settings: EngineSettings, time_of: TimeOf) -> str:
    """One sentence naming the quantisation to prefer here, or nothing where there is none.

    `time_of` runs so many rows through so many layers, and tells the seconds.
    Takes about three seconds where there is something to compare, and the memory of two models
    of 60 MB.
    """
    name = _COMPARED.get(int(llama.llama_model_ftype(model.pointer)) & 1023)
    if name is None:
        return ""
    usual = _Q5_K if name.startswith("Q5") else _Q4_K
    with tempfile.TemporaryDirectory() as folder, ExitStack() as closing:
        try:
            probes = {
                kind: _probe(Path(folder), kind, settings, closing) for kind in (usual, _Q4_0)
            }
        except (OSError, ModelFileError):
            return ""  # no room for the two files: nothing is known, so nothing is said
        writing = _gain(probes, usual, 1, time_of)
        reading = _gain(probes, usual, _ROWS, time_of)
    if not writing >= _WORTHWHILE:
        return ""
    return (
        f"A Q4_0 file of the same model would write {writing:.2f} times and read {reading:.2f} "
        f"times as fast as {name} on this processor (measured on two small models of random "
        "weights), at some cost in quality."
    )


def _probe(folder: Path, kind: _Kind, settings: EngineSettings, closing: ExitStack) -> Probe:
    path = folder / f"{kind.number}.gguf"
    _write(path, kind)
    model = load_weights(path, settings, lambda _share: None)
    closing.callback(model.close)
    return Probe(model, settings, Tuning(1, 1), 512, closing)


def _gain(probes: dict[_Kind, Probe], usual: _Kind, rows: int, time_of: TimeOf) -> float:
    """How many times as fast Q4_0 is."""
    layers = _LAYERS - 1 if rows == 1 else 2
    for probe in probes.values():
        time_of(probe, rows, layers)
    trials = {kind: partial(time_of, probe, rows, layers) for kind, probe in probes.items()}
    times = race(trials, _SECONDS)
    quick = times[_Q4_0]
    return times[usual] / quick if 0 < quick < math.inf else 0.0


def _write(path: Path, kind: _Kind) -> None:
    """A llama without a vocabulary; as in a file of mixed quantisation, half of the layers read
    their values and come down from the inner width in Q6_K."""
    rng = np.random.default_rng(0)
    tensors = list(_tensors(kind))
    metadata = _metadata()
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)))
        for key, (value_kind, value) in metadata.items():
            file.write(_string(key) + struct.pack("<I", value_kind) + value)
        offset = 0
        for name, shape, number, size in tensors:
            file.write(_string(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape))
            file.write(struct.pack("<IQ", number, offset))
            offset += -(-size // _ALIGNMENT) * _ALIGNMENT
        kinds = {k.number: k for k in (kind, _Q6_K)}
        for _name, shape, number, size in tensors:
            file.write(b"\0" * (-file.tell() % _ALIGNMENT))
            if number == _F32:
                file.write(np.full(math.prod(shape), 0.01, np.float32).tobytes())
            else:
                file.write(_blocks(rng, kinds[number], size).tobytes())


def _tensors(kind: _Kind) -> Iterator[tuple[str, tuple[int, ...], int, int]]:
    """Name, shape (innermost first), number of the type, bytes."""
    yield "token_embd.weight", (_WIDTH, _VOCABULARY), _F32, 4 * _WIDTH * _VOCABULARY
    yield "output_norm.weight", (_WIDTH,), _F32, 4 * _WIDTH
    keys = _WIDTH // _HEADS * _KV_HEADS
    for layer in range(_LAYERS):
        mixed = _Q6_K if kind is not _Q4_0 and layer % 2 else kind
        for norm in ("attn_norm", "ffn_norm"):
            yield f"blk.{layer}.{norm}.weight", (_WIDTH,), _F32, 4 * _WIDTH
        for name, shape, how in (
            ("attn_q", (_WIDTH, _WIDTH), kind),
            ("attn_k", (_WIDTH, keys), kind),
            ("attn_v", (_WIDTH, keys), mixed),
            ("attn_output", (_WIDTH, _WIDTH), kind),
            ("ffn_gate", (_WIDTH, _INNER), kind),
            ("ffn_up", (_WIDTH, _INNER), kind),
            ("ffn_down", (_INNER, _WIDTH), mixed),
        ):
            size = math.prod(shape) // how.weights * how.size
            yield f"blk.{layer}.{name}.weight", shape, how.number, size


def _blocks(rng: np.random.Generator, kind: _Kind, size: int) -> NDArray[np.uint8]:
    """Any bytes will do, but scales must be small numbers: infinities would be slow."""
    blocks = rng.integers(0, 256, (size // kind.size, kind.size), np.uint8)
    scale = np.frombuffer(np.float16(0.001).tobytes(), np.uint8)
    for at in kind.scales:
        blocks[:, at : at + 2] = scale
    return blocks


def _metadata() -> dict[str, tuple[int, bytes]]:
    sizes = {
        "vocab_size": _VOCABULARY,
        "context_length": 4096,
        "embedding_length": _WIDTH,
        "block_count": _LAYERS,
        "feed_forward_length": _INNER,
        "attention.head_count": _HEADS,
        "attention.head_count_kv": _KV_HEADS,
    }
    epsilon = (_F32_VALUE, struct.pack("<f", 1e-6))
    return {
        "general.architecture": (_STRING_VALUE, _string("llama")),
        "tokenizer.ggml.model": (_STRING_VALUE, _string("no_vocab")),
        "llama.attention.layer_norm_rms_epsilon": epsilon,
        **{f"llama.{key}": (_U32_VALUE, struct.pack("<I", n)) for key, n in sizes.items()},
    }


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()
