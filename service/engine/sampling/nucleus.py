"""The nucleus of a row: the fewest tokens that hold a share of all weight.

Sorting a large vocabulary takes milliseconds. In most rows few tokens are heavy enough to come into
question. In others a sample says between which weights the lightest token of the nucleus lies, and
only what lies there is sorted. A sample that misleads is found out, and then all are sorted.
"""

from __future__ import annotations

import math

import numpy as np

from service.engine.sampling.candidates import Ids, Row, mass_of
from service.engine.sampling.draw import cumulated

# More candidates than this are not worth taking out of the row.
_FEW = 8192

# Every so many-th token is in the sample; a prime, as a vocabulary's order may have a period.
_STEP = 19


def nucleus(weights: Row, share: float, total: float) -> Ids | None:
    """The fewest tokens that hold `share` of `total`, the sum of the weights; of equal ones the
    first; by id. None where many come into question: see `thinned`."""
    target = share * total
    # What all lighter ones hold together can be spared.
    least = np.float32(0.999 * (total - target) / weights.size)
    if weights.size > _FEW and np.count_nonzero(weights[::_STEP] >= least) * _STEP > _FEW:
        return None
    candidates: Ids = (weights >= least).nonzero()[0]
    kept = _thin(weights[candidates], target)
    # Rounding can leave all of them too light.
    return weights.nonzero()[0] if kept is None else candidates[kept > 0]


def thinned(weights: Row, share: float, total: float) -> Row:
    """The weights, those outside the nucleus at 0."""
    target = share * total
    least, most = _bracket(weights[::_STEP], (total - target) / weights.size)
    more = weights > most
    left: Row = more.astype(np.float32)
    left *= weights
    held = mass_of(left)
    between = ((weights >= least) ^ more).nonzero()[0]
    kept = _thin(weights[between], target - held)
    if kept is None:
        whole = _thin(weights, target)
        return weights if whole is None else whole
    left[between] = kept
    return left


def _bracket(sample: Row, spare: float) -> tuple[np.float32, np.float32]:
    """Between which weights the lightest token of the nucleus nearly certainly lies, where `spare`
    is what others may hold, per token of the row."""
    ranked = np.sort(sample)
    place = int(cumulated(ranked).searchsorted(spare * ranked.size))
    # As those left out are the light ones, their sum is hardly further out than their number: a
    # standard error is the root of it, and this is two and a half.
    reach = math.isqrt(6 * place) + 9
    least = ranked[place - reach] if place >= reach else np.float32(0)
    most = ranked[place + reach] if place + reach < ranked.size else np.float32(math.inf)
    return least, most


def _thin(weights: Row, target: float) -> Row | None:
    """The weights, those at 0 that are not needed to hold `target` together, the lightest first, of
    equal ones the last. None where it isn't for them to hold."""
    ranked = np.sort(weights)[::-1]
    count = int(cumulated(ranked).searchsorted(target)) + 1
    if target < 0.0 or count > ranked.size:
        return None
    lightest = ranked[count - 1]
    left: Row = weights * (weights >= lightest)
    num_spare = int(np.count_nonzero(ranked[count:] == lightest))
    if num_spare:
        left[(weights == lightest).nonzero()[0][-num_spare:]] = 0.0
    return left
