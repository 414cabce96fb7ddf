"""Choosing a token from a row of logits; no model is needed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.errors import InvalidRequest
from service.domain.sampling import Sampling
from service.engine.runner import DeadEnd, Matcher, RunnerError
from service.engine.sampling.candidates import Row, at_least_top
from service.engine.sampling.dry import Breakers
from service.engine.sampling.sampler import STAGES, RowSampler
from service.engine.sampling.truncation import choose

GREEDY = Sampling(temperature=0.0)


def row(*logits: float) -> Row:
    return np.array(logits, np.float32)


@dataclass
class FewTokens:
    """A vocabulary; 0 is a breaker."""

    size: int
    suppressed: Sequence[int] = ()
    ends: frozenset[int] = frozenset()

    def breakers(self, texts: tuple[str, ...]) -> Breakers:
        return {0: [()]} if texts else {}


def sampler(
    sampling: Sampling,
    logits: Row,
    tail: Sequence[int] = (),
    suppressed: Sequence[int] = (),
    ends: Sequence[int] = (),
    matcher: Matcher | None = None,
) -> RowSampler:
    tokens = FewTokens(logits.size, suppressed, frozenset(ends))
    return RowSampler(sampling, lambda _: logits, tokens, prompt_tail=tail, matcher=matcher)


def shares(sampling: Sampling, logits: Row, draws: int = 4000) -> dict[int, float]:
    """How often each token is chosen over evenly spaced draws: the exact distribution."""
    counts = Counter(choose(logits, sampling, drawing((i + 0.5) / draws)) for i in range(draws))
    return {token: count / draws for token, count in counts.items()}


def drawing(*numbers: float) -> Callable[[], float]:
    return iter(numbers).__next__


def softmax(logits: Row, temperature: float = 1.0) -> np.ndarray[Any, np.dtype[np.float64]]:
    weights = np.exp((logits.astype(np.float64) - logits.max()) / temperature)
    return np.asarray(weights / weights.sum())


def lumpy(size: int, seed: int = 0) -> Row:
    """Logits shaped like a language model's: a bulk far below, a few tokens on top."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2.5, size).astype(np.float32)
    logits[rng.integers(0, size, 40)] += np.linspace(14, 24, 40).astype(np.float32)
    return logits


def test_every_sampling_field_has_a_stage() -> None:
    assert set(STAGES) == {f.name for f in fields(Sampling)}


@pytest.mark.parametrize(
    ("change", "tail"),
    [
        ({"temperature": 0.5}, ()),
        ({"top_k": 1}, ()),
        ({"top_p": 0.1}, ()),
        ({"min_p": 0.9}, ()),
        ({"typical_p": 0.1}, ()),
        ({"repeat_penalty": 2.0}, (3,)),
        ({"repeat_penalty": 2.0, "repeat_last_n": 0}, (3,)),
        ({"presence_penalty": 1.0}, (3,)),
        ({"frequency_penalty": 1.0}, (3,)),
        ({"seed": 8}, ()),
        ({"logit_bias": {2: 3.0}}, ()),
    ],
    ids=lambda v: ",".join(v) if isinstance(v, dict) else "",
)
def test_every_field_changes_what_is_chosen(change: dict[str, Any], tail: tuple[int, ...]) -> None:
    logits = row(0.0, 0.5, 1.0, 1.5)
    plain = Sampling(seed=7, repeat_penalty=2.0 if "repeat_last_n" in change else 1.0)
    one, other = sampler(plain, logits, tail), sampler(replace(plain, **change), logits, tail)
    assert [one.sample(0) for _ in range(100)] != [other.sample(0) for _ in range(100)]


def test_temperature_zero_takes_the_best_token() -> None:
    assert sampler(GREEDY, row(0, 3, 1)).sample(0) == 1


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_without_truncation_the_shares_are_the_softmax(temperature: float) -> None:
    logits = row(0.0, 1.0, 2.0, -1.0)
    expected = softmax(logits, temperature)
    for token, share in shares(Sampling(temperature=temperature), logits).items():
        assert share == pytest.approx(expected[token], abs=5e-4)


