"""The fewest tokens that hold a share, beside what sorting all of them says; no model is needed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.engine.sampling.candidates import Row, best_of, mass_of, weights_of
from service.engine.sampling.nucleus import _bracket, nucleus, thinned

# Up to a few thousand all are sorted; of more a sample says which.
SIZES = st.sampled_from([1, 2, 64, 65, 1000, 20_003, 60_000])
SHARES = st.one_of(st.floats(0, 1, exclude_max=True), st.sampled_from([1e-12, 0.5, 0.95, 1 - 1e-9]))


Mask = NDArray[np.bool_]


def both_ways(weights: Row, share: float) -> Iterator[Mask]:
    """What stays, found in the way for many candidates, and where they are few in that for few."""
    total = mass_of(weights)
    left = thinned(weights, share, total)
    kept: Mask = left > 0
    assert (left[kept] == weights[kept]).all()
    yield kept
    ids = nucleus(weights, share, total)
    if ids is not None:
        kept = np.zeros(weights.size, np.bool_)
        kept[ids] = True
        yield kept


def order_of(weights: Row) -> NDArray[np.intp]:
    """The heaviest first, of equal ones the first."""
    return np.argsort(-weights, kind="stable")


def assert_fewest(kept: Mask, weights: Row, share: float) -> None:
    """The heaviest stay, of equal ones the first, and as many as share and rounding ask for."""
    order = order_of(weights)
    count = int(np.count_nonzero(kept))
    assert kept[order[:count]].all()
    mass = weights[order].cumsum(dtype=np.float64)
    mass /= mass[-1]
    assert count >= 1
    assert mass[count - 1] >= share - 1e-6
    assert count == 1 or mass[count - 2] < share + 1e-6


@given(
    size=SIZES,
    share=SHARES,
    spread=st.sampled_from([0.0, 0.3, 1.0, 3.0, 10.0]),
    step=st.sampled_from([0.0, 0.125, 1.0]),
    impossible=st.sampled_from([0.0, 0.3, 0.999]),
    peaks=st.sampled_from([0, 50, 2000]),
    seed=st.integers(0, 1000),
)
@example(size=1, share=0.95, spread=0.0, step=0.0, impossible=0.0, peaks=0, seed=0)
def test_no_token_too_many_and_none_too_few_is_kept(
    *,
    size: int,
    share: float,
    spread: float,
    step: float,
    impossible: float,
    peaks: int,
    seed: int,
) -> None:
    """With ties (`step`), tokens that can't come, and some that stand out."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, spread, size)
    values[rng.integers(size, size=peaks)] += rng.uniform(0, 12, peaks)
    logits: Row = (np.round(values / step) * step if step else values).astype(np.float32)
    logits[rng.random(size) < impossible] = -np.inf
    logits[rng.integers(size)] = 1.0
    weights = weights_of(logits, best_of(logits))
    for kept in both_ways(weights, share):
        assert_fewest(kept, weights, share)


@given(size=SIZES, share=SHARES, levels=st.sampled_from([1, 3, 255]), seed=st.integers(0, 1000))
def test_where_nothing_is_rounded_it_is_what_sorting_says(
    size: int, share: float, levels: int, seed: int
) -> None:
    weights: Row = np.random.default_rng(seed).integers(0, levels, size).astype(np.float32)
    weights /= np.float32(256)
    weights[seed % size] = 1.0
    order = order_of(weights)
    mass = weights[order].cumsum(dtype=np.float64)
    assert mass_of(weights) == mass[-1]
    expected = np.zeros(size, np.bool_)
    expected[order[: int(mass.searchsorted(share * mass[-1])) + 1]] = True
    for kept in both_ways(weights, share):
        assert (kept == expected).all()


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95, 0.9999])
@pytest.mark.parametrize("sampled", [1.0, 1e-3, 0.0])
def test_a_sample_unlike_the_others_changes_nothing(sampled: float, share: float) -> None:
    weights = np.random.default_rng(1).uniform(0.01, 0.02, 60_000).astype(np.float32)
    weights[::19] = sampled
    weights[1] = 1.0
    for kept in both_ways(weights, share):
        assert_fewest(kept, weights, share)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("spread", [0.3, 1.0, 2.0])
def test_of_a_large_vocabulary_little_is_sorted(spread: float, share: float) -> None:
    logits = np.random.default_rng(2).normal(0, spread, 151_936).astype(np.float32)
    weights = weights_of(logits, best_of(logits))
    total = mass_of(weights)
    assert nucleus(weights, share, total) is None
    least, most = _bracket(weights[::19], (1 - share) * total / weights.size)
    held = float(weights[weights > most].sum())
    between = weights[(weights >= least) & (weights <= most)]
    assert held < share * total < held + float(between.sum())
    assert between.size < 0.1 * weights.size
