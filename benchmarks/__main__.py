"""`python -m benchmarks`: all in one run, interleaved, so that a busy minute hits all alike."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.batched_bench import run_batched_bench
from benchmarks.llama_cpp import LlamaCpp, provide_llama_cpp
from benchmarks.load import Load, Measured
from benchmarks.random_model import END_IDS, provide_model
from benchmarks.report import BAR, Run, facts, save, to_table
from benchmarks.servers import llama_server, parley, put_under
from benchmarks.shape import Shape
from deploy.setup.commands import Failure, say

# Greedy, so that no server's choice of samplers matters; and the model may not end by itself.
BODY = {"temperature": 0, "logit_bias": {str(token_id): -100 for token_id in END_IDS}}
_WORDS_TOKENS = 2  # each word of the prompt with the space before it is about so many tokens
_TEMPLATE_TOKENS = 8


def main() -> int:
    """Measure, print the table, keep the results. 1 when the bar is missed or a token was lost."""
    arguments = _parser().parse_args()
    shape = Shape(max_tokens=arguments.tokens, prompt_tokens=arguments.prompt)
    run = Run(shape, facts(" ".join(["python -m benchmarks", *sys.argv[1:]])))
    try:
        tools = provide_llama_cpp()
        model = provide_model(tools)
        with tempfile.TemporaryDirectory(prefix="parley-bench-") as folder:
            _measure(run, tools, model, Path(folder), arguments.rounds)
    except Failure as failure:
        say(str(failure))
        return 2
    print(to_table(run))
    say(f"results: {save(run)}")
    return _verdict(run)


def _measure(run: Run, tools: LlamaCpp, model: Path, folder: Path, rounds: int) -> None:
    shape = run.shape
    with (
        parley(model, shape, folder) as our_port,
        llama_server(tools, model, shape, folder) as their_port,
    ):
        for port in (our_port, their_port):
            put_under(_load(shape, port, streams=1, round_number=-1))  # warm
        for n in range(rounds):
            say(f"round {n + 1} of {rounds}")
            run.plain += run_batched_bench(tools, model, shape, blas=False)
            run.parley += _loads(shape, our_port, n)
            run.llama_server += _loads(shape, their_port, n)
            run.blas += run_batched_bench(tools, model, shape, blas=True)


def _loads(shape: Shape, port: int, round_number: int) -> list[Measured]:
    return [put_under(_load(shape, port, streams, round_number)) for streams in shape.streams]


def _load(shape: Shape, port: int, streams: int, round_number: int) -> Load:
    return Load(
        port=port,
        streams=streams,
        prompt_words=(shape.prompt_tokens - _TEMPLATE_TOKENS) // _WORDS_TOKENS,
        max_tokens=shape.max_tokens,
        seed=1000 * round_number + streams,
        body=BODY,
    )


def _verdict(run: Run) -> int:
    missed = {streams: ratio for streams, ratio in run.ratios().items() if ratio < BAR}
    for streams, ratio in missed.items():
        say(f"{streams} streams: {ratio:.1%} of batched-bench's decode; the bar is {BAR:.0%}.")
    if lost := run.lost_tokens():
        say(f"{lost} tokens were lost; none may be.")
    return 1 if missed or lost else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="medians are taken over these")
    parser.add_argument("--tokens", type=int, default=128, help="tokens that each stream writes")
    parser.add_argument("--prompt", type=int, default=128, help="tokens of each prompt, about")
    return parser


if __name__ == "__main__":
    sys.exit(main())
