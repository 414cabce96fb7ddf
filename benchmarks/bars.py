"""`python -m benchmarks.bars`: each scenario against its bar, with peers where the bar names one.

Servers are started for one scenario at a time, so that none has anything left from another.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import scenarios
from benchmarks.batched_bench import run_batched_bench
from benchmarks.llama_cpp import ROOT, LlamaCpp, provide_llama_cpp
from benchmarks.load import Load
from benchmarks.random_model import provide_model
from benchmarks.report import Disturbance, Finding, facts, quantile, save_bars
from benchmarks.servers import llama_server, parley, put_under
from benchmarks.shape import Shape
from deploy.setup.commands import Failure, say

NO_GUESSES = {"PARLEY_ENGINE__SPECULATION": "false"}
_NUMBERS = {"type": "array", "items": {"type": "integer"}, "minItems": 4000}


@dataclass(frozen=True, slots=True)
class Bench:
    """What every scenario needs; `folder` is emptied of nothing and shared by none."""

    tools: LlamaCpp
    model: Path
    folder: Path

    def own_folder(self, name: str) -> Path:
        path = self.folder / name
        path.mkdir()
        return path


def long_prompt(bench: Bench) -> list[Finding]:
    """Without guesses, which bring several tokens at once: the median gap would be none at all."""
    shape = Shape(slots=4, slot_context=6144)
    with parley(bench.model, shape, bench.own_folder("long"), **NO_GUESSES) as port:
        beside, median = asyncio.run(scenarios.gaps_beside_a_long_prompt(port, 4000))
    what = "p99 gap of a stream while a 4k prompt arrives ÷ its median gap"
    samples = {"beside": beside, "median": [median]}
    return [Finding(what, quantile(beside, 0.99) / median, 4.0, at_least=False, samples=samples)]


def flood(bench: Bench) -> list[Finding]:
    folder = bench.own_folder("flood")
    tokens = [_access_token(folder, name) for name in ("flooder", "other")]
    with parley(bench.model, Shape(), folder) as port:
        alone, beside = asyncio.run(scenarios.wait_in_a_flood(port, *tokens))
    value = statistics.median(beside) / statistics.median(alone)
    what = "one principal floods 50 requests: another's first token ÷ alone"
    return [Finding(what, value, 2.5, at_least=False, samples={"alone": alone, "beside": beside})]


def turns(bench: Bench) -> list[Finding]:
    with parley(bench.model, Shape(slots=4), bench.own_folder("turns")) as port:
        surplus = asyncio.run(scenarios.surplus_of_turns(port, chats=4, turns=5))
    what = "turn 5 of 4 chats at once: prompt tokens computed beyond the new ones"
    samples = {"chats": [float(one) for one in surplus]}
    return [Finding(what, max(surplus), 8, at_least=False, samples=samples)]


def returns(bench: Bench) -> list[Finding]:
    shape = Shape(slots=4, slot_context=3072)
    with parley(bench.model, shape, bench.own_folder("returns")) as port:
        ours = asyncio.run(scenarios.returns_to_conversations(port, 12, 2000))
    with llama_server(bench.tools, bench.model, shape, bench.own_folder("returns-peer")) as port:
        theirs = asyncio.run(scenarios.returns_to_conversations(port, 12, 2000))
    what = "12 conversations of 2k on 4 slots: first token, llama-server ÷ Parley"
    value = statistics.median(theirs) / statistics.median(ours)
    return [Finding(what, value, 3.0, at_least=True, samples={"ours": ours, "theirs": theirs})]


def shared_prompt(bench: Bench) -> list[Finding]:
    folder = bench.own_folder("shared")
    tokens = [_access_token(folder, f"user-{n}") for n in range(8)]
    system = scenarios.words("system prompt", 2000)
    # What the operator says of a prompt of his own, and nothing else, makes it everybody's.
    settings = {"PARLEY_CHAT__SYSTEM_PROMPT": system}
    with parley(bench.model, Shape(), folder, **settings) as port:
        work = scenarios.computed_for_a_shared_prefix(port, tokens, system)
        together, one = asyncio.run(work)
    what = "8 users with the same 2k system prompt together: prompt tokens computed ÷ one's"
    samples = {"together": [float(together)], "one": [float(one)]}
    return [Finding(what, together / one, 1.2, at_least=False, samples=samples)]


def schema(bench: Bench) -> list[Finding]:
    free, held = [], []
    form = {"type": "json_schema", "json_schema": {"name": "numbers", "schema": _NUMBERS}}
    with parley(bench.model, Shape(), bench.own_folder("schema")) as port:
        for _ in range(3):
            free.append(asyncio.run(scenarios.rate_together(port, 8, 96)))
            held.append(asyncio.run(scenarios.rate_together(port, 8, 96, response_format=form)))
    what = "a JSON schema at 8 streams: tokens/s lost"
    value = 1 - statistics.median(held) / statistics.median(free)
    return [Finding(what, value, 0.03, at_least=False, samples={"free": free, "held": held})]


def cancel(bench: Bench) -> list[Finding]:
    shape = Shape(slots=1, slot_context=6144)
    with parley(bench.model, shape, bench.own_folder("cancel")) as port:
        samples = asyncio.run(scenarios.wait_after_a_cancel(port, 4000))
    what = "a cancel while a 4k prompt is read: the slot is free after, s"
    value = statistics.median(samples)
    return [Finding(what, value, 0.05, at_least=False, samples={"later": samples})]


def sixteen(bench: Bench) -> list[Finding]:
    shape = Shape(streams=(16,), slots=16, slot_context=1024, prompt_tokens=64)
    ours, limits = [], []
    with parley(bench.model, shape, bench.own_folder("sixteen")) as port:
        for n in range(3):
            ratio = run_batched_bench(bench.tools, bench.model, shape, blas=False)[0]
            limits.append(ratio.decode_tokens_per_second)
            load = Load(port, 16, 28, shape.max_tokens, 7000 + n, scenarios.STEADY)
            ours.append(put_under(load).decode_tokens_per_second)
    what = "decode at 16 streams over HTTP ÷ llama-batched-bench"
    value = statistics.median(ours) / statistics.median(limits)
    return [Finding(what, value, 0.98, at_least=True, samples={"ours": ours, "limit": limits})]


def repeating(bench: Bench) -> list[Finding]:
    """A model of random weights repeats nothing by itself: the text is all that it may write."""
    rates: dict[str, list[float]] = {"guessing": [], "plain": []}
    others: dict[str, list[float]] = {"guessing": [], "plain": []}
    shape = Shape(slots=1)
    with (
        parley(bench.model, shape, bench.own_folder("guessing")) as guessing,
        parley(bench.model, shape, bench.own_folder("plain"), **NO_GUESSES) as plain,
    ):
        for n in range(3):
            for name, port in (("guessing", guessing), ("plain", plain)):
                rates[name].append(asyncio.run(scenarios.rate_of_repeating(port, n)))
                others[name].append(asyncio.run(scenarios.rate_of_something_new(port, n)))
    return [
        Finding(
            f"{what}: tokens/s with guesses ÷ without, 1 stream",
            statistics.median(samples["guessing"]) / statistics.median(samples["plain"]),
            limit,
            at_least=True,
            samples=samples,
        )
        for what, limit, samples in (
            ("repeating 200 words, held to them", 1.5, rates),
            ("other text", 0.97, others),
        )
    ]


def overhead(bench: Bench) -> list[Finding]:
    """In a process of its own, for its own processor time is what is measured."""
    command = [sys.executable, "-m", "benchmarks.overhead", str(bench.model)]
    samples: dict[str, list[float]] = {}
    for _ in range(3):
        for name, microseconds in json.loads(_said_by(command)).items():
            samples.setdefault(name, []).append(microseconds)
    what = "Python per token beside llama_decode, 8 streams, µs, "
    return [
        Finding(what + name, statistics.median(found), 60, at_least=False, samples={name: found})
        for name, found in samples.items()
    ]


def memory(bench: Bench) -> list[Finding]:
    """What OpenBLAS works in, where it is in use, counts as the process's own."""
    shape = Shape()
    own = {"PARLEY_ENGINE__SLOTS": str(shape.slots), "PARLEY_ENGINE__BLAS": "off"}
    own["PARLEY_ENGINE__CONTEXT_LENGTH"] = str(shape.slot_context)
    command = [sys.executable, "-m", "service.engine.weigh", "--model-path", str(bench.model)]
    need = json.loads(_said_by(command, **own))
    planned = float(sum(need[name] for name in ("weights", "conversations", "working")))
    found = []
    for blas, name in (("off", "OpenBLAS off"), ("on", "OpenBLAS on")):
        with parley(bench.model, shape, bench.own_folder(blas), PARLEY_ENGINE__BLAS=blas) as port:
            put_under(Load(port, 8, 60, 32, 9000, scenarios.STEADY))
            resident = asyncio.run(scenarios.resident_bytes(port))
        what = f"engine's memory beside weights, KV cache and compute buffers, MB, {name}"
        samples = {"resident": [resident], "planned": [planned]}
        found.append(
            Finding(what, (resident - planned) / 1e6, 120, at_least=False, samples=samples)
        )
    return found


