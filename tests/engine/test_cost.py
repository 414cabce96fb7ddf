from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.order.cost import SMALL_CALL_ROWS, CallCost, CostModel


@given(st.floats(0, 0.1), st.floats(1e-4, 0.1), st.integers(0, 10_000))
def test_a_line_is_found_again(base: float, per_row: float, seed: int) -> None:
    cost = CallCost()
    for i in range(60):
        rows = 1 + (seed + i * 7) % 8
        cost.observe(rows, base + per_row * rows)
    assert cost.seconds(5) == pytest.approx(base + 5 * per_row, rel=0.05)


def test_between_two_sizes_that_were_seen_the_cost_is_on_the_line_between_them() -> None:
    cost = CallCost()
    cost.observe(8, 0.1)
    cost.observe(16, 0.2)
    assert cost.seconds(12) == pytest.approx(0.15)
    assert cost.seconds(32) == pytest.approx(0.4)


def test_a_smaller_call_than_any_seen_is_cheaper_but_not_in_proportion() -> None:
    cost = CallCost()
    cost.observe(31, 0.25)
    assert 0.25 * 4 / 31 < cost.seconds(4) < 0.25


def test_one_absurd_call_does_not_spoil_the_estimate() -> None:
    cost = CallCost()
    for i in range(50):
        cost.observe(1 + i % 4, 0.01 * (1 + i % 4))
    cost.observe(2, 60.0)
    assert cost.seconds(2) < 0.023


def test_a_first_call_that_was_an_accident_is_forgotten() -> None:
    cost = CallCost()
    cost.observe(31, 2.5)
    for _ in range(20):
        cost.observe(31, 0.25)
    assert cost.seconds(31) < 0.3


def test_the_estimate_follows_a_machine_that_slows_down() -> None:
    cost = CallCost()
    for factor in (1, 2):
        for i in range(100):
            cost.observe(1 + i % 4, factor * 0.01 * (1 + i % 4))
    assert cost.seconds(2) == pytest.approx(0.04, rel=0.1)


def test_a_size_that_was_last_seen_in_a_bad_moment_recovers_with_the_others() -> None:
    cost = CallCost()
    for i in range(40):
        cost.observe(8 + 8 * (i % 2), 0.01 * (1 + i % 2))
    for _ in range(40):
        cost.observe(16, 0.06)
    for _ in range(40):
        cost.observe(8, 0.01)
    assert cost.seconds(16) < 0.04


@given(st.integers(0, 1000))
def test_noise_never_makes_a_chunk_that_is_much_too_long(seed: int) -> None:
    """Calls take up to three times as long as they should; the true cost is 30 + 8 ms per row."""
    source = random.Random(seed)
    costs = CostModel(inter_token_target=0.25, max_batch_tokens=512)
    rows = 31
    for _ in range(60):
        noise = source.choice([1.0, 1.0, 1.1, 1.5, 3.0])
        costs.decoded(1, 1, 0.04 * noise)
        costs.read(rows, 0, (0.03 + 0.008 * rows) * source.choice([1.0, 1.0, 1.2, 3.0]))
        rows = costs.rows_beside(1, 0)
        assert 1 <= rows <= 64


def model(decode: float = 0.02, prefill: float = 0.002) -> CostModel:
    costs = CostModel(inter_token_target=0.25, max_batch_tokens=512)
    for i in range(40):
        costs.decoded(1 + i % 4, 1, decode)
        costs.read(16 + 16 * (i % 4), 0, prefill * (16 + 16 * (i % 4)))
    return costs


def test_a_prompt_takes_short_calls_while_nobody_is_answered() -> None:
    assert model(prefill=0.002).rows_alone(1000, 0) == 200
    assert model(prefill=0.0001).rows_alone(1000, 0) == 512
    assert model(prefill=0.1).rows_alone(1000, 0) == SMALL_CALL_ROWS


def test_a_prompt_takes_what_fits_between_two_tokens_of_a_running_stream() -> None:
    costs = model(decode=0.02, prefill=0.002)
    assert costs.gap(3) == pytest.approx(3.5 * 0.02)
    rows = costs.rows_beside(3, 0)
    assert 20 <= rows <= 25
    assert 0.02 + costs.call_seconds(rows, 0) <= costs.gap(3)


def test_a_gap_stays_within_the_target_unless_two_steps_are_longer() -> None:
    assert model(decode=0.1).gap(3) == pytest.approx(0.25)
    assert model(decode=0.2).gap(3) == pytest.approx(0.4)


