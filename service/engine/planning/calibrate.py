"""How this model is best computed on this machine, measured.

Nothing is taken for granted, for machines differ: with OpenBLAS loaded, every product of 32 rows
or more first unpacks the whole weight, about a second per call for a model of half a billion
parameters. Short prompts lose by that always, long ones may gain; which, and from which length
on, depends on the processor. The same goes for threads, for the rows that are computed together,
and for flash attention.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

import llama_cpp.llama_cpp as llama

from service.engine.batch import BLAS_ROWS
from service.engine.planning import backends, machine, quantization
from service.engine.planning.loading import LoadedModel
from service.engine.planning.memory import CELL_MULTIPLE, Sizes
from service.engine.planning.probe import Option, Probe, pick, race
from service.engine.planning.tuning import MAX_UBATCH, TINY_WEIGHT_BYTES, Tuning
from service.log import get_logger
from service.settings import EngineSettings

_log = get_logger(__name__)

# BLAS must pay from this share of the longest call on, or it is not worth having.
_MAX_SHARE = 0.75

# On a busy machine, where a single thread is timed, OpenBLAS seemed to pay from 122 to 131 tokens
# on; on a quiet one from 177 to 303.
_LEAST_SHARE_IF_DISTURBED = 0.5

# Each question may take that long, and a little more for the round that it has begun; the one about
# OpenBLAS longer, for its trials are long, and the answer matters most.
_SECONDS, _BLAS_SECONDS = 1.5, 4.0

# No question is given more than a single round after that long.
_SECONDS_FOR_ALL = 12.0

# What is usual stays, unless it loses by more than this: less is within the noise.
_MARGIN = 0.05

# OpenBLAS costs memory, and what it gains must not come and go with the machine's moods. Nor must
# attention: equally good ways differed by up to 0.05 here, from one calibration to the next.
_BLAS_MARGIN = _ATTENTION_MARGIN = 0.1

# Above this share of the time spent waiting for a core, others are using the machine.
_MAX_WAITED = 0.05

# A turn of a chat: so many tokens read, and as many written, with that much read before.
_TURN, _CHUNK, _STREAMS = 128, 64, 8
_SHALLOW, _DEPTH = 64, 1024

# Rows of one conversation that stand for fewer than flash attention takes together, and the fewest
# of them: on two cores of a 2.5 GHz Xeon, two took as long either way, 4 after 2048 tokens a tenth
# less without it, 8 a quarter, 31 a third; after 512 tokens 4 took as long, and 31 a tenth less.
_FEW, _FEWEST = 24, 4

# So many contexts are open at once.
_MOST_PROBES = 3

# A trial of one row shall take about this long, which the clock and the scheduler can tell apart.
_TRIAL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table: a way of computing, and what a token takes with it, in seconds."""

    question: str
    option: str
    seconds_per_token: float
    chosen: bool


@dataclass(frozen=True, slots=True)
class Calibration:
    """The decision, what it was taken from, and why nothing was measured, if nothing was.

    `waited`: the share of the time in which threads were ready and no core was free for them.
    `advice`: a sentence about a faster quantisation of the same model, where there is one.
    """

    tuning: Tuning
    table: tuple[Line, ...] = ()
    reason: str = ""
    seconds: float = 0.0
    waited: float = 0.0
    advice: str = ""

    @property
    def is_disturbed(self) -> bool:
        """Whether other processes used the cores meanwhile."""
        return self.waited > _MAX_WAITED


def assumed(weight_bytes: int, settings: EngineSettings) -> Calibration | None:
    """What needs no measuring: a tiny model, or one that graphics cards compute; else None.

    Threads wait for one another at every graph node, spinning. Where a node takes microseconds
    and other processes want the cores too, two threads were measured to be half as fast as one.
    """
    if backends.uses_cards(settings):
        reason, threads = "graphics cards compute it", machine.usable_cores()
    elif weight_bytes < TINY_WEIGHT_BYTES:
        reason, threads = "the model is too small to gain", 1
    else:
        return None
    threads = settings.threads or threads
    blas = BLAS_ROWS if settings.blas == "on" and backends.has_blas() else None
    return Calibration(Tuning(threads, threads, blas_from=blas), reason=reason)


