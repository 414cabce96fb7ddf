"""What the engine's own Python takes per token at eight streams, beside llama.cpp's computing.

Run as a program (`python -m benchmarks.overhead MODEL`) it drives an engine in its own thread, with
the real model and nobody on the socket, and writes one JSON object: microseconds of processor time
per token, by what is asked for.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from service.domain.chat import PromptPiece
from service.domain.sampling import Sampling
from service.engine import llama
from service.engine.batch import compute
from service.engine.engine import Engine
from service.engine.inbox import Arrived, Tokenized
from service.engine.llama import create_runner
from service.engine.sequence import Job
from service.ipc.messages import Frame, Submit
from service.settings import EngineSettings

STREAMS, STEPS = 8, 48
_ASKED = {
    "greedy": Sampling(temperature=0, ignore_eos=True),
    "temperature 1": Sampling(ignore_eos=True),
    "llama-server's defaults": Sampling(
        temperature=0.8, top_k=40, top_p=0.95, min_p=0.05, ignore_eos=True
    ),
}


class Nobody:
    """An outbox that nobody reads."""

    def post(self, connection: int, frame: Frame) -> None:
        pass


class Inside:
    """llama.cpp's part: counts the processor time of this thread there."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, context: Any, batch: Any, count: int) -> None:
        began = time.thread_time()
        try:
            compute(context, batch, count)
        finally:
            self.seconds += time.thread_time() - began


def measure(engine: Engine, inside: Inside, sampling: Sampling) -> float:
    """Microseconds per token while all streams write."""
    for number in range(STREAMS):
        ids = [100 + 7 * number + place for place in range(12)]
        submit = Submit(
            number,
            f"request-{number}",
            (PromptPiece("", trusted=True, token_ids=tuple(ids)),),
            sampling,
            max_tokens=STEPS + 4,
            stop=("STOP", "User:"),
        )
        job = Job(1 + number % 2, submit, time.monotonic())
        engine.inbox.put(Arrived(job))
        engine.inbox.put(Tokenized(job, ids))
    while len(engine.scheduler.generating()) < STREAMS:
        engine.turn()
    began, computed = time.thread_time(), inside.seconds
    for _ in range(STEPS // 2):
        engine.turn()
    spent = time.thread_time() - began - (inside.seconds - computed)
    while not engine.scheduler.idle:
        engine.turn()
    return spent / (STREAMS * (STEPS // 2)) * 1e6


def main(model: Path) -> None:
    settings = EngineSettings(slots=STREAMS, context_length=1024)
    runner = create_runner(settings, model, "model", lambda _share: None)
    inside = Inside()
    vars(llama)["compute"] = inside  # where the runner looks it up
    try:
        runner.warm_up()
        engine = Engine(runner, Nobody(), settings)
        print(json.dumps({name: measure(engine, inside, asked) for name, asked in _ASKED.items()}))
    finally:
        runner.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
