"""Those who wait: they are told how long, and not kept longer than they asked for."""

from __future__ import annotations

from math import inf

from service.domain.errors import DeadlineMissed
from service.domain.events import FinishReason
from service.engine.endings import Endings
from service.engine.order.forecast import Forecast, forecasts
from service.engine.parts import Parts
from service.engine.sequence import Notice, Sequence

# At most that often a waiting request hears something.
_NOTICE_SECONDS = 1.0
# A turn that is expected so much sooner or later than was told is worth telling.
_SURPRISE_SECONDS = 1.0
_SURPRISE_SHARE = 0.2


class Patience:
    """Deadlines, and notices to those whose prompt has not had its turn. Engine thread only."""

    def __init__(self, parts: Parts, endings: Endings) -> None:
        self._parts = parts
        self._endings = endings
        self._told_at = 0.0

    def accept(self, sequence: Sequence) -> int:
        """Let it wait; returns how many are ahead of it.

        Raises `QueueFull`, or `DeadlineMissed` when it would come too late anyway: before it costs
        anything.
        """
        num_ahead = self._parts.scheduler.enqueue(sequence)
        now = self._parts.clock()
        by = min(sequence.first_token_by, sequence.end_by)
        if by == inf:
            return num_ahead
        seconds = next(
            f.first_token_seconds
            for f in forecasts(self._parts.scheduler, now)
            if f.sequence is sequence
        )
        if now < by and now + seconds <= by:
            return num_ahead
        self._parts.scheduler.leave(sequence)
        self._parts.gauges.missed_deadline("refused")
        raise DeadlineMissed(
            f"The first token is expected in {seconds:.1f} s, but the request allows "
            f"{max(0.0, by - now):.1f} s more; try again later, or allow more time.",
            retry_after_seconds=max(1.0, now + seconds - by),
        )

    def expire(self) -> None:
        """End what has had its time: with what there is, or, without a token, as a failure."""
        now = self._parts.clock()
        for sequence in self._parts.scheduler.everyone():
            begun = sequence.first_token_at > 0
            if begun and now >= sequence.end_by:
                self._endings.finish(sequence, FinishReason.DEADLINE, now)
                self._parts.gauges.missed_deadline("answering")
            elif not begun and now >= min(sequence.first_token_by, sequence.end_by):
                waited = now - sequence.job.arrived
                self._parts.gauges.missed_deadline("waiting")
                self._endings.give_up(
                    sequence,
                    DeadlineMissed(f"There was no first token within {waited:.1f} s; try again."),
                )

    def tell(self) -> None:
        """Tell those who wait what has changed, each about once a second at most."""
        scheduler, now = self._parts.scheduler, self._parts.clock()
        if now - self._told_at < _NOTICE_SECONDS / 2:
            return
        if not scheduler.waiting and all(s.num_pending <= 1 for s in scheduler.running):
            return
        self._told_at = now
        for forecast in forecasts(scheduler, now):
            if _is_news(forecast, now):
                sequence, eta = forecast.sequence, forecast.turn_seconds
                sequence.notice = Notice(now, forecast.num_ahead, now + eta)
                self._parts.progress.queued(sequence, forecast.num_ahead, eta)


def _is_news(forecast: Forecast, now: float) -> bool:
    """Nobody needs to know who is being read already, or has had a token before."""
    sequence, told = forecast.sequence, forecast.sequence.notice
    if sequence.begun or sequence.first_token_at:
        return False
    if now - (told.at if told else sequence.job.arrived) < _NOTICE_SECONDS:
        return False
    if told is None or told.num_ahead != forecast.num_ahead:
        return True
    off = abs(now + forecast.turn_seconds - told.turn_at)
    return off > max(_SURPRISE_SECONDS, _SURPRISE_SHARE * forecast.turn_seconds)
