"""What every contender is given, so that they do the same work."""

from __future__ import annotations

import os
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Shape:
    """Counts of tokens, slots and threads. Each stream's KV cache is its own (not unified)."""

    streams: tuple[int, ...] = (1, 4, 8)
    prompt_tokens: int = 128
    max_tokens: int = 128
    slots: int = 8
    slot_context: int = 4096
    threads: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))

    def options(self) -> list[str]:
        """The command line of llama.cpp's tools for it."""
        context, threads = str(self.slots * self.slot_context), str(self.threads)
        return ["-c", context, "-b", "2048", "-ub", "512", "-t", threads, "-no-kvu"]
