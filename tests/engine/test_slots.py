from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.engine.kv.parking import Parked, Parking
from service.engine.kv.prefix import Prefix
from service.engine.kv.slots import Placement, Slot, Slots

LONG = list(range(1000, 1400))


def slots(num_slots: int = 4, slot_length: int = 1024) -> Slots:
    return Slots(num_slots, slot_length)


def fill(lanes: Slots, index: int, token_ids: list[int], key: str = "", busy: bool = False) -> Slot:
    """As if a conversation had just ended there, or still ran."""
    slot = lanes[index]
    slot.read(token_ids)
    slot.cache_key = key
    lanes.release(slot)
    slot.busy = busy
    return slot


def place(lanes: Slots, token_ids: list[int], key: str = "", split: float = 0.0) -> Placement:
    placement = lanes.place(token_ids, key, split)
    assert placement is not None
    return placement


def facts(placement: Placement) -> tuple[int, int, int]:
    return placement.slot.index, placement.source.index, placement.length


def test_a_follow_up_goes_to_the_slot_that_holds_its_prefix() -> None:
    lanes = slots()
    fill(lanes, 2, LONG)
    fill(lanes, 0, [7] * 50)
    assert facts(place(lanes, [*LONG, 1, 2, 3])) == (2, 2, 400)


def test_the_last_token_of_a_prompt_is_always_read_again() -> None:
    lanes = slots()
    fill(lanes, 0, LONG)
    assert facts(place(lanes, LONG)) == (0, 0, 399)


def test_a_slot_of_another_key_is_never_reused() -> None:
    lanes = slots(num_slots=1)
    fill(lanes, 0, LONG, key="alice")
    assert facts(place(lanes, [*LONG, 1], key="bob")) == (0, 0, 0)


def test_a_long_conversation_is_not_cut_for_a_short_common_beginning() -> None:
    lanes = slots()
    fill(lanes, 0, [*LONG[:20], *range(700)])
    chosen = place(lanes, [*LONG[:20], *range(5000, 5100)])
    assert (chosen.slot.index, chosen.source.index, chosen.length) == (1, 0, 20)


def test_a_common_beginning_is_forked_from_a_slot_that_is_busy() -> None:
    lanes = slots()
    fill(lanes, 0, LONG, busy=True)
    assert facts(place(lanes, [*LONG[:300], 5, 6])) == (1, 0, 300)


def test_a_few_common_tokens_are_not_worth_a_fork() -> None:
    lanes = slots()
    fill(lanes, 0, LONG, busy=True)
    assert facts(place(lanes, [*LONG[:4], 5, 6])) == (1, 1, 0)


def test_an_answer_that_is_rendered_a_little_differently_does_not_take_a_second_slot() -> None:
    lanes = slots()
    fill(lanes, 0, [*LONG, 9, 9, 9, 9, 9])
    assert facts(place(lanes, [*LONG, 8, 8, 8, 8, 1, 2])) == (0, 0, 400)


def test_an_empty_slot_is_taken_before_a_full_one() -> None:
    lanes = slots()
    fill(lanes, 0, LONG)
    assert place(lanes, [1, 2, 3]).slot.index == 1


def test_the_slot_that_was_unused_longest_is_given_up_first() -> None:
    lanes = slots()
    for index in (2, 0, 3, 1):
        fill(lanes, index, [index + 10] * 300)
    assert place(lanes, [1, 2, 3]).slot.index == 2


def test_there_is_no_place_while_all_slots_are_busy() -> None:
    lanes = slots(num_slots=2)
    for index in (0, 1):
        fill(lanes, index, [index + 10] * 3, busy=True)
    assert lanes.place([1, 2, 3], "") is None


def test_equal_slots_are_taken_next_to_the_busy_ones() -> None:
    lanes = slots(num_slots=8)
    fill(lanes, 4, [9] * 5, busy=True)
    assert place(lanes, [1, 2, 3]).slot.index in (3, 5)


def test_a_hole_is_filled_before_the_run_grows() -> None:
    lanes = slots(num_slots=6)
    for index in (0, 1, 3):
        fill(lanes, index, [index + 10] * 5, busy=True)
    assert place(lanes, [1, 2, 3], split=100).slot.index == 2


def test_a_conversation_moves_next_to_the_others_where_a_split_costs_more_than_a_copy() -> None:
    lanes = slots(num_slots=6)
    fill(lanes, 0, [9] * 5, busy=True)
    fill(lanes, 5, LONG)
    assert facts(place(lanes, [*LONG, 1, 2], split=0)) == (5, 5, 400)
    assert facts(place(lanes, [*LONG, 1, 2], split=100)) == (1, 5, 400)


def test_what_is_parked_is_fetched_where_no_slot_has_as_much() -> None:
    parking = Parking(10**6, lambda key: f"tag of {key}", lambda _: None)
    tokens = np.array(LONG, np.int32)
    parked = Parked(Prefix(tokens, "tag of me"), np.zeros(9, np.uint8), seconds=1.0)
    parking.put(parked)
    lanes = Slots(2, 1024, parking)
    fill(lanes, 0, LONG[:300], key="me")
    placement = place(lanes, [*LONG, 1], key="me")
    assert (placement.parked, placement.length) == (parked, 400)
    fill(lanes, 1, LONG, key="me")
    assert place(lanes, [*LONG, 1], key="me").parked is None
    assert place(lanes, [*LONG, 1], key="you").length == 0


def test_under_another_key_a_declared_beginning_is_reused_whole_or_not_at_all() -> None:
    lanes = slots()
    fill(lanes, 0, LONG, key="alice").num_shared = 100
    for num_shared, expected in ((100, 100), (99, 0), (101, 0), (0, 0)):
        placement = lanes.place([*LONG, 1], "bob", num_shared=num_shared)
        assert placement is not None
        assert placement.length == expected
    placement = lanes.place([*LONG[:99], 7, 8, 9], "bob", num_shared=100)
    assert placement is not None
    assert placement.length == 0


@given(
    st.lists(st.lists(st.integers(1, 3), max_size=12), min_size=1, max_size=5),
    st.lists(st.integers(1, 3), min_size=1, max_size=12),
    st.data(),
)
def test_a_placement_promises_only_what_is_there(
    held: list[list[int]], prompt: list[int], data: st.DataObject
) -> None:
    lanes = slots(num_slots=len(held), slot_length=16)
    keys = st.sampled_from(["a", "b"])
    for index, token_ids in enumerate(held):
        fill(lanes, index, token_ids, key=data.draw(keys), busy=data.draw(st.booleans()))
    key = data.draw(keys)
    placement = lanes.place(prompt, key, data.draw(st.floats(0, 50)))
    if placement is None:
        assert all(slot.busy for slot in lanes)
        return
    source, length = placement.source, placement.length
    assert not placement.slot.busy
    assert length < len(prompt)
    assert list(source.tokens[:length]) == prompt[:length]
    assert length == 0 or source.cache_key == key