def unmeasured(settings: EngineSettings) -> Calibration:
    """What is usual: all cores, and OpenBLAS only where it is forced."""
    threads = settings.threads or machine.usable_cores()
    blas = BLAS_ROWS if settings.blas == "on" and backends.has_blas() else None
    return Calibration(Tuning(threads, threads, blas_from=blas), reason="nothing was measured")


def apply_blas(tuning: Tuning) -> None:
    """Take OpenBLAS out if it is of no use; for contexts that are created from now on."""
    if tuning.blas_from is None:
        backends.Blas().take_out()


def measure(model: LoadedModel, settings: EngineSettings, sizes: Sizes) -> Calibration:
    """Try what there is to choose from, and choose, in 10 to 15 s.

    Uses less memory for conversations than the context of `sizes`, which comes after it.
    OpenBLAS is left in; `apply_blas` does what was decided.
    """
    began = time.perf_counter()
    with ExitStack() as closing:
        course = _Course(model, settings, sizes, closing)
        course.choose_threads()
        course.choose_attention()
        course.choose_ubatch()
        course.choose_blas()
        advised = "" if course.is_late else quantization.advice(model, settings, course.time_of)
    found = Calibration(
        course.tuning,
        tuple(course.table),
        seconds=round(time.perf_counter() - began, 2),
        waited=round(course.waited, 3),
        advice=advised,
    )
    _log.info("calibrated", chosen=str(found.tuning), seconds=found.seconds, waited=found.waited)
    return found


