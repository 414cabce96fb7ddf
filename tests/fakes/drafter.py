"""A small model that is exact about what it has read, and right as often as a test wants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from service.engine.kv.prefix import Prefix
from service.engine.runner import RunnerError
from tests.fakes.clock import FakeClock
from tests.fakes.runner import Next


@dataclass
class FakeDrafter:
    """Says what `following` says. Reading a token and guessing one take so many seconds."""

    following: Next
    clock: FakeClock = field(default_factory=FakeClock)
    read_seconds: float = 0.0005
    guess_seconds: float = 0.003
    length: int = 2000
    lanes: dict[int, tuple[str, list[int]]] = field(default_factory=dict)
    num_guessed: int = 0
    num_read: int = 0
    most_read: int = 0
    breaks: Callable[[], bool] = lambda: False

    def unread(self, slot: int, prefix: Prefix) -> int:
        if len(prefix.tokens) >= self.length:
            return len(prefix.tokens)
        key, held = self.lanes.get(slot, ("", []))
        kept = Prefix(np.array(held, np.int32), key).reusable_for(
            Prefix(prefix.tokens, prefix.cache_key)
        )
        self.lanes[slot] = prefix.cache_key, held[:kept]
        return len(prefix.tokens) - kept

    def read(self, slot: int, token_ids: Sequence[int]) -> None:
        if self.breaks():
            raise RunnerError("the draft model refused")
        self.clock.now += self.read_seconds * len(token_ids)
        self.num_read += len(token_ids)
        self.most_read = max(self.most_read, len(token_ids))
        self.lanes[slot][1].extend(token_ids)

    def guess(self, slot: int, token_ids: Sequence[int], length: int) -> list[int]:
        held = self.lanes[slot][1]
        length = min(length, self.length - len(held) - len(token_ids) + 1)
        guesses: list[int] = []
        following = list(token_ids)
        while len(guesses) < length:
            self.read(slot, following)
            guesses.append(self.following(held))
            following = guesses[-1:]
            self.clock.now += self.guess_seconds
        self.num_guessed += len(guesses)
        return guesses

    def took(self, slot: int, num_tokens: int) -> None:
        del self.lanes[slot][1][num_tokens:]
