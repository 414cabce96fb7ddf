"""Whose input is read next."""

from __future__ import annotations

from service.engine.embedding.turns import Asked, Turn, Turns


def asked(number: int, *lengths: int, by: str = "") -> Asked:
    return Asked((1, number), by, [[0] * length for length in lengths])


def shown(turns: list[Turn]) -> list[tuple[int, int, int]]:
    return [(turn.asked.key[1], turn.start, turn.stop) for turn in turns]


def test_inputs_are_packed_until_the_call_is_full() -> None:
    turns = Turns()
    turns.add(asked(1, 4, 4, 4))
    turns.add(asked(2, 4))
    assert shown(turns.take(10, max_inputs=8)) == [(1, 0, 2)]
    assert shown(turns.take(10, max_inputs=8)) == [(1, 2, 3), (2, 0, 1)]
    assert not turns


def test_a_call_has_no_more_inputs_than_it_may() -> None:
    turns = Turns()
    turns.add(asked(1, 1, 1, 1))
    assert shown(turns.take(100, max_inputs=2)) == [(1, 0, 2)]
    assert shown(turns.take(100, max_inputs=2)) == [(1, 2, 3)]


def test_an_input_that_is_longer_than_a_call_should_be_is_a_call_of_its_own() -> None:
    turns = Turns()
    turns.add(asked(1, 50, 1))
    assert shown(turns.take(10, max_inputs=8)) == [(1, 0, 1)]
    assert shown(turns.take(10, max_inputs=8)) == [(1, 1, 2)]


def test_a_thousand_inputs_of_one_delay_the_single_input_of_another_by_one_call() -> None:
    turns = Turns()
    turns.add(asked(1, *[5] * 1000, by="many"))
    turns.take(10, max_inputs=8)
    turns.add(asked(2, 5, by="one"))
    assert shown(turns.take(10, max_inputs=8)) == [(1, 2, 3), (2, 0, 1)]


def test_who_was_away_does_not_come_back_with_a_claim() -> None:
    turns = Turns()
    turns.add(asked(1, *[5] * 100, by="steady"))
    for _ in range(10):
        turns.take(10, max_inputs=8)
    turns.add(asked(2, *[5] * 100, by="new"))
    taken = [shown(turns.take(10, max_inputs=8)) for _ in range(4)]
    assert all({number for number, _, _ in call} == {1, 2} for call in taken)


def test_what_nobody_wants_any_more_is_forgotten() -> None:
    turns = Turns()
    turns.add(asked(1, 5, 5))
    turns.add(asked(2, 5, by="other"))
    turns.take(5, max_inputs=1)
    turns.keep(lambda key: key == (1, 2))
    assert turns.num_tokens_waiting == 5
    assert shown(turns.take(100, max_inputs=8)) == [(2, 0, 1)]
    assert turns.num_tokens_waiting == 0


def test_a_turn_that_came_to_nothing_is_the_next_one_again() -> None:
    turns = Turns()
    turns.add(asked(1, 5))
    turns.add(asked(2, 5))
    (turn,) = turns.take(5, max_inputs=1)
    turns.put_back(turn)
    assert turns.num_tokens_waiting == 10
    assert shown(turns.take(100, max_inputs=8)) == [(1, 0, 1), (2, 0, 1)]
