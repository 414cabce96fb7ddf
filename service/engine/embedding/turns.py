"""Whose input is read next. Pure: no model, no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from service.engine.sequence import Key


@dataclass(eq=False, slots=True)
class Asked:
    """One request of several inputs, as token ids; `num_taken` of them have had their turn.

    `dimensions` cuts its vectors; it `arrived` then (seconds, monotonic).
    """

    key: Key
    fair_key: str
    inputs: list[list[int]]
    dimensions: int | None = None
    arrived: float = 0.0
    num_taken: int = 0

    @property
    def is_done(self) -> bool:
        return self.num_taken == len(self.inputs)


@dataclass(frozen=True, slots=True)
class Turn:
    """Inputs `start` to `stop` of a request."""

    asked: Asked
    start: int
    stop: int

    @property
    def inputs(self) -> list[list[int]]:
        return self.asked.inputs[self.start : self.stop]


@dataclass(slots=True)
class _Party:
    """The requests under one fair key, in the order they came, and the tokens they have had."""

    num_tokens: int
    requests: deque[Asked] = field(default_factory=deque)


class Turns:
    """Requests whose inputs wait. Who has had fewest tokens goes first, so that nobody's thousand
    inputs make another's single one wait for more than a call."""

    def __init__(self) -> None:
        self._parties: dict[str, _Party] = {}
        self.num_tokens_waiting = 0

    def __bool__(self) -> bool:
        return bool(self._parties)

    def add(self, asked: Asked) -> None:
        self._party_of(asked).requests.append(asked)
        self.num_tokens_waiting += sum(map(len, asked.inputs))

    def put_back(self, turn: Turn) -> None:
        """The turn came to nothing; it is the request's next one."""
        asked = turn.asked
        if asked.is_done:
            self._party_of(asked).requests.appendleft(asked)
        asked.num_taken = turn.start
        self.num_tokens_waiting += sum(map(len, turn.inputs))

    def keep(self, wanted: Callable[[Key], bool]) -> None:
        """Forget the requests that nobody wants any more."""
        for fair_key, party in list(self._parties.items()):
            for asked in [a for a in party.requests if not wanted(a.key)]:
                party.requests.remove(asked)
                self.num_tokens_waiting -= sum(map(len, asked.inputs[asked.num_taken :]))
            if not party.requests:
                del self._parties[fair_key]

    def take(self, max_tokens: int, max_inputs: int) -> list[Turn]:
        """Inputs for one call. The first is taken whatever its length; the others as they fit."""
        taken: dict[Asked, Turn] = {}
        num_tokens = num_inputs = 0
        while self._parties and num_inputs < max_inputs:
            fair_key, party = min(self._parties.items(), key=lambda item: item[1].num_tokens)
            asked = party.requests[0]
            length = len(asked.inputs[asked.num_taken])
            if num_inputs and num_tokens + length > max_tokens:
                break
            start = taken[asked].start if asked in taken else asked.num_taken
            asked.num_taken += 1
            taken[asked] = Turn(asked, start, asked.num_taken)
            num_tokens += length
            num_inputs += 1
            party.num_tokens += length
            if asked.is_done:
                party.requests.popleft()
                if not party.requests:
                    del self._parties[fair_key]
        self.num_tokens_waiting -= num_tokens
        return list(taken.values())

    def _party_of(self, asked: Asked) -> _Party:
        party = self._parties.get(asked.fair_key)
        if party is None:
            # Who comes new starts level with the others: no claim on time when it was away.
            level = min((p.num_tokens for p in self._parties.values()), default=0)
            party = self._parties[asked.fair_key] = _Party(level)
        return party