@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.0, 1.5])
def test_looking_at_survivors_only_keeps_the_shares(temperature: float) -> None:
    logits = lumpy(151_936)
    expected = softmax(logits, temperature)
    found = shares(Sampling(temperature=temperature), logits, draws=500)
    for token in np.argsort(expected)[-5:]:
        assert found.get(int(token), 0.0) == pytest.approx(expected[token], abs=4e-3)


def test_a_flat_distribution_is_sampled_whole() -> None:
    logits = np.zeros(50_000, np.float32)
    chosen = sorted(choose(logits, Sampling(), drawing((i + 0.5) / 100)) for i in range(100))
    assert np.allclose(chosen, np.arange(250, 50_000, 500), atol=1)


def test_top_k_leaves_the_k_best() -> None:
    assert set(shares(Sampling(top_k=2), row(0, 1, 2, 3))) == {2, 3}


@pytest.mark.parametrize("size", [300, 60_000])
def test_of_fewer_tokens_than_top_k_all_that_can_come_stay(size: int) -> None:
    logits = np.full(size, -np.inf, np.float32)
    logits[[3, size // 2, size - 1]] = 1.0, 2.0, 1.5
    assert at_least_top(logits, 40).tolist() == [3, size // 2, size - 1]
    assert set(shares(Sampling(top_k=40), logits, 200)) == {3, size // 2, size - 1}


def test_top_p_leaves_the_fewest_that_hold_the_mass() -> None:
    logits = np.log(np.array([0.1, 0.2, 0.3, 0.4], np.float32))
    assert set(shares(Sampling(top_p=0.65), logits)) == {2, 3}
    assert set(shares(Sampling(top_p=0.75), logits)) == {1, 2, 3}


def test_min_p_leaves_those_likely_enough_beside_the_best() -> None:
    logits = np.log(np.array([0.05, 0.15, 0.3, 0.5], np.float32))
    assert set(shares(Sampling(min_p=0.5), logits)) == {2, 3}


def test_typical_drops_the_all_too_obvious() -> None:
    logits = np.log(np.array([0.4, *[0.03] * 20], np.float32))
    assert 0 not in shares(Sampling(typical_p=0.4), logits)


@pytest.mark.parametrize(
    "extreme", [Sampling(top_p=0.0), Sampling(min_p=1.0), Sampling(typical_p=0.0)]
)
def test_at_least_one_token_is_left(extreme: Sampling) -> None:
    assert choose(row(0, 1, 5, 1), extreme, drawing(0.999999)) == 2


def test_truncation_comes_before_temperature() -> None:
    logits = np.log(np.array([0.01, 0.04, 0.95], np.float32))
    assert set(shares(Sampling(temperature=2.0, min_p=0.1), logits)) == {2}


@given(
    logits=st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=40),
    draw=st.floats(0, 1, exclude_max=True),
    top_k=st.integers(0, 50),
    top_p=st.floats(0, 1),
    min_p=st.floats(0, 1),
    temperature=st.floats(0.01, 2),
)
def test_whatever_the_options_the_choice_is_one_of_the_kept(
    logits: list[float], draw: float, top_k: int, top_p: float, min_p: float, temperature: float
) -> None:
    options = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    values = row(*logits)
    chosen = choose(values, options, drawing(draw))
    assert 0 <= chosen < values.size
    if top_k:
        assert np.sum(values > values[chosen]) < top_k
    if min_p:
        assert math.exp(values[chosen] - values.max()) >= min_p * 0.999


def test_a_penalty_demotes_a_recent_token_and_promotes_one_beyond_the_candidates() -> None:
    logits = lumpy(151_936)
    best = int(logits.argmax())
    bulk = int(logits.argmin())
    repeated = sampler(replace(GREEDY, presence_penalty=2.0, repeat_penalty=10.0), logits, [best])
    assert repeated.sample(0) != best
    promoted = sampler(replace(GREEDY, logit_bias={bulk: 100.0}), logits)
    assert promoted.sample(0) == bulk


def test_penalties_follow_llama_cpp() -> None:
    options = Sampling(
        temperature=0, repeat_penalty=2.0, frequency_penalty=0.5, presence_penalty=0.25
    )
    # Token 0, seen twice: 4 / 2 - 2 * 0.5 - 0.25 = 0.75; token 1, unseen: 0.8.
    assert sampler(options, row(4.0, 0.8, -9), [0, 0]).sample(0) == 1
    assert sampler(options, row(4.0, 0.7, -9), [0, 0]).sample(0) == 0
    # Below zero the repeat penalty multiplies: -1 * 2 - 0.5 - 0.25 = -2.75.
    assert sampler(options, row(-1.0, -2.7), [0]).sample(0) == 1
    assert sampler(options, row(-1.0, -2.8), [0]).sample(0) == 0


def test_the_window_forgets() -> None:
    options = replace(GREEDY, frequency_penalty=2.0, repeat_last_n=1)
    one = sampler(options, row(1.0, 0.0), [1, 0])
    assert [one.sample(0) for _ in range(4)] == [1, 0, 1, 0]


def test_sampling_leaves_the_row_as_it_was() -> None:
    logits = lumpy(1000)
    before = logits.copy()
    options = Sampling(seed=1, repeat_penalty=1.3, logit_bias={3: 5.0})
    sampler(options, logits, [3, 4], suppressed=[5]).sample(0)
    assert np.array_equal(logits, before)


def test_suppressed_tokens_are_never_chosen_even_with_a_bias() -> None:
    one = sampler(replace(GREEDY, logit_bias={1: 100.0}), row(0, 1, 0.5), suppressed=[1])
    assert one.sample(0) == 2


def test_a_seed_repeats_and_no_seed_does_not() -> None:
    logits = np.zeros(1000, np.float32)

    def first_ten(seed: int | None) -> list[int]:
        one = sampler(Sampling(seed=seed), logits)
        return [one.sample(0) for _ in range(10)]

    assert first_ten(2**64 - 1) == first_ten(2**64 - 1)
    assert first_ten(None) != first_ten(None)


def test_a_bias_on_an_unknown_token_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="names token 4; the model has tokens 0 to 3"):
        sampler(Sampling(logit_bias={4: 1.0}), row(0, 0, 0, 0))


@pytest.mark.parametrize("top_k", [0, 2])
@pytest.mark.parametrize("size", [4, 6000])
def test_a_temperature_next_to_zero_is_greedy(top_k: int, size: int) -> None:
    logits = np.full(size, -5.0, np.float32)
    logits[[2, 3]] = 4.0, 4.5
    for draw in (0.0, 0.5, 0.999999):
        assert choose(logits, Sampling(temperature=1e-300, top_k=top_k), drawing(draw)) == 3


@pytest.mark.parametrize("size", [3, 200, 5000, 60_000])
def test_a_draw_at_either_end_finds_a_token_that_has_some_probability(size: int) -> None:
    logits = np.full(size, -np.inf, np.float32)
    logits[[1, size // 2]] = 0.0
    for temperature in (0.01, 1.0, 2.0):
        options = Sampling(temperature=temperature)
        assert choose(logits, options, drawing(0.0)) == 1
        assert choose(logits, options, drawing(math.nextafter(1, 0))) == size // 2


@pytest.mark.parametrize("spread", [0.1, 1.0, 3.0], ids=lambda s: f"spread {s}")
def test_even_where_the_rest_holds_much_the_shares_are_right(spread: float) -> None:
    rng = np.random.default_rng(3)
    logits = (rng.normal(0, spread, 20_000)).astype(np.float32)
    logits[7] = logits.max() + 2
    expected = softmax(logits)
    found = shares(Sampling(), logits, draws=400)
    assert found.get(7, 0.0) == pytest.approx(expected[7], abs=3e-3)
    is_low = expected < np.median(expected)
    mass = sum(share for token, share in found.items() if is_low[token])
    assert mass == pytest.approx(expected[is_low].sum(), abs=4e-2)


def test_a_closed_sampler_refuses() -> None:
    one = sampler(GREEDY, row(1.0))
    one.close()
    with pytest.raises(RunnerError, match="closed"):
        one.sample(0)


USUAL = {
    "temperature 1": Sampling(),
    "cold": Sampling(temperature=0.2),
    "temperature 0.7": Sampling(temperature=0.7),
    "top-k": Sampling(top_k=40),
    "top-p": Sampling(top_p=0.9),
    "min-p": Sampling(min_p=0.1),
    "llama-server's": Sampling(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05),
}


@pytest.mark.parametrize("sampling", USUAL.values(), ids=USUAL.keys())
@pytest.mark.parametrize("size", [3, 1000, 20_003])
@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_logits_that_are_not_numbers_are_an_error(
    broken: float, size: int, sampling: Sampling
) -> None:
    for place in (0, size // 2, size - 1):
        logits = np.zeros(size, np.float32)
        logits[place] = broken
        with pytest.raises(RunnerError, match="not numbers"):
            choose(logits, sampling, drawing(0.5))


@pytest.mark.parametrize("sampling", USUAL.values(), ids=USUAL.keys())
@pytest.mark.parametrize("size", [3, 1000, 20_003])
def test_a_row_without_any_possible_token_is_an_error(size: int, sampling: Sampling) -> None:
    with pytest.raises(RunnerError, match="not numbers"):
        choose(np.full(size, -np.inf, np.float32), sampling, drawing(0.5))


@given(
    size=st.sampled_from([1, 5, 63, 64, 65, 1000, 9000, 20_003]),
    level=st.floats(-200, 200),
    spread=st.sampled_from([0.0, 0.1, 0.6, 3.0, 10.0]),
    share=st.sampled_from([0.0, 0.5, 0.99]),
    temperature=st.sampled_from([0.05, 0.3, 0.7, 1.0, 1.7]),
    draw=st.floats(0, 1, exclude_max=True),
    seed=st.integers(0, 100),
)
def test_a_draw_from_the_whole_row_falls_where_it_does_in_double_precision(
    *,
    size: int,
    level: float,
    spread: float,
    share: float,
    temperature: float,
    draw: float,
    seed: int,
) -> None:
    """At any height, with any `share` of the tokens impossible; the tokens lie in a row by id."""
    rng = np.random.default_rng(seed)
    logits = (level + rng.normal(0, spread, size)).astype(np.float32)
    logits[rng.random(size) < share] = -np.inf
    logits[rng.integers(size)] = level
    chances = softmax(logits, temperature)
    chosen = choose(logits, Sampling(temperature=temperature), drawing(draw))
    end = float(chances[: chosen + 1].sum())
    assert chances[chosen] > 0
    assert end - chances[chosen] - 1e-4 <= draw <= end + 1e-4


@pytest.mark.parametrize("size", [2000, 20_003])
@pytest.mark.parametrize("top_p", [0.1, 0.9, 0.9999])
@pytest.mark.parametrize("step", [0.0, 0.25], ids=["many values", "few values"])
def test_a_nucleus_of_thousands_is_the_fewest_that_hold_the_share(
    size: int, top_p: float, step: float
) -> None:
    """Of equally likely tokens the first stay."""
    logits = np.random.default_rng(5).normal(0, 0.6, size).astype(np.float32)
    if step:
        logits = np.round(logits / np.float32(step)) * np.float32(step)
    chances = softmax(logits)
    order = np.argsort(-logits, kind="stable")
    count = int(np.searchsorted(chances[order].cumsum(), top_p)) + 1
    kept = np.sort(order[:count])
    ends = np.cumsum(chances[kept] / chances[kept].sum())
    for draw in np.linspace(0.0, 0.999999, 40):
        chosen = choose(logits, Sampling(top_p=top_p), drawing(draw))
        place = int(np.searchsorted(kept, chosen))
        assert abs(place - int(np.searchsorted(ends, draw, side="right"))) <= 1
        assert place < kept.size
        assert kept[place] == chosen or step == 0.0


@given(
    levels=st.lists(st.integers(-3, 3), min_size=1, max_size=8),
    bias=st.dictionaries(st.integers(0, 7), st.sampled_from([-100.0, -1.0, 0.0, 1.0]), max_size=4),
    suppressed=st.sets(st.integers(0, 7), max_size=3),
)
def test_greedy_takes_the_best_token_of_the_row_with_its_bias(
    levels: list[int], bias: dict[int, float], suppressed: set[int]
) -> None:
    logits = row(*levels)
    bias = {token: value for token, value in bias.items() if token < logits.size}
    never = [token for token in sorted(suppressed) if token < logits.size]
    expected = logits.copy()
    for token, value in bias.items():
        expected[token] += np.float32(value)
    expected[never] = -np.inf
    one = sampler(replace(GREEDY, logit_bias=bias), logits, suppressed=never)
    assert one.sample(0) == int(expected.argmax())
    assert logits.tolist() == levels


@pytest.mark.parametrize("sampling", USUAL.values(), ids=USUAL.keys())
def test_what_is_chosen_for_one_does_not_hang_on_who_is_beside_it(sampling: Sampling) -> None:
    rows = [lumpy(20_000, seed) for seed in range(4)]
    flat = np.zeros(20_000, np.float32)

    def chosen(*, beside: bool) -> list[int]:
        at = iter(range(100))
        held = {0: flat}
        one = RowSampler(replace(sampling, seed=3), held.__getitem__, FewTokens(20_000))
        other = sampler(replace(sampling, seed=4), flat)
        tokens = []
        for held[0] in rows:
            if beside:
                other.sample(next(at))
            tokens.append(one.sample(0))
        return tokens

    assert chosen(beside=True) == chosen(beside=False)


class Only:
    """A matcher that allows some tokens, always the same, and remembers what it was asked."""

    def __init__(self, size: int, *allowed: int) -> None:
        self.mask = np.zeros(size, np.bool_)
        self.mask[list(allowed)] = True
        self.num_masks = 0
        self.consumed: list[int] = []

    def validate(self, token_id: int) -> bool:
        return bool(self.mask[token_id])

    def allowed(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        self.num_masks += 1
        return self.mask

    def consume(self, token_id: int) -> None:
        self.consumed.append(token_id)

    def forced(self) -> list[int]:
        return []

    def fork(self) -> Matcher:
        return self


def test_a_matcher_is_asked_for_all_it_allows_only_when_it_refuses_the_free_choice() -> None:
    logits, free, strict = row(0.0, 3.0, 2.0), Only(3, 1), Only(3, 0, 2)
    held = sampler(GREEDY, logits, matcher=free)
    assert (held.sample(0), free.num_masks) == (1, 0)
    held = sampler(GREEDY, logits, matcher=strict)
    assert (held.sample(0), strict.num_masks) == (2, 1)
    held.accept(0)
    assert strict.consumed == [2, 0]


def test_what_a_matcher_leaves_keeps_its_shares() -> None:
    logits, matcher = row(0.0, 3.0, 1.0), Only(3, 0, 2)
    held = sampler(Sampling(seed=1), logits, matcher=matcher)
    counts = Counter(held.sample(0) for _ in range(4000))
    assert counts[2] / 4000 == pytest.approx(math.e / (1 + math.e), abs=0.03)


def test_a_matcher_that_allows_nothing_is_a_dead_end() -> None:
    held = sampler(GREEDY, row(0.0), matcher=Only(1))
    with pytest.raises(DeadEnd, match="no token at all"):
        held.sample(0)
