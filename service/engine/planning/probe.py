"""Times the model's first layers, computed in one way or another.

All layers cost the same, so a few of them tell which way is quicker: a trial takes milliseconds
where the whole model would take seconds.
"""

from __future__ import annotations

import ctypes
import math
import re
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from contextlib import ExitStack
from statistics import median
from typing import Any, TypeVar

import llama_cpp.llama_cpp as llama

from service.engine import library
from service.engine.batch import Batch
from service.engine.planning.attention import find_switch
from service.engine.planning.loading import LoadedModel
from service.engine.planning.memory import Sizes
from service.engine.planning.tuning import Tuning, context_params
from service.settings import EngineSettings

Option = TypeVar("Option", bound=Hashable)

# A trial that has not seen the end of its layers by then is given up.
_TRIAL_SECONDS = 3.0

# More rounds than this tell nothing new.
_MAX_ROUNDS = 15

# llama.cpp's name for what comes out of a layer.
_LAYER = re.compile(rb"^l_out-(\d+)$")

_name = library.function("ggml_get_name", ctypes.c_char_p, ctypes.c_void_p, keep_gil=True)


class Probe:
    """A context of one slot, computed as `tuning` says; `exists` tells whether that is possible.

    `attention`: where it can be fused or not, from one trial to the next.
    Closed by `closing`. It keeps the backends that were there when it was created.
    """

    def __init__(
        self,
        model: LoadedModel,
        settings: EngineSettings,
        tuning: Tuning,
        cells: int,
        closing: ExitStack,
    ) -> None:
        self._layers = 0
        self._clock: Callable[[], float] = time.perf_counter
        self._started = self._seconds = math.inf
        self._filling = False
        self._depth = 0
        self._callback = llama.ggml_backend_sched_eval_callback(self._on_node)
        params = context_params(settings, Sizes(1, cells), tuning)
        params.cb_eval = self._callback
        self._context = llama.llama_init_from_model(model.pointer, params)
        self.exists = bool(self._context)
        if self.exists:
            closing.callback(llama.llama_free, self._context)
            self._flag = library.AbortFlag(self._context)
            self._batch = Batch(params.n_batch)
            self._memory = llama.llama_get_memory(self._context)
            self.attention = find_switch(self._context)

    def fill(self, num_tokens: int) -> None:
        """Take `num_tokens` for read, without computing them: what they say does not matter."""
        llama.llama_memory_seq_rm(self._memory, 0, -1, -1)  # of recurrent states there are no parts
        self._flag.lower()
        self._filling = True
        chunk = len(self._batch.token)
        for start in range(0, num_tokens, chunk):
            self._decode(start, min(chunk, num_tokens - start))
        self._filling = False
        self._depth = num_tokens

    def run(
        self,
        rows: int,
        threads: int,
        layers: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> float:
        """Seconds for that many rows to pass that many layers; infinite when it took too long.

        On a busy machine `time.thread_time` is the better clock, for a single thread: it does not
        count while others have the core.
        """
        if not self.exists:
            return math.inf
        self._layers, self._clock = layers, clock
        self._started = self._seconds = math.inf
        llama.llama_set_n_threads(self._context, threads, threads)
        self._flag.lower()
        timer = threading.Timer(_TRIAL_SECONDS, self._flag.raise_)
        timer.start()
        try:
            self._decode(self._depth, rows)
        finally:
            timer.cancel()
        llama.llama_memory_seq_rm(self._memory, 0, self._depth, -1)
        return self._seconds

    def _decode(self, start: int, count: int) -> None:
        self._batch.position[:count] = range(start, start + count)
        llama.llama_decode(self._context, self._batch.close(count, outputs=False))

    def _on_node(self, node: Any, ask: bool, _user_data: object) -> bool:
        """llama.cpp asks about each node, then tells when one that we asked for is done."""
        if self._filling:
            return ask  # the first node of all is the last that is computed
        if ask:
            if self._started == math.inf:
                self._started = self._clock()
            layer = _LAYER.match(_name(node) or b"")
            return layer is not None and int(layer[1]) == self._layers - 1
        self._seconds = self._clock() - self._started
        self._flag.raise_()
        return False


def race(trials: Mapping[Option, Callable[[], float]], seconds: float) -> dict[Option, float]:
    """What each trial takes, all tried in turn until `seconds` are over, at least once.

    A machine that is slow for a while is so for a whole round, more or less: times are compared
    within each round, and of the rounds the median counts.
    """
    began = time.perf_counter()
    rounds: list[dict[Option, float]] = []
    while len(rounds) < _MAX_ROUNDS:
        rounds.append({option: trial() for option, trial in trials.items()})
        if time.perf_counter() - began > seconds:
            break
    return _typical(rounds)


def _typical(rounds: list[dict[Option, float]]) -> dict[Option, float]:
    """The median of each option's share of its rounds, in seconds; infinite where it was more often
    given up than not. Those never given up say how long a round is."""
    steady = [o for o in rounds[0] if all(times[o] < math.inf for times in rounds)]
    levels = [sum(times[o] for o in steady) or 1.0 for times in rounds]
    level = median(levels)
    return {
        option: level
        * median(times[option] / lasted for times, lasted in zip(rounds, levels, strict=True))
        for option in rounds[0]
    }


def pick(times: Mapping[Option, float], usual: Option, margin: float) -> Option:
    """The quickest, but the usual one unless it loses by more than `margin` of its time."""
    best = min(times, key=lambda option: times[option])
    if times[best] < times.get(usual, math.inf) * (1 - margin):
        return best
    return usual
