"""llama-batched-bench: how fast this machine decodes, with nothing around llama.cpp."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.llama_cpp import LlamaCpp
from benchmarks.shape import Shape
from deploy.setup.commands import Failure


@dataclass(frozen=True, slots=True)
class Decoded:
    """Tokens per second of all streams together."""

    streams: int
    prompt_tokens_per_second: float
    decode_tokens_per_second: float


def run_batched_bench(tools: LlamaCpp, model: Path, shape: Shape, blas: bool) -> list[Decoded]:
    """One run over all numbers of streams. Raises Failure when it does not get through."""
    command = tools.command(
        "llama-batched-bench",
        *("-m", str(model), *shape.options(), "--output-format", "jsonl"),
        *("-npp", str(shape.prompt_tokens), "-ntg", str(shape.max_tokens)),
        *("-npl", ",".join(map(str, shape.streams))),
    )
    done = subprocess.run(
        command, env=tools.environment(blas), capture_output=True, text=True, check=False
    )
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 or len(rows) != len(shape.streams):
        raise Failure(f"{done.stderr[-2000:]}\nllama-batched-bench did not get through.")
    return [Decoded(row["pl"], row["speed_pp"], row["speed_tg"]) for row in rows]
