"""The decode step: one token for everyone whose prompt has been read."""

from __future__ import annotations

from service import metrics
from service.domain.events import FinishReason
from service.engine.endings import Endings
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
            if isinstance(choice, DeadEnd):
                self._endings.dead_end(sequence, choice)
            else:
                self._advance(sequence, choice, now)

    def _follow(self, sequence: Sequence, draft: list[int], started: float) -> None:
        """Take `sequence`, one token further by now, as far as the draft was right."""
        parts, num_right = self._parts, 0
        for row, token_id in enumerate(draft, 1):
            if sequence.slot is None or sequence.token_ids[-1] != token_id:
                break
            num_right = row
            choice = self._choice(sequence, row)
            if isinstance(choice, DeadEnd):
                self._endings.dead_end(sequence, choice)
                break
            now = parts.clock()
            parts.scheduler.decoded([sequence])
            parts.gauges.guessed(now)
            self._advance(sequence, choice, now)
        self._speculation.stepped(sequence, len(draft), num_right, parts.clock() - started)
        if draft:
            metrics.SPECULATION_TOKENS.labels("accepted").inc(num_right)
            metrics.SPECULATION_TOKENS.labels("rejected").inc(len(draft) - num_right)

    def _run(self, plan: DecodePlan) -> list[int | DeadEnd]:
        """The token that follows for each sequence of the plan, or why there is none."""
        try:
            self._parts.runner.decode(plan.rows)
            return [self._choice(sequence, row) for row, sequence in plan.sampled]
        finally:
            for slot in plan.padded:
                self._parts.residency.forget_padding(slot)

    def _choice(self, sequence: Sequence, row: int) -> int | DeadEnd:
        try:
            token_id = self._next_token(sequence, row)
        except DeadEnd as error:
            return error
        num_top = sequence.job.submit.logprobs
        # The end is not part of the answer.
        if num_top is not None and not self._parts.runner.is_end(token_id):
            sequence.logprobs.append(self._parts.runner.logprob(row, token_id, num_top))
        return token_id

    def _next_token(self, sequence: Sequence, row: int) -> int:
        """Mostly the sampler's choice, but a thought that is too long is closed."""
        thought = sequence.thought
        if thought is None:
            return sequence.sampler.sample(row)
        closing = thought.next()
        if closing is not None:
            sequence.sampler.accept(closing)
            return closing
        token_id = sequence.sampler.sample(row)
        thought.read(self._parts.runner.piece(token_id))
        return token_id

    def _advance(self, sequence: Sequence, token_id: int, now: float) -> None:
        """The model read `sequence`'s last token, and this one followed."""
        sequence.lane.read_one(sequence.token_ids[-1])
        sequence.num_computed += 1
        sequence.token_ids.append(token_id)
        sequence.last_token_at = now
        if not sequence.first_token_at:
            sequence.first_token_at = now
            self._parts.gauges.first_token(sequence)
        sequence.unreported.append(sequence.text.num_decoded)
        if self._parts.runner.is_end(token_id):
            self._endings.finish(sequence, FinishReason.STOP, now)
            return
        piece = sequence.shown.get(token_id) or self._parts.runner.piece(token_id)
        text = sequence.text.feed(piece)
        self._parts.progress.text(sequence, text)
        if sequence.text.stopped_by is not None:
            self._endings.finish(sequence, FinishReason.STOP, now)
        elif sequence.num_generated >= sequence.max_tokens:
            self._endings.finish(sequence, FinishReason.LENGTH, now)
