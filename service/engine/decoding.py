"""The decode step: one token for everyone whose prompt has been read."""

from __future__ import annotations

from service import metrics
from service.engine.endings import Endings
from service.engine.following import Following
from service.engine.order.scheduler import DecodePlan, plan_decode
from service.engine.parts import Parts
from service.engine.runner import DeadEnd, DecodeAborted, RunnerError
from service.engine.sequence import Sequence
from service.engine.speculation import Speculation


class Decoding:
    """Plans, runs and samples one step, and takes each sequence one token further."""

    def __init__(self, parts: Parts, endings: Endings) -> None:
        self._parts = parts
        self._endings = endings
        self._following = Following(parts, endings)
        self._speculation = Speculation(parts.cost, parts.runner, parts.clock)

    def step(self) -> None:
        """One token for every sequence that is ready; nothing when none is."""
        parts = self._parts
        sequences = parts.scheduler.generating()
        if not sequences:
            return
        plan = plan_decode(
            sequences,
            parts.slots,
            parts.cost.padding_pays,
            to_buckets=parts.runner.pads_batches,
        )
        draft = self._speculation.draft(sequences)
        if draft:
            plan = plan.with_draft(draft)
        started = parts.clock()
        try:
            choices = self._run(plan)
        except DecodeAborted:
            for sequence in sequences:
                parts.residency.resync(sequence)
            return
        except RunnerError as error:
            self._endings.fail(sequences, error)
            return
        if not draft:
            parts.cost.decoded(len(plan.rows), plan.num_runs, parts.clock() - started)
        self._take(sequences, choices)
        if len(sequences) == 1:
            self._follow(sequences[0], draft, started)
        if draft:
            parts.residency.forget_padding(parts.slots[plan.rows[0].slot])

    def _take(self, sequences: list[Sequence], choices: list[int | DeadEnd]) -> None:
        """Every sequence goes on with what was chosen for it."""
        parts, now = self._parts, self._parts.clock()
        parts.scheduler.decoded(sequences)
        gaps = [now - s.last_token_at for s in sequences if s.last_token_at]
        parts.gauges.decoded(len(sequences), now, gaps)
        for sequence, choice in zip(sequences, choices, strict=True):
            self._advance(sequence, choice, now)

    def _advance(self, sequence: Sequence, choice: int | DeadEnd, now: float) -> None:
        """The model read `sequence`'s last token, and this followed."""
        sequence.lane.read_one(sequence.token_ids[-1])
        sequence.num_computed += 1
        self._following.take(sequence, choice, now)

    def _follow(self, sequence: Sequence, draft: list[int], started: float) -> None:
        """Take `sequence`, one token further by now, as far as the draft was right."""
        parts, num_right = self._parts, 0
        for row, token_id in enumerate(draft, 1):
            if sequence.slot is None or sequence.token_ids[-1] != token_id:
                break
            num_right = row
            choice = self._following.choose(sequence, row)
            now = parts.clock()
            if not isinstance(choice, DeadEnd):
                parts.scheduler.decoded([sequence])
                parts.gauges.one_more(now)
            self._advance(sequence, choice, now)
        self._speculation.stepped(sequence, len(draft), num_right, parts.clock() - started)
        if draft:
            metrics.SPECULATION_TOKENS.labels("accepted").inc(num_right)
            metrics.SPECULATION_TOKENS.labels("rejected").inc(len(draft) - num_right)

    def _run(self, plan: DecodePlan) -> list[int | DeadEnd]:
        """The token that follows for each sequence of the plan, or why there is none."""
        try:
            self._parts.runner.decode(plan.rows)
            return [self._following.choose(sequence, row) for row, sequence in plan.sampled]
        finally:
            for slot in plan.padded:
                self._parts.residency.forget_padding(slot)
