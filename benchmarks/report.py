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
BAR = 0.90  # of batched-bench's decode rate, at each number of streams
_BEGIN, _END = "<!-- latest run -->", "<!-- end of latest run -->"


@dataclass(slots=True)
class Run:
    """All rounds of one run, by number of streams."""

    shape: Shape
    about: dict[str, str]
    plain: list[Decoded] = field(default_factory=list)
    blas: list[Decoded] = field(default_factory=list)
    parley: list[Measured] = field(default_factory=list)
    llama_server: list[Measured] = field(default_factory=list)

    def lost_tokens(self) -> int:
        """Tokens that some stream should have had and did not get."""
        loads = [*self.parley, *self.llama_server]
        return sum(self.shape.max_tokens - n for load in loads for n in load.tokens)

    def ratios(self) -> dict[int, float]:
        """Parley's decode rate by batched-bench's; the medians of each."""
        return {
            streams: _median(m.decode_tokens_per_second for m in of(streams, self.parley))
            / _median(d.decode_tokens_per_second for d in of(streams, self.plain))
            for streams in self.shape.streams
        }


def of(streams: int, measured: Sequence[T]) -> list[T]:
    """Those with that many streams."""
    return [one for one in measured if one.streams == streams]


def facts(command: str) -> dict[str, str]:
    """When, of which commit, on what. To be asked before the run, which takes its time."""
    commit = _output("git", "rev-parse", "--short=12", "HEAD")
    changed = _output("git", "status", "--porcelain", "--untracked-files=no", "--", "service")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit + ("+changes" if changed else ""),
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "compiler": _output("cc", "--version").splitlines()[0],
        "system": f"{platform.system()} {platform.release()}",
        "command": command,
        "load average, niceness": f"{os.getloadavg()[1]:.1f} over 5 minutes, {os.nice(0)}",
    }


def to_table(run: Run) -> str:
    """One table in Markdown, medians over the rounds."""
    head = ["", *(f"{n} stream{'s' * (n > 1)}" for n in run.shape.streams)]
    lines = [head, ["---", *["---:"] * len(run.shape.streams)]]
    lines += [[name, *cells] for name, cells in _rows(run)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _rows(run: Run) -> Iterable[tuple[str, list[str]]]:
    streams = run.shape.streams
    for name, decoded in (("", run.plain), (", OpenBLAS", run.blas)):
        rates = [_median(d.decode_tokens_per_second for d in of(n, decoded)) for n in streams]
        yield f"llama-batched-bench{name}: decode tokens/s", _numbers(rates)
        prompt = [_median(d.prompt_tokens_per_second for d in of(n, decoded)) for n in streams]
        yield f"llama-batched-bench{name}: prompt tokens/s", _numbers(prompt)
    for name, loads in (("Parley", run.parley), ("llama-server", run.llama_server)):
        yield from _load_rows(name, [of(n, loads) for n in streams])
    yield "**Parley by batched-bench, decode**", [f"**{r:.1%}**" for r in run.ratios().values()]


def _load_rows(name: str, by_streams: list[list[Measured]]) -> Iterable[tuple[str, list[str]]]:
    decode = [_median(m.decode_tokens_per_second for m in loads) for loads in by_streams]
    whole = [_median(m.tokens_per_second for m in loads) for loads in by_streams]
    first = [[s for m in loads for s in m.first_token_seconds] for loads in by_streams]
    gaps = [[s for m in loads for s in m.gap_seconds] for loads in by_streams]
    share = [_median(m.client_cpu_share for m in loads) for loads in by_streams]
    yield f"{name}, HTTP: decode tokens/s", _numbers(decode)
    yield f"{name}, HTTP: tokens/s with the prompt", _numbers(whole)
    yield f"{name}: first token p50 / p95, s", _pairs(first, (0.5, 0.95), "{:.2f}")
    yield f"{name}: between tokens p50 / p99, ms", _pairs(gaps, (0.5, 0.99), "{:.0f}", scale=1000)
    yield f"{name}: client's share of one core", [f"{s:.1%}" for s in share]


def save(run: Run) -> Path:
    """Write the results file, and the table into the README of the benchmarks."""
    about = run.about
    day, commit = about["date"][:10], about["commit"]
    path = FOLDER / "results" / f"{day}-{commit}.json"
    path.parent.mkdir(exist_ok=True)
    content: dict[str, Any] = {"ratios": run.ratios(), "lost_tokens": run.lost_tokens()}
    path.write_text(json.dumps(_rounded(asdict(run) | content), indent=1) + "\n")
    readme = FOLDER / "README.md"
    before, _, rest = readme.read_text().partition(_BEGIN)
    after = rest.partition(_END)[2]
    told = "\n".join(f"- {name}: {value}" for name, value in about.items())
    section = f"{_BEGIN}\n{told}\n- tokens lost: {run.lost_tokens()}\n\n{to_table(run)}\n{_END}"
    readme.write_text(before + section + after)
    return path


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
    return [" / ".join(form.format(_quantile(s, q) * scale) for q in at) for s in samples]


def _quantile(values: list[float], q: float) -> float:
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