def test_a_gap_that_nobody_notices_needs_no_saving() -> None:
    assert model(decode=0.001).gap(3) == pytest.approx(0.03)


def test_a_reader_that_is_owed_may_take_three_and_a_half_steps_whatever_the_target() -> None:
    assert model(decode=0.2).gap(3, owed=True) == pytest.approx(0.7)


def test_a_prompt_gets_on_even_where_one_token_is_over_the_target() -> None:
    assert model(decode=1.0, prefill=10.0).rows_beside(3, 0) == 1


def test_an_unknown_machine_gets_a_careful_chunk() -> None:
    assert CostModel(0.25, 512).rows_beside(1, 0) <= 16
    assert CostModel(0.25, 512).rows_alone(1000, 0) == SMALL_CALL_ROWS


def test_far_into_a_prompt_the_same_rows_cost_more_and_chunks_are_smaller() -> None:
    costs = model(decode=0.04, prefill=0.004)
    for start in (600, 1000, 2000, 3000) * 10:
        costs.read(16, start, 0.064 + 7e-6 * 16 * start)
    assert costs.few_at_position.per_position == pytest.approx(7e-6, rel=0.1)
    near, far = costs.rows_beside(1, 0), costs.rows_beside(1, 3000)
    assert far < near / 3
    assert 0.04 + costs.call_seconds(far, 3000) <= costs.gap(1)


def test_attention_of_many_rows_is_another_matter_than_that_of_few() -> None:
    costs = model(decode=0.04, prefill=0.004)
    for start in (600, 1000, 2000, 3000) * 10:
        costs.read(16, start, 0.064 + 6e-6 * 16 * start)
    assert costs.call_seconds(128, 2000) == pytest.approx(0.512 + 6e-6 * 128 * 2064, rel=0.2)
    for start in (600, 1000, 2000, 3000) * 10:
        costs.read(128, start, 0.512 + 1e-6 * 128 * start)
    assert costs.call_seconds(128, 2000) == pytest.approx(0.512 + 1e-6 * 128 * 2064, rel=0.1)
    assert costs.call_seconds(16, 2000) == pytest.approx(0.064 + 6e-6 * 16 * 2008, rel=0.1)


def bulk() -> CostModel:
    """Small calls: 8 ms a row. From 140 rows on, BLAS: 1 s and 4 ms a row."""
    costs = CostModel(0.25, 512, bulk_rows=140)
    for _ in range(20):
        costs.decoded(1, 1, 0.04)
        costs.read(31, 0, 0.25)
    return costs


def test_a_long_prompt_is_read_in_bulk_and_a_short_one_is_not() -> None:
    costs = bulk()
    assert costs.rows_alone(4000, 0) == 512
    assert costs.rows_alone(140, 0) == 140
    for _ in range(20):
        costs.read(140, 0, 1.6)
    assert costs.rows_alone(140, 0) < 140  # but not where that was seen to be slower


def test_a_short_prompt_is_read_in_one_call_and_a_long_one_in_calls_of_a_moment() -> None:
    costs = CostModel(0.25, 512)
    for rows in (16, 31) * 20:
        costs.read(rows, 0, 0.03 + 0.008 * rows)
    assert costs.rows_alone(130, 0) == 130
    assert costs.call_seconds(costs.rows_alone(130, 0, whole=False), 0) < 0.5
    assert costs.call_seconds(costs.rows_alone(4000, 0), 0) < 0.5


def test_a_larger_call_than_any_seen_costs_what_its_rows_add() -> None:
    cost = CallCost()
    for rows in (8, 31) * 20:
        cost.observe(rows, 0.05 + 0.008 * rows)
    assert cost.seconds(128) == pytest.approx(0.05 + 0.008 * 128, rel=0.02)


def test_beside_a_running_stream_nothing_is_read_in_bulk() -> None:
    costs = bulk()
    costs.inter_token_target = 2.0
    for _ in range(20):
        costs.decoded(4, 1, 0.5)
    assert costs.rows_beside(4, 0) < 140


def test_what_bulk_costs_is_taken_from_the_break_even_until_it_is_seen() -> None:
    costs = bulk()
    assert costs.call_seconds(140, 0) == pytest.approx(costs.prefill.seconds(140), rel=0.01)
    assert costs.call_seconds(512, 0) < 0.75 * costs.prefill.seconds(512)
    costs.read(512, 0, 3.0)
    assert costs.call_seconds(512, 0) == pytest.approx(3.0)
    assert costs.call_seconds(31, 0) == pytest.approx(0.25)


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
