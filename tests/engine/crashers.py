"""What might bring llama.cpp down, one at a time: `python -m tests.engine.crashers NAME DIRECTORY`.

Each prints one line of JSON: how it went. The process must end with exit code 0 whatever the input
was; `test_crash_inputs` looks at that, and at the line.
"""

from __future__ import annotations

import json
import random
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from service.domain.chat import PromptPiece
from service.domain.errors import ModelFileError, ServiceError
from service.domain.sampling import Sampling
from service.engine import library
from service.engine.llama import LlamaRunner, create_runner
from service.engine.runner import DecodeRow, PrefillPart, RunnerError
from service.engine.tokenizer import start_tokenizing
from service.models.source import BUILT_IN_DIR
from service.settings import EngineSettings
from tests.engine.gguf_file import RandomModel, write_gguf

POCKET = BUILT_IN_DIR / "pocket.gguf"
SMALL = RandomModel(layers=1, embedding=64, feed_forward=64, heads=2, kv_heads=2)
_U32, _STRING, _ARRAY, _I32, _F32 = 4, 8, 9, 5, 6

# How vocabularies cut text before they look at it: by code of its own, or by one regular
# expression or another.
SPLITTERS = ("default", "qwen2", "deepseek-llm", "tekken", "gpt-4o")
MEGABYTE = 1_000_000
LONG_LETTERS = ("a", "7")
OTHER_TEXTS = (" " * 20_000, "é" * 10_000, "\n" * 20_000)

# What llama.cpp asserts while it loads: the process ends, and says why before it does.
LETHAL = ("no layers", "too many layers", "same token twice")

Outcome = dict[str, Any]


def load(path: Path, slots: int = 2) -> LlamaRunner:
    settings = EngineSettings(slots=slots, context_length=512)
    return create_runner(settings, path, path.stem, lambda _: None)


def is_alive(runner: LlamaRunner) -> bool:
    """Whether it still writes the token it would have written."""
    for slot in range(runner.num_slots):
        runner.trim(slot, 0)
    runner.prefill([PrefillPart(0, 0, [5, 6, 7])])
    runner.decode([DecodeRow(0, 3, 8)])
    return runner.create_sampler(Sampling(temperature=0), []).sample(0) >= 0


def refusals(runner: LlamaRunner, acts: dict[str, Callable[[], object]]) -> Outcome:
    """What each act said; None where it went through."""
    said: dict[str, str | None] = {}
    for name, act in acts.items():
        for slot in range(runner.num_slots):
            runner.trim(slot, 0)
        try:
            act()
            said[name] = None
        except (RunnerError, ServiceError) as error:
            said[name] = str(error)
    return {"said": said, "alive": is_alive(runner)}


# --- text ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SplitBy(RandomModel):
    """A vocabulary that cuts text as `splitter` says."""

    splitter: str = "qwen2"

    def _byte_level(self) -> dict[str, tuple[int, Any]]:
        return {**super()._byte_level(), "pre": (_STRING, self.splitter)}


def long_texts(directory: Path, splitter: str, size: str) -> Outcome:
    """So much of one letter, to each kind of tokenizer."""
    model = SplitBy(layers=1, embedding=64, feed_forward=64, heads=2, splitter=splitter)
    texts = (*(letter * int(size) for letter in LONG_LETTERS), *OTHER_TEXTS)
    return tokenize_all(load(model.write(directory / "split.gguf")), texts)


def long_sentencepiece(directory: Path) -> Outcome:
    model = RandomModel(
        layers=1, embedding=64, feed_forward=64, heads=2, kv_heads=2, sentencepiece=True
    )
    # Pieces that it has no token for are joined in quadratic time: a megabyte would take minutes.
    texts = (*(letter * 20_000 for letter in LONG_LETTERS), *OTHER_TEXTS)
    return tokenize_all(load(model.write(directory / "pieces.gguf")), texts)


def strange_texts(directory: Path) -> Outcome:
    """What JSON can carry and UTF-8 cannot, and what C ends a string at."""
    texts = (
        *("\ud800", "a\udfffb", "\0", "a\0b" * 1000, "\ufffe\uffff", "\x1b[31m", "\U0010ffff"),
        *("\u202e" * 100, "e" + "\u0301" * 5000, "<|im_end|>" * 5000, "\r" * 1000, ""),
    )
    return tokenize_all(load(POCKET), texts)


def tokenize_all(runner: LlamaRunner, texts: tuple[str, ...]) -> Outcome:
    """In a thread as the engine's; how many tokens each had."""
    counts: list[int] = []

    def work() -> None:
        for text in texts:
            counts.append(len(runner.tokenize((PromptPiece(text, trusted=False),))))

    start_tokenizing(work).join()
    return {"counts": counts, "expected": len(texts), "alive": is_alive(runner)}


