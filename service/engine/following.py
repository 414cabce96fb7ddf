"""What follows the last token that the model has read: it is chosen, and the answer goes on."""

from __future__ import annotations

from service.domain.events import FinishReason
from service.engine.endings import Endings
from service.engine.parts import Parts
from service.engine.runner import DeadEnd
from service.engine.sequence import Sequence


class Following:
    """From a row of logits to the next token of a sequence. Engine thread only."""

    def __init__(self, parts: Parts, endings: Endings) -> None:
        self._parts = parts
        self._endings = endings

    def choose(self, sequence: Sequence, row: int) -> int | DeadEnd:
        """The token that comes next, or why none may."""
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

    def take(self, sequence: Sequence, choice: int | DeadEnd, now: float) -> None:
        """The model has read all of `sequence`'s tokens, and this is what came of it."""
        if isinstance(choice, DeadEnd):
            self._endings.dead_end(sequence, choice)
            return
        parts = self._parts
        sequence.token_ids.append(choice)
        sequence.last_token_at = now
        if not sequence.first_token_at:
            sequence.first_token_at = now
            parts.gauges.first_token(sequence)
        stream = sequence.text
        sequence.unreported.append(stream.num_decoded)
        if parts.runner.is_end(choice):
            self._endings.finish(sequence, FinishReason.STOP, now)
            return
        piece = sequence.shown.get(choice) or parts.runner.piece(choice)
        parts.progress.text(sequence, stream.feed(piece))
        if stream.stopped_by is not None:
            self._endings.finish(sequence, FinishReason.STOP, now)
        elif sequence.num_generated >= sequence.max_tokens:
            self._endings.finish(sequence, FinishReason.LENGTH, now)
