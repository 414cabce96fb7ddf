from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.cost import MIN_CHUNK, CostModel, LinearCost


@given(st.floats(0, 0.1), st.floats(1e-4, 0.1), st.integers(0, 10_000))
def test_a_line_is_found_again(base: float, per_row: float, seed: int) -> None:
    cost = LinearCost()
    for i in range(60):
        rows = 1 + (seed + i * 7) % 8
        cost.observe(rows, base + per_row * rows)
    assert cost.seconds(5) == pytest.approx(base + 5 * per_row, rel=0.05)


def test_calls_of_one_size_are_taken_as_proportional() -> None:
    cost = LinearCost()
    for _ in range(10):
        cost.observe(4, 0.04)
    assert cost.base == 0.0
    assert cost.per_row == pytest.approx(0.01)


def test_one_absurd_call_does_not_spoil_the_estimate() -> None:
    cost = LinearCost()
    for i in range(50):
        cost.observe(1 + i % 4, 0.01 * (1 + i % 4))
    cost.observe(2, 60.0)
    assert cost.seconds(2) < 0.04


def test_the_estimate_follows_a_machine_that_slows_down() -> None:
    cost = LinearCost()
    for i in range(50):
        cost.observe(1 + i % 4, 0.01 * (1 + i % 4))
    for i in range(150):
        cost.observe(1 + i % 4, 0.02 * (1 + i % 4))
    assert cost.seconds(2) == pytest.approx(0.04, rel=0.1)


def model(decode: float = 0.02, prefill: float = 0.002) -> CostModel:
    costs = CostModel(inter_token_target=0.25, max_batch_tokens=512)
    for i in range(40):
        costs.decode.observe(1 + i % 4, decode)
        costs.prefill.observe(64 + 64 * (i % 4), prefill * (64 + 64 * (i % 4)))
    return costs


def test_a_prompt_takes_the_whole_batch_while_nobody_is_answered() -> None:
    assert model().chunk(num_decoding=0) == 512


def test_a_prompt_takes_what_fits_between_two_tokens_of_a_running_stream() -> None:
    costs = model(decode=0.02, prefill=0.002)
    # (0.25 - 0.02) / 0.002 = 115, in steps of 31
    assert costs.chunk(num_decoding=3) == 3 * MIN_CHUNK
    assert 0.02 + costs.prefill.seconds(3 * MIN_CHUNK) <= 0.25


def test_a_prompt_gets_on_even_where_decoding_alone_misses_the_target() -> None:
    assert model(decode=1.0, prefill=0.1).chunk(num_decoding=3) == MIN_CHUNK


def test_an_unknown_machine_gets_a_careful_chunk() -> None:
    assert CostModel(0.25, 512).chunk(num_decoding=1) == 4 * MIN_CHUNK


def test_padding_pays_where_rows_cost_little_and_calls_much() -> None:
    def padding_pays(base: float, per_row: float) -> bool:
        costs = CostModel(0.25, 512)
        for i in range(40):
            costs.decode.observe(1 + i % 4, base + per_row * (1 + i % 4))
        return costs.padding_pays(2)

    assert padding_pays(base=0.010, per_row=0.0001)
    assert not padding_pays(base=0.002, per_row=0.01)
    assert not CostModel(0.25, 512).padding_pays(1)


def test_what_a_split_really_costs_is_learned_from_those_that_happen() -> None:
    costs = CostModel(0.25, 512)
    for i in range(40):
        costs.decoded(1 + i % 4, 1, 0.002 + 0.001 * (1 + i % 4))
    assert not costs.padding_pays(3)
    for _ in range(40):
        costs.decoded(2, 2, 0.010)  # 4 ms for the rows, 6 ms for the hole between them
    assert costs.split_seconds == pytest.approx(0.006, rel=0.1)
    assert costs.padding_pays(3)
    assert not costs.padding_pays(8)
    assert costs.decode.seconds(2) == pytest.approx(0.004, rel=0.1)


def test_the_time_to_come_back_grows_with_the_line_and_shrinks_with_slots() -> None:
    costs = model()
    for _ in range(8):
        costs.held(10.0)
    assert costs.seconds_until_slot(num_waiting=7, num_slots=4) == pytest.approx(20.0)
    assert costs.seconds_until_slot(num_waiting=7, num_slots=8) == pytest.approx(10.0)
    assert CostModel(0.25, 512).seconds_until_slot(0, 4) == 1.0