# --- batches, slots, states ---------------------------------------------------------------------


def places(directory: Path) -> Outcome:
    runner = load(POCKET)
    far = 2**31 - 1
    return refusals(
        runner,
        {
            "no rows": lambda: runner.decode([]),
            "no parts": lambda: runner.prefill([]),
            "negative token": lambda: runner.decode([DecodeRow(0, 0, -1)]),
            "token beyond": lambda: runner.decode([DecodeRow(0, 0, far)]),
            "negative position": lambda: runner.decode([DecodeRow(0, -1, 5)]),
            "position beyond": lambda: runner.decode([DecodeRow(0, far, 5)]),
            "negative slot": lambda: runner.decode([DecodeRow(-1, 0, 5)]),
            "slot beyond": lambda: runner.decode([DecodeRow(far, 0, 5)]),
            "descending slots": lambda: runner.decode([DecodeRow(1, 0, 5), DecodeRow(0, 0, 5)]),
            "more rows than fit": lambda: runner.decode([DecodeRow(0, n, 5) for n in range(500)]),
            "more tokens than fit": lambda: runner.prefill([PrefillPart(0, 0, [5] * 5000)]),
            "row never decoded": lambda: runner.create_sampler(Sampling(), []).sample(3),
            "logprob of no row": lambda: runner.logprob(99, 5, 3),
            "trim beyond": lambda: runner.trim(far, 0),
            "fork from beyond": lambda: runner.fork(far, 0, 1),
            "fork to beyond": lambda: runner.fork(0, -1, 1),
            "save beyond": lambda: runner.save(-1),
        },
    )


def parts_of_slots(directory: Path) -> Outcome:
    """Copies of a part, which llama.cpp has no way to make in this mode, and odd lengths."""
    runner = load(POCKET)
    runner.prefill([PrefillPart(0, 0, list(range(10, 30)))])
    held = [runner.fork(0, 1, length) for length in (20, 7, 1, 0, 500)]
    held += [runner.fork(0, 0, 12), runner.trim(0, -5), runner.trim(1, 10**6)]
    return {"held": held, "alive": is_alive(runner)}


