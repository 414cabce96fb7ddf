"""How likely a token was, and what else could have come."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from service.domain.events import Candidate, TokenLogprob
from service.engine.sampling.candidates import Row, best_of, mass_of, top, weights_of

# What stands for a token that cannot come; no logarithm that a JSON reader would choke on.
_LEAST = -9999.0


def logprob_of(
    logits: Row, token_id: int, num_top: int, spell: Callable[[Sequence[int]], Sequence[bytes]]
) -> TokenLogprob:
    """The chosen token and the `num_top` likeliest ones, the best first.

    Natural logarithms of the softmax of the row as the model left it: at temperature 1, before
    any option had its effect.
    """
    best = best_of(logits)
    log_mass = math.log(mass_of(weights_of(logits, best)))
    ids, below = [token_id], [float(logits[token_id] - best)]
    if num_top:
        places, values = top(logits, best, min(num_top, logits.size))
        ids += places.tolist()
        below += values.tolist()
    chosen, *likeliest = (
        Candidate(i, text, max(_LEAST, value - log_mass))
        for i, text, value in zip(ids, spell(ids), below, strict=True)
    )
    return TokenLogprob(chosen, tuple(likeliest))
