"""What was measured, as one table, one file of results, and one section of the README."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.batched_bench import Decoded
from benchmarks.load import Measured
from benchmarks.shape import Shape

T = TypeVar("T", Decoded, Measured)

FOLDER = Path(__file__).parent
OURS, PLAIN_SERVER, BLAS_SERVER = "Parley", "llama-server", "llama-server, OpenBLAS"
PLAIN, BLAS = "llama-batched-bench", "llama-batched-bench, OpenBLAS"
_RUN, _BARS = "latest run", "latest bars"

# By number of streams. The limit leaves no more than this to win over the card's llama-server.
DECODE_BAR = 0.98
RATE_BARS = {PLAIN_SERVER: {1: 1.0, 4: 1.0, 8: 1.0}, BLAS_SERVER: {1: 1.55, 4: 1.25, 8: 1.03}}
FIRST_TOKEN_BARS = {PLAIN_SERVER: {8: 1.5}, BLAS_SERVER: {1: 2.5, 8: 2.0}}


@dataclass(frozen=True, slots=True)
class Finding:
    """One bar: `value` is to be at least (or at most) `limit`; `samples` are behind it."""

    what: str
    value: float
    limit: float
    at_least: bool
    samples: dict[str, list[float]] = field(default_factory=dict)

    @property
    def met(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@dataclass(slots=True)
class Run:
    """All rounds of one run: loads of servers, and the limits that the machine sets."""

    shape: Shape
    about: dict[str, str]
    limits: dict[str, list[Decoded]] = field(default_factory=dict)
    decoding: list[Measured] = field(default_factory=list)
    loads: dict[str, list[Measured]] = field(default_factory=dict)

    def lost_tokens(self, server: str) -> int:
        """Tokens that some stream should have had and did not get."""
        return sum(self.shape.max_tokens - n for load in self.loads[server] for n in load.tokens)

    def rate(self, server: str, streams: int) -> float:
        """Tokens per second with the prompts, the median."""
        return _median(m.tokens_per_second for m in of(streams, self.loads[server]))

    def first_token(self, server: str, streams: int) -> float:
        """The median of all streams of all rounds, seconds."""
        return _median(s for m in of(streams, self.loads[server]) for s in m.first_token_seconds)

    def findings(self) -> list[Finding]:
        """The bars that these loads have to clear.

        Each is the median of the rounds' ratios: what is divided was measured within a minute or
        two, so that a machine that is slower for a while is so for both.
        """
        found = []
        for n in self.shape.streams:
            ours = [m.decode_tokens_per_second for m in of(n, self.decoding)]
            limits = [d.decode_tokens_per_second for d in of(n, self.limits[PLAIN])]
            what = f"decode over HTTP ÷ llama-batched-bench, {n} at once"
            found.append(_by_round(what, ours, limits, DECODE_BAR))
        for server, bars in RATE_BARS.items():
            for n, bar in bars.items():
                ours, theirs = (
                    [m.tokens_per_second for m in of(n, self.loads[name])]
                    for name in (OURS, server)
                )
                found.append(_by_round(f"tokens/s ÷ {server}, {n} at once", ours, theirs, bar))
        for server, bars in FIRST_TOKEN_BARS.items():
            for n, bar in bars.items():
                ours, theirs = (
                    [_median(m.first_token_seconds) for m in of(n, self.loads[name])]
                    for name in (OURS, server)
                )
                what = f"first token p50: {server} ÷ Parley, {n} cold at once"
                found.append(_by_round(what, theirs, ours, bar))
        return found


def _by_round(
    what: str, numerators: Sequence[float], denominators: Sequence[float], bar: float
) -> Finding:
    ratios = [a / b for a, b in zip(numerators, denominators, strict=True)]
    return Finding(what, _median(ratios), bar, at_least=True, samples={"by round": ratios})


def of(streams: int, measured: Sequence[T]) -> list[T]:
    """Those with that many streams."""
    return [one for one in measured if one.streams == streams]


def facts(command: str) -> dict[str, str]:
    """When, of which commit, on what. To be asked before the run, which takes its time."""
    commit = _output("git", "rev-parse", "--short=12", "HEAD")
    changed = _output("git", "status", "--porcelain", "--untracked-files=no", "--", ":/service")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit + ("+changes" if changed else ""),
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "compiler": _output("cc", "--version").splitlines()[0],
        "system": f"{platform.system()} {platform.release()}",
        "command": command,
        "load average, niceness": f"{os.getloadavg()[1]:.1f} over 5 minutes, {os.nice(0)}",
    }


class Disturbance:
    """How much of the processors' time the hypervisor has given to others since this was made.

    It comes in bursts of a fifth and more on rented machines, and no load average tells.
    """

    def __init__(self) -> None:
        self._before = _ticks()

    @property
    def share(self) -> float:
        stolen, all_ = (now - then for now, then in zip(_ticks(), self._before, strict=True))
        return stolen / max(1, all_)


def _ticks() -> tuple[int, int]:
    """Stolen ones and all, since the machine began (proc(5), `/proc/stat`)."""
    counts = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return counts[7], sum(counts)


def to_table(run: Run) -> str:
    """One table in Markdown, medians over the rounds."""
    head = ["", *(f"{n} stream{'s' * (n > 1)}" for n in run.shape.streams)]
    lines = [head, ["---", *["---:"] * len(run.shape.streams)]]
    lines += [[name, *cells] for name, cells in _rows(run)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _rows(run: Run) -> Iterable[tuple[str, list[str]]]:
    streams = run.shape.streams
    for name, limits in run.limits.items():
        rates = [_median(d.decode_tokens_per_second for d in of(n, limits)) for n in streams]
        yield f"{name}: decode tokens/s", _numbers(rates)
    ours = [_median(m.decode_tokens_per_second for m in of(n, run.decoding)) for n in streams]
    yield f"{OURS}, HTTP, the same: decode tokens/s", _numbers(ours)
    for name, loads in run.loads.items():
        yield from _load_rows(name, [of(n, loads) for n in streams])
        if lost := run.lost_tokens(name):
            yield f"{name}: **tokens lost**", [str(lost), *[""] * (len(streams) - 1)]


def _load_rows(name: str, by_streams: list[list[Measured]]) -> Iterable[tuple[str, list[str]]]:
    whole = [_median(m.tokens_per_second for m in loads) for loads in by_streams]
    first = [[s for m in loads for s in m.first_token_seconds] for loads in by_streams]
    gaps = [[s for m in loads for s in m.gap_seconds] for loads in by_streams]
    yield f"{name}: tokens/s with the prompt", _numbers(whole)
    yield f"{name}: first token p50 / p95, s", _pairs(first, (0.5, 0.95), "{:.2f}")
    yield f"{name}: between tokens p50 / p99, ms", _pairs(gaps, (0.5, 0.99), "{:.0f}", scale=1000)


def save(run: Run) -> Path:
    """Write the results file, and the table into the README of the benchmarks."""
    about = run.about
    day, commit = about["date"][:10], about["commit"]
    path = FOLDER / "results" / f"{day}-{commit}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(_rounded(asdict(run)), indent=1) + "\n")
    told = about | {"tokens that Parley lost": str(run.lost_tokens(OURS))}
    figure = f"![tokens/s and first tokens, by streams](results/{path.stem}.svg)"
    _tell(_RUN, told, f"{to_table(run)}\n\n{to_bars(run.findings())}\n\n{figure}")
    return path


def save_bars(about: dict[str, str], findings: Sequence[Finding]) -> Path:
    """Write the results file of the scenarios, and their table into the README.

    What others of the same commit were found to be on that day stays beside them.
    """
    path = FOLDER / "results" / f"{about['date'][:10]}-{about['commit']}-bars.json"
    path.parent.mkdir(exist_ok=True)
    bars = {finding.what: finding for finding in (*_earlier(path), *findings)}
    found = _rounded({"about": about, "bars": [asdict(finding) for finding in bars.values()]})
    path.write_text(json.dumps(found, indent=1) + "\n")
    _tell(_BARS, about, to_bars([*bars.values()]))
    return path


def _earlier(path: Path) -> list[Finding]:
    if not path.exists():
        return []
    return [Finding(**finding) for finding in json.loads(path.read_text())["bars"]]


def to_bars(findings: Sequence[Finding]) -> str:
    """What was measured against what was wanted, in Markdown."""
    lines = ["| what | measured | bar | |", "| --- | ---: | ---: | --- |"]
    for one in findings:
        limit = f"{'≥' if one.at_least else '≤'} {one.limit:g}"
        lines.append(
            f"| {one.what} | {one.value:.3g} | {limit} | {'met' if one.met else 'missed'} |"
        )
    return "\n".join(lines)


def _tell(section: str, about: dict[str, str], table: str) -> None:
    """Replace what the README says between the marks of `section`."""
    readme = FOLDER / "README.md"
    begin, end = f"<!-- {section} -->", f"<!-- end of {section} -->"
    before, _, rest = readme.read_text().partition(begin)
    after = rest.partition(end)[2]
    told = "\n".join(f"- {name}: {value}" for name, value in about.items())
    readme.write_text(f"{before}{begin}\n{told}\n\n{table}\n{end}{after}")


def _rounded(value: Any) -> Any:
    """Five digits say all there is to say."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list | tuple) else value


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


def _numbers(values: Iterable[float]) -> list[str]:
    return [f"{value:.1f}" for value in values]


def _pairs(
    samples: list[list[float]], at: tuple[float, float], form: str, scale: float = 1
) -> list[str]:
    return [" / ".join(form.format(quantile(s, q) * scale) for q in at) for s in samples]


def quantile(values: Sequence[float], q: float) -> float:
    """The nearest rank, which is one of the values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=FOLDER)
    return done.stdout.strip()