class _Course:
    """The questions, in the order in which one builds on the other."""

    def __init__(
        self, model: LoadedModel, settings: EngineSettings, sizes: Sizes, closing: ExitStack
    ) -> None:
        self._model = model
        self._settings = settings
        self._closing = closing
        self._blas = backends.Blas()
        self._blas.take_out()
        closing.callback(self._blas.put_back)
        threads = settings.threads or machine.usable_cores()
        self._most_rows = min(settings.batch_tokens, MAX_UBATCH)
        self.tuning = Tuning(threads, threads, ubatch=self._most_rows)
        self.table: list[Line] = []
        self.waited = 0.0
        self._deadline = time.perf_counter() + _SECONDS_FOR_ALL
        self._clock: Callable[[], float] = time.perf_counter
        spare = sizes.total // _MOST_PROBES - self._most_rows
        self._depth = max(0, min(_DEPTH, model.trained_context_length // 2, spare))
        room = self._depth + self._most_rows
        self._cells = -(-room // CELL_MULTIPLE) * CELL_MULTIPLE
        self._plain = self._probe(self.tuning, closing)
        self._num_layers = int(llama.llama_model_n_layer(model.pointer))
        self._layers = self._how_many_layers()

    def choose_threads(self) -> None:
        """As many as there are cores, or fewer: they may share memory, or a core.

        Threads wait for one another, and so for whoever took a core from one of them: beside busy
        processes fewer threads always look better, and that says nothing about the machine. So
        there all cores are kept, and what follows is asked of a single thread, in its own time.
        """
        usable = machine.usable_cores()
        numbers = sorted({usable, machine.physical_cores() or usable, -(-usable // 2)})
        if self._settings.threads or len(numbers) < 2:
            return

        def step(threads: int) -> float:
            several = self._plain.run(_STREAMS, threads, self._layers) / _STREAMS
            return (self._plain.run(1, threads, self._layers) + several) / 2

        def read(threads: int) -> float:
            return self._plain.run(_CHUNK, threads, 1) / _CHUNK

        with machine.waiting() as waited:
            writing = _scaled(self._race(step, numbers), self._num_layers / self._layers)
            reading = _scaled(self._race(read, numbers), self._num_layers)
        self.waited = min(1.0, waited())
        if self.waited > _MAX_WAITED:
            self._clock = time.thread_time  # of a single thread, from here on
            writing, reading = {usable: writing[usable]}, {usable: reading[usable]}
        decode = self._decide("writing", "threads", writing, usable)
        prefill = self._decide("reading", "threads", reading, usable)
        self.tuning = replace(self.tuning, decode_threads=decode, prefill_threads=prefill)

    def choose_attention(self) -> None:
        """With flash attention or without: what is quicker far into a conversation need not be so
        at its beginning, where the plain one computes the cells that nothing is in as well."""
        if self._depth < CELL_MULTIPLE:
            return
        tuning, layers = self.tuning, max(1, self._layers // 4)

        def turn(option: str) -> float:
            return (turn_after(_SHALLOW, option) + turn_after(self._depth, option)) / 2

        def turn_after(depth: int, option: str) -> float:
            probe = probes[option]
            probe.fill(depth)
            write = _TURN * self._time(probe, 1, self._write_threads, layers)
            read = _TURN / _CHUNK * self._time(probe, _CHUNK, self._read_threads, layers)
            return (write + read) / (2 * _TURN)

        with ExitStack() as closing:
            probes = {
                option: self._probe(replace(tuning, flash_attention=option == "on"), closing)
                for option in ("on", "off")
            }
            if not all(probe.exists for probe in probes.values()):
                return
            for option in probes:
                turn(option)
            times = _scaled(self._race(turn, [*probes]), self._num_layers / layers)
            question = f"a turn after {_SHALLOW} and after {self._depth} tokens"
            found = self._decide(question, "flash attention", times, "on", _ATTENTION_MARGIN)
            if found == "off":
                self.tuning = replace(self.tuning, flash_attention=False)
            else:
                self._choose_for_few(probes["on"])

    def _choose_for_few(self, probe: Probe) -> None:
        """Whether flash attention is the better one for a few dozen rows, too."""
        switch = probe.attention
        if switch is None:
            return

        def read(option: str) -> float:
            switch.fuse(option == "on")
            self._time(probe, 1, self._read_threads, 1)  # no graph is there for this one to take
            return self._time(probe, _FEW, self._read_threads, 1) / _FEW

        times = _scaled(self._race(read, ("on", "off")), self._num_layers)
        question = f"reading {_FEW} after {self._depth} tokens"
        if self._decide(question, "flash attention", times, "on") == "off":
            self.tuning = replace(self.tuning, plain_from=_FEWEST)

    def choose_ubatch(self) -> None:
        """How many rows of a long prompt are computed together."""

        def read(rows: int) -> float:
            return self._time(self._plain, rows, self._read_threads, 1) / rows

        numbers = [n for n in (64, 128, 256) if n < self._most_rows] + [self._most_rows]
        times = _scaled(self._race(read, numbers), self._num_layers)
        done = {rows: seconds for rows, seconds in times.items() if seconds < math.inf}
        if done:
            chosen = self._decide("reading much", "rows", done, max(done))
            self.tuning = replace(self.tuning, ubatch=chosen)

    def choose_blas(self) -> None:
        """Whether OpenBLAS pays, and from how many rows on."""
        if not self._blas.exists or self._settings.blas == "off":
            return
        if self._settings.blas == "on":
            self.tuning = replace(self.tuning, blas_from=BLAS_ROWS)
            return
        if self._settings.slots >= BLAS_ROWS or self._most_rows <= BLAS_ROWS:
            return  # decoding so many slots at once would lose
        if not self._blas.can_rest:
            return  # all that is read in smaller calls would lose
        self._blas.put_back()
        # Whatever is computed together unpacks the weights once.
        whole = replace(self.tuning, ubatch=self._most_rows)
        with_blas = self._probe(whole, self._closing)
        self._blas.take_out()
        count = self._most_rows

        def read(way: tuple[Probe, int]) -> float:
            probe, rows = way
            return self._time(probe, rows, self._read_threads, 1)

        ways = off, on, short = (self._plain, count), (with_blas, count), (with_blas, BLAS_ROWS)
        read(on)
        times = _scaled(self._race(read, ways, _BLAS_SECONDS), self._num_layers)
        pays_from = break_even(count, times[off], times[on], times[short])
        if pays_from is not None and self._clock is not time.perf_counter:
            pays_from = max(pays_from, int(_LEAST_SHARE_IF_DISTURBED * count))
        if pays_from is not None:
            self.tuning = replace(whole, blas_from=pays_from)
        for name, way, chosen in (
            ("OpenBLAS off", off, pays_from is None),
            ("OpenBLAS on", on, pays_from is not None),
            ("OpenBLAS on", short, False),
        ):
            rows = way[1]
            line = Line(f"reading {rows} at once", name, times[way] / rows, chosen)
            self.table.append(line)

    # --- inside -------------------------------------------------------------------------------

    @property
    def is_late(self) -> bool:
        """Whether nothing more should be asked."""
        return time.perf_counter() > self._deadline

    def time_of(self, probe: Probe, rows: int, layers: int) -> float:
        """Seconds of a trial with another model, computed as was decided."""
        return self._time(probe, rows, self._write_threads, layers)

    @property
    def _write_threads(self) -> int:
        return self.tuning.decode_threads if self._clock is time.perf_counter else 1

    @property
    def _read_threads(self) -> int:
        return self.tuning.prefill_threads if self._clock is time.perf_counter else 1

    def _probe(self, tuning: Tuning, closing: ExitStack) -> Probe:
        return Probe(self._model, self._settings, tuning, self._cells, closing)

    def _race(
        self,
        trial: Callable[[Option], float],
        options: Iterable[Option],
        seconds: float = _SECONDS,
    ) -> dict[Option, float]:
        left = self._deadline - time.perf_counter()
        trials = {option: partial(trial, option) for option in options}
        return race(trials, min(seconds, left))

    def _time(self, probe: Probe, rows: int, threads: int, layers: int) -> float:
        return probe.run(rows, threads, layers, self._clock)

    def _how_many_layers(self) -> int:
        """So many that a trial of one row takes long enough to be timed; touches them, too."""
        most = max(1, self._num_layers - 1)  # the last layer drops rows that nobody asked for
        self._plain.run(1, 1, 1)
        one = self._plain.run(1, 1, 1)
        layers = max(1, min(most, math.ceil(_TRIAL_SECONDS / one))) if one < math.inf else 1
        self._plain.run(1, 1, layers)
        return layers

    def _decide(
        self,
        question: str,
        what: str,
        times: Mapping[Option, float],
        usual: Option,
        margin: float = _MARGIN,
    ) -> Option:
        """The best of `times`, which are seconds per token; noted in the table."""
        chosen = pick(times, usual, margin)
        for option, seconds in times.items():
            self.table.append(Line(question, f"{what} {option}", seconds, option == chosen))
        return chosen


def break_even(count: int, slow: float, quick: float, short: float) -> int | None:
    """The fewest tokens for which BLAS is quicker; None when that is (nearly) never.

    `count` tokens take `slow` seconds without BLAS and `quick` with it, 32 tokens `short` with
    it. BLAS costs something per call and something per token, the other way per token only.
    """
    if count <= BLAS_ROWS or not math.isfinite(slow + quick + short):
        return None
    per_token = max(0.0, (quick - short) / (count - BLAS_ROWS))
    per_call = short - BLAS_ROWS * per_token
    saved_per_token = slow / count - per_token
    if saved_per_token <= 0 or quick >= slow * (1 - _BLAS_MARGIN):
        return None
    tokens = max(BLAS_ROWS, math.ceil(per_call / saved_per_token))
    return tokens if tokens <= _MAX_SHARE * count else None


def _scaled(times: Mapping[Option, float], factor: float) -> dict[Option, float]:
    return {option: seconds * factor for option, seconds in times.items()}
