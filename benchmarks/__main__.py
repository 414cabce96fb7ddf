"""`python -m benchmarks`: all in one run, interleaved, so that a busy minute hits all alike."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks import bars
from benchmarks.batched_bench import run_batched_bench
from benchmarks.llama_cpp import LlamaCpp, provide_llama_cpp
from benchmarks.load import Load
from benchmarks.peers import example_server, provide_peers, python_server
from benchmarks.plot import draw
from benchmarks.random_model import END_IDS, provide_model
from benchmarks.report import (
    BLAS,
    BLAS_SERVER,
    OURS,
    PLAIN,
    PLAIN_SERVER,
    Disturbance,
    Run,
    facts,
    save,
    to_bars,
    to_table,
)
from benchmarks.servers import how_it_computes, llama_server, parley, put_under
from benchmarks.shape import Shape
from deploy.setup.commands import Failure, say

# Greedy, so that no server's choice of samplers matters; and the model may not end by itself.
BODY = {"temperature": 0, "logit_bias": {str(token_id): -100 for token_id in END_IDS}}
_WORDS_TOKENS = 2  # each word of the prompt with the space before it is about so many tokens
_TEMPLATE_TOKENS = 8


# Decoding alone is compared where all streams write together for long.
DECODING = Shape(prompt_tokens=16, max_tokens=96)
PYTHON_SERVER, EXAMPLE_SERVER = "llama_cpp.server", "llama-cpp-python's examples/server"


def main() -> int:
    """Measure, print the table, keep the results. 1 when a bar is missed or a token was lost."""
    arguments = _parser().parse_args()
    shape = Shape(max_tokens=arguments.tokens, prompt_tokens=arguments.prompt)
    run = Run(shape, facts(" ".join(["python -m benchmarks", *sys.argv[1:]])))
    try:
        tools = provide_llama_cpp()
        model = provide_model(tools)
        disturbance = Disturbance()
        with tempfile.TemporaryDirectory(prefix="parley-bench-") as folder:
            with _contenders(tools, model, shape, Path(folder)) as ports:
                run.about["Parley computes with"] = how_it_computes(Path(folder))
                _measure(run, tools, model, ports, arguments.rounds)
            run.about["taken by other virtual machines"] = f"{disturbance.share:.1%}"
            save(run)  # so that nothing that a peer does can lose it
            if arguments.peers:
                _measure_peers(run, model, Path(folder), arguments.rounds)
    except Failure as failure:
        say(str(failure))
        return 2
    print(to_table(run), to_bars(run.findings()), sep="\n\n")
    say(f"results: {save(run)}; figure: {draw(run)}")
    verdict = _verdict(run)
    return max(verdict, bars.main([])) if arguments.bars else verdict


@contextmanager
def _contenders(
    tools: LlamaCpp, model: Path, shape: Shape, folder: Path
) -> Iterator[dict[str, int]]:
    """The ports of the servers that take turns in every round."""
    with ExitStack() as stack:
        yield {
            OURS: stack.enter_context(parley(model, shape, folder)),
            PLAIN_SERVER: stack.enter_context(llama_server(tools, model, shape, folder)),
            BLAS_SERVER: stack.enter_context(llama_server(tools, model, shape, folder, blas=True)),
        }


def _measure(run: Run, tools: LlamaCpp, model: Path, ports: dict[str, int], rounds: int) -> None:
    shape = run.shape
    for port in ports.values():
        put_under(_load(shape, port, streams=1, round_number=-1))  # warm
    for n in range(rounds):
        say(f"round {n + 1} of {rounds}")
        for streams in shape.streams:  # what is compared is measured one after the other
            for name, blas in ((BLAS, True), (PLAIN, False)):
                limit = run_batched_bench(tools, model, replace(DECODING, streams=(streams,)), blas)
                run.limits.setdefault(name, []).extend(limit)
            run.decoding.append(put_under(_load(DECODING, ports[OURS], streams, n)))
            for name, port in ports.items():
                run.loads.setdefault(name, []).append(put_under(_load(shape, port, streams, n)))


def _measure_peers(run: Run, model: Path, folder: Path, rounds: int) -> None:
    """The Python servers, one at a time: the first breaks streams, so what arrives is counted."""
    peers = provide_peers()
    for name, server in ((PYTHON_SERVER, python_server), (EXAMPLE_SERVER, example_server)):
        say(name)
        with server(peers, model, run.shape, folder) as port:
            for n in range(rounds):
                for streams in run.shape.streams:
                    load = replace(_load(run.shape, port, streams, n), loses=True)
                    run.loads.setdefault(name, []).append(put_under(load))


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
    missed = [finding for finding in run.findings() if not finding.met]
    for finding in missed:
        say(f"{finding.what}: {finding.value:.3g}; the bar is {finding.limit:g}.")
    if lost := run.lost_tokens(OURS):
        say(f"{lost} tokens were lost; none may be.")
    return 1 if missed or lost else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="medians are taken over these")
    parser.add_argument("--peers", action="store_true", help="the Python servers as well")
    parser.add_argument("--bars", action="store_true", help="the scenarios of bars.py afterwards")
    parser.add_argument("--tokens", type=int, default=64, help="tokens that each stream writes")
    parser.add_argument("--prompt", type=int, default=128, help="tokens of each prompt, about")
    return parser


if __name__ == "__main__":
    sys.exit(main())