SCENARIOS: dict[str, Callable[[Bench], list[Finding]]] = {
    one.__name__: one
    for one in (
        long_prompt,
        flood,
        turns,
        returns,
        shared_prompt,
        schema,
        cancel,
        sixteen,
        repeating,
        overhead,
        memory,
    )
}


def _said_by(command: list[str], **own: str) -> str:
    """The last line that a program writes."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PARLEY_")}
    done = subprocess.run(
        command, env=kept | own, capture_output=True, text=True, check=False, cwd=ROOT
    )
    if done.returncode != 0:
        raise Failure(f"{done.stderr[-2000:]}\n`{' '.join(command[1:4])} …` failed.")
    return done.stdout.splitlines()[-1]


def _access_token(folder: Path, name: str) -> str:
    """A token in the state that the server of this folder will have."""
    program = Path(sys.executable).parent / "parley"
    command = [str(program), "token", "create", "--name", name]
    environment = {"PARLEY_STATE_DIR": str(folder / "state"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    secrets = [word for word in done.stdout.split() if word.startswith("parley_")]
    if done.returncode != 0 or len(secrets) != 1:
        raise Failure(f"{done.stderr[-1000:]}\nno access token could be made.")
    return secrets[0]


def main(names: Sequence[str]) -> int:
    """Measure these scenarios, or all; 1 when a bar is missed, 2 when one could not be measured."""
    about = facts(" ".join(["python -m benchmarks.bars", *names]))
    findings: list[Finding] = []
    try:
        tools = provide_llama_cpp()
        model = provide_model(tools)
        for name in names or SCENARIOS:
            say(f"scenario {name}")
            disturbance = Disturbance()
            with tempfile.TemporaryDirectory(prefix="parley-bars-") as folder:
                found = SCENARIOS[name](Bench(tools, model, Path(folder)))
            taken = disturbance.share
            for finding in found:
                finding.samples["share taken by other virtual machines"] = [taken]
                say(f"  {finding.what}: {finding.value:.3g} (bar {finding.limit:g})")
            say(f"  taken by other virtual machines: {taken:.1%}")
            findings += found
    except Failure as failure:
        say(str(failure))
        return 2
    if findings:
        say(f"results: {save_bars(about, findings)}")
    return 0 if all(finding.met for finding in findings) else 1


def _arguments() -> list[str]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bars", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*SCENARIOS, []], help="all, if none is named")
    return list(parser.parse_args().names)


if __name__ == "__main__":
    sys.exit(main(_arguments()))
