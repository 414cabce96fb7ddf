"""A model of the exact shape of Qwen2.5-0.5B with random weights: as slow as the real one.

Its tokenizer is valid, of the same size, and made of short ASCII words, so that nearly every token
it writes is text. Speed does not depend on what the weights say; that a model be downloaded would
be one more thing that can go wrong, and its licence one more thing to read.

Run as a program (`python -m benchmarks.random_model FILE`) it writes the F16 file; it needs the
`gguf` package, which llama.cpp's sources bring along.
"""

from __future__ import annotations

import itertools
import os
import string
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.llama_cpp import LlamaCpp
from deploy.setup.commands import Failure, say

NAME = "random-qwen2.5-0.5b"
LAYERS, WIDTH, FEED_FORWARD, HEADS, KV_HEADS, VOCABULARY = 24, 896, 4864, 14, 2, 151936
CONTEXT = 32768
END_OF_TEXT, START, END = 151643, 151644, 151645  # as in the real model
END_IDS = (END_OF_TEXT, END)
_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_NORMAL, _CONTROL, _UNUSED = 1, 3, 5  # token types, as GGUF numbers them


def provide_model(tools: LlamaCpp) -> Path:
    """Return the Q4_K_M file, made beside the tools if this is the first time."""
    folder = tools.tools.parent.parent
    quantised = folder / f"{NAME}-q4_k_m.gguf"
    if quantised.exists():
        return quantised
    say(f"making {quantised.name}: random weights, quantised by llama.cpp")
    exact, unfinished = folder / f"{NAME}-f16.gguf", quantised.with_suffix(".part")
    gguf = next((folder / "sources").glob("*/vendor/llama.cpp/gguf-py"))
    write = [sys.executable, "-m", "benchmarks.random_model", str(exact)]
    quantise = tools.command("llama-quantize", str(exact), str(unfinished), "Q4_K_M")
    for command in (write, quantise):
        done = subprocess.run(
            ["nice", "-n", "19", *command],
            env=os.environ | {"PYTHONPATH": str(gguf)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise Failure(f"{done.stderr[-2000:]}\n{command[0]} could not make {quantised}.")
    exact.unlink()
    return unfinished.rename(quantised)


def write_model(path: Path) -> None:
    """Write the F16 file."""
    import gguf  # noqa: PLC0415 - comes with llama.cpp's sources, see the module's docstring

    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_name(NAME)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(1_000_000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    tokens, merges = _vocabulary()
    kinds = [_NORMAL] * END_OF_TEXT + [_CONTROL] * 3
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds + [_UNUSED] * (VOCABULARY - len(kinds)))
    writer.add_token_merges(merges)
    writer.add_bos_token_id(END_OF_TEXT)
    writer.add_eos_token_id(END)
    writer.add_pad_token_id(END_OF_TEXT)
    writer.add_add_bos_token(False)
    writer.add_chat_template(_CHATML)
    for name, tensor in _tensors():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensors() -> Iterator[tuple[str, np.ndarray]]:
    """All weights, small enough that nothing overflows; embeddings are tied."""
    random = np.random.default_rng(0)
    kv_width = WIDTH // HEADS * KV_HEADS

    def matrix(rows: int, columns: int) -> np.ndarray:
        return (random.standard_normal((rows, columns), np.float32) * 0.02).astype(np.float16)

    def vector(size: int, value: float) -> np.ndarray:
        return np.full(size, value, np.float32)

    yield "token_embd.weight", matrix(VOCABULARY, WIDTH)
    for layer in (f"blk.{n}." for n in range(LAYERS)):
        yield layer + "attn_norm.weight", vector(WIDTH, 1)
        yield layer + "ffn_norm.weight", vector(WIDTH, 1)
        for part, width in (("q", WIDTH), ("k", kv_width), ("v", kv_width)):
            yield layer + f"attn_{part}.weight", matrix(width, WIDTH)
            yield layer + f"attn_{part}.bias", vector(width, 0)
        yield layer + "attn_output.weight", matrix(WIDTH, WIDTH)
        yield layer + "ffn_gate.weight", matrix(FEED_FORWARD, WIDTH)
        yield layer + "ffn_up.weight", matrix(FEED_FORWARD, WIDTH)
        yield layer + "ffn_down.weight", matrix(WIDTH, FEED_FORWARD)
    yield "output_norm.weight", vector(WIDTH, 1)


def _vocabulary() -> tuple[list[str], list[str]]:
    """Tokens and merges: all bytes, then words of two to four letters, shortest first."""
    tokens, merges = list(_byte_spellings()), []
    firsts, letters = "Ġ" + string.ascii_lowercase, string.ascii_lowercase
    for length in (2, 3, 4):
        for first, *rest in itertools.product(firsts, *[letters] * (length - 1)):
            if len(tokens) == END_OF_TEXT:
                break
            word = first + "".join(rest)
            tokens.append(word)
            merges.append(f"{word[:-1]} {word[-1]}")
    tokens += ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens += [f"<|unused_{n}|>" for n in range(VOCABULARY - len(tokens))]
    return tokens, merges


def _byte_spellings() -> Iterator[str]:
    """The 256 bytes as byte-level BPE spells them: printable ones as themselves."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = itertools.count(256)
    for byte in range(256):
        yield chr(byte) if byte in printable else chr(next(others))


if __name__ == "__main__":
    write_model(Path(sys.argv[1]))
