"""One generation, as the engine sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

import numpy as np

from service.domain.chat import Priority
from service.domain.events import Timings, TokenLogprob, Usage
from service.engine.kv.prefix import Prefix
from service.engine.kv.slots import Slot
from service.engine.runner import Sampler
from service.engine.seen import Seen
from service.engine.text import TextStream
from service.engine.thought import Thought
from service.ipc.messages import Submit

Key = tuple[int, int]
"""A request's connection, and its id there."""


@dataclass(eq=False, slots=True)
class Job:
    """A `Submit` as it came in over `connection`, at `arrived` (seconds, monotonic).

    `cancelled` is written by the engine thread only; the tokenizer reads it to save itself work,
    and writes `num_shared`: how many first tokens of the prompt are under no key, and `seen`: its
    pictures, where it has some.
    """

    connection: int
    submit: Submit
    arrived: float
    cancelled: bool = False
    num_shared: int = 0
    seen: Seen | None = None

    @property
    def key(self) -> Key:
        return (self.connection, self.submit.id)


@dataclass(frozen=True, slots=True)
class Notice:
    """What a waiting sequence was told at `at`: who goes first, and when it expects its turn."""

    at: float
    num_ahead: int
    turn_at: float


@dataclass(eq=False, slots=True)
class Sequence:
    """The tokens of one generation, and how far the model has read them.

    The first token is sampled where the prompt's last one is read, with others of its prompt or,
    where all else was cached, by a decode step. The token that was sampled last has not been read:
    `num_pending` is 1 from then on. `shown` are the control tokens that appear in its text,
    spelled; `queued` says that no slot was free when it came. `num_told` characters of the text
    were told of; `unreported` has, for each token that was not, where it begins in the text.
    """

    job: Job
    token_ids: list[int]
    max_tokens: int
    sampler: Sampler
    text: TextStream
    num_prompt: int = field(init=False)
    num_computed: int = 0
    num_cached: int = 0
    num_reused: int = 0
    unreported: list[int] = field(default_factory=list)
    num_told: int = 0
    logprobs: list[TokenLogprob] = field(default_factory=list)
    thought: Thought | None = None
    shown: Mapping[int, bytes] = field(default_factory=dict)
    slot: Slot | None = None
    anchors: tuple[int, ...] = ()
    first_token_by: float = inf
    end_by: float = inf
    notice: Notice | None = None
    queued: bool = False
    resumed: bool = False
    admitted_at: float = 0.0
    first_token_at: float = 0.0
    last_token_at: float = 0.0

    def __post_init__(self) -> None:
        self.num_prompt = len(self.token_ids)
        submit = self.job.submit
        if submit.first_token_seconds is not None:
            self.first_token_by = self.job.arrived + submit.first_token_seconds
        if submit.deadline_seconds is not None:
            self.end_by = self.job.arrived + submit.deadline_seconds

    @property
    def cache_key(self) -> str:
        return self.job.submit.cache_key

    @property
    def num_shared(self) -> int:
        return self.job.num_shared

    @property
    def prefix(self) -> Prefix:
        """All its tokens, as something that is looked for, or that others may begin with."""
        return Prefix(np.array(self.token_ids, np.int32), self.cache_key, self.num_shared)

    @property
    def fair_key(self) -> str:
        return self.job.submit.fair_key

    @property
    def in_batch(self) -> bool:
        """Whether it is to wait while anybody interactive does."""
        return self.job.submit.priority is Priority.BATCH

    @property
    def lane(self) -> Slot:
        """The slot of a sequence that runs. Raises `LookupError` for one that waits."""
        if self.slot is None:
            raise LookupError(f"sequence {self.job.key} has no slot")
        return self.slot

    @property
    def num_pending(self) -> int:
        """Tokens the model has yet to read: many while prefilling, one while decoding."""
        return len(self.token_ids) - self.num_computed

    @property
    def num_generated(self) -> int:
        return len(self.token_ids) - self.num_prompt

    @property
    def begun(self) -> bool:
        """Whether the model has read anything for it in its slot, beyond what was there."""
        return self.num_computed > self.num_reused

    def occupy(self, slot: Slot, now: float) -> None:
        """Start from what `slot` holds, which must be a beginning of its tokens, not all."""
        self.slot = slot
        self.reuse(slot.num_tokens)
        self.admitted_at = self.admitted_at or now
        slot.busy = True

    def reuse(self, num_tokens: int) -> None:
        """Its slot holds so many of its tokens before anything is read for it.

        The first time that is what the cache saved; later it is its own work.
        """
        self.num_computed = self.num_reused = num_tokens
        if not self.resumed:
            self.num_cached = num_tokens

    def vacate(self) -> Slot:
        """Give its slot up and keep the tokens: it may go on in any other."""
        slot, self.slot = self.lane, None
        self.num_computed = self.num_reused = 0
        self.resumed = True
        return slot

    def usage(self) -> Usage:
        return Usage(
            prompt_tokens=self.num_prompt,
            cached_tokens=self.num_cached,
            completion_tokens=self.num_generated,
        )

    def timings(self, now: float) -> Timings:
        """Seconds up to `now`; each is 0 until its time has begun."""
        admitted = self.admitted_at or now
        first_token = self.first_token_at or now
        return Timings(
            queue_seconds=admitted - self.job.arrived,
            prefill_seconds=first_token - admitted,
            decode_seconds=(self.last_token_at or now) - first_token,
        )