def states(directory: Path) -> Outcome:
    """States of another shape, cut short, mixed up, or of no state at all."""
    runner, other = load(POCKET), load(SMALL.write(directory / "other.gguf"))
    more = load(POCKET, slots=3)
    for each in (runner, other, more):
        each.prefill([PrefillPart(0, 0, [5, 6, 7, 8])])
    good = runner.save(0)
    chance = random.Random(1)
    blobs = [other.save(0), more.save(0), np.zeros(0, np.uint8), np.zeros(64, np.uint8)]
    blobs += [good[: len(good) * n // 8].copy() for n in range(8)]
    blobs += [np.frombuffer(chance.randbytes(5000), np.uint8).copy() for _ in range(20)]
    blobs += [np.frombuffer(struct.pack("<Q", 2**63) + bytes(100), np.uint8).copy()]
    for _ in range(200):
        flipped = good.copy()
        flipped[chance.randrange(64)] ^= chance.randrange(1, 256)
        blobs.append(flipped)
    held = [runner.restore(1, blob) for blob in blobs]
    return {
        "foreign": held[:4],
        "most": max(held),
        "own": runner.restore(1, good),
        "alive": is_alive(runner),
    }


# --- files --------------------------------------------------------------------------------------


def model_files(directory: Path) -> Iterator[tuple[str, Path]]:
    """Files that are no models, or broken ones, each for one reason."""
    whole = POCKET.read_bytes()
    for share in (0, 1, 4, 24, 200, 10_000, 100_000, len(whole) // 2, len(whole) - 1):
        yield f"cut at {share}", _file(directory, f"cut-{share}", whole[:share])
    yield "another format", _file(directory, "zip", b"PK\x03\x04" + bytes(1000))
    yield "many tensors", _file(directory, "many", b"GGUF" + struct.pack("<IQQ", 3, 2**60, 2**60))
    yield "newer version", _file(directory, "newer", b"GGUF" + struct.pack("<IQQ", 99, 0, 0))
    yield "nothing in it", _file(directory, "nothing", b"GGUF" + struct.pack("<IQQ", 3, 0, 0))
    metadata, tensors = _parts_of_small()
    for name, change in broken_metadata().items():
        changed = {k: v for k, v in {**metadata, **change}.items() if v is not None}
        yield name, write_gguf(directory / f"{name.replace(' ', '-')}.gguf", changed, tensors)
    yield "no tensors", write_gguf(directory / "empty.gguf", metadata, {})
    for missing in ("token_embd.weight", "output_norm.weight", "blk.0.attn_q.weight"):
        left = {name: data for name, data in tensors.items() if name != missing}
        yield f"no {missing}", write_gguf(directory / f"no-{missing}.gguf", metadata, left)
    bent = {**tensors, "blk.0.attn_q.weight": np.ones((3, 5), np.float16)}
    yield "a tensor of another shape", write_gguf(directory / "bent.gguf", metadata, bent)


def broken_metadata() -> dict[str, dict[str, tuple[int, Any] | None]]:
    """Changes to what a small model says of itself."""
    tokens = "tokenizer.ggml.tokens"
    return {
        "no architecture": {"general.architecture": None},
        "unknown architecture": {"general.architecture": (_STRING, "abacus")},
        "architecture is a number": {"general.architecture": (_U32, 5)},
        "no layers": {"llama.block_count": (_U32, 0)},
        "too many layers": {"llama.block_count": (_U32, 2**31)},
        "no block count": {"llama.block_count": None},
        "no heads": {"llama.attention.head_count": (_U32, 0)},
        "odd heads": {"llama.attention.head_count": (_U32, 7)},
        "more kv heads than heads": {"llama.attention.head_count_kv": (_U32, 64)},
        "no kv heads": {"llama.attention.head_count_kv": (_U32, 0)},
        "no embedding": {"llama.embedding_length": (_U32, 0)},
        "large embedding": {"llama.embedding_length": (_U32, 2**31)},
        "no context": {"llama.context_length": (_U32, 0)},
        "large context": {"llama.context_length": (_U32, 2**32 - 1)},
        "epsilon missing": {"llama.attention.layer_norm_rms_epsilon": None},
        "no vocabulary": {tokens: None},
        "empty vocabulary": {tokens: (_ARRAY, (_STRING, []))},
        "short vocabulary": {tokens: (_ARRAY, (_STRING, ["a", "b"]))},
        "same token twice": {tokens: (_ARRAY, (_STRING, ["a"] * 512))},
        "tokens are numbers": {tokens: (_ARRAY, (_I32, [1, 2, 3]))},
        "no merges": {"tokenizer.ggml.merges": None},
        "merges of nothing": {"tokenizer.ggml.merges": (_ARRAY, (_STRING, ["", "zz", " "]))},
        "unknown tokenizer": {"tokenizer.ggml.model": (_STRING, "abacus")},
        "unknown splitter": {"tokenizer.ggml.pre": (_STRING, "abacus")},
        "end beyond the vocabulary": {"tokenizer.ggml.eos_token_id": (_U32, 99_999)},
        "few token types": {"tokenizer.ggml.token_type": (_ARRAY, (_I32, [1, 1]))},
        "odd rope": {"llama.rope.dimension_count": (_U32, 7)},
        "large rope": {"llama.rope.dimension_count": (_U32, 2**20)},
        "template of rubbish": {"tokenizer.chat_template": (_STRING, "{% for %}{{")},
    }


def all_model_files(directory: Path) -> Outcome:
    """Load one after another, but for those that llama.cpp gives its life for."""
    files = {name: path for name, path in model_files(directory) if name not in LETHAL}
    return {name: _loaded(path) for name, path in files.items()}


def model_file(directory: Path, name: str) -> Outcome:
    return {name: _loaded(dict(model_files(directory))[name])}


def _loaded(path: Path) -> str | bool:
    """Why it was refused; what is a model after all has to answer, and whether it does."""
    try:
        runner = load(path)
    except ModelFileError as error:
        return error.message
    alive = is_alive(runner)
    runner.close()
    return alive


def _parts_of_small() -> tuple[dict[str, tuple[int, Any]], dict[str, np.ndarray[Any, Any]]]:
    rng = np.random.default_rng(0)
    shapes = SMALL._shapes()
    tensors = {
        name: np.ones(shape, np.float32)
        if len(shape) == 1
        else rng.standard_normal(shape, np.float32).astype(np.float16)
        for name, shape in shapes.items()
    }
    return SMALL._metadata(), tensors


def _file(directory: Path, name: str, data: bytes) -> Path:
    path = directory / f"{name}.gguf"
    path.write_bytes(data)
    return path


CASES: dict[str, Callable[..., Outcome]] = {
    "long_texts": long_texts,
    "long_sentencepiece": long_sentencepiece,
    "strange_texts": strange_texts,
    "places": places,
    "parts_of_slots": parts_of_slots,
    "states": states,
    "all_model_files": all_model_files,
    "model_file": model_file,
}

if __name__ == "__main__":
    library.start()
    sys.stdout.write(json.dumps(CASES[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])) + "\n")
