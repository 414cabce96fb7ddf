"""Secrets: random, recognisable, and never kept."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.auth.secrets import digest_of, is_well_formed, new_secret, prefix_of

SECRET = new_secret()


def test_a_secret_is_256_bits_that_nobody_has_seen() -> None:
    made = {new_secret() for _ in range(200)}
    assert len(made) == 200
    for secret in made:
        assert is_well_formed(secret)
        assert secret.startswith("parley_")
        assert len(secret) == len("parley_") + 43 + 6
        assert set(secret.removeprefix("parley_")) <= set(string.ascii_letters + string.digits)
    assert 62**43 >= 2**256


@given(st.integers(0, len(SECRET) - 1), st.sampled_from(string.ascii_letters + string.digits))
def test_one_wrong_character_shows_without_looking_anything_up(at: int, letter: str) -> None:
    typed = SECRET[:at] + letter + SECRET[at + 1 :]
    assert is_well_formed(typed) is (typed == SECRET)


@given(st.integers(0, len(SECRET) - 2))
def test_so_do_two_that_were_swapped(at: int) -> None:
    typed = SECRET[:at] + SECRET[at + 1] + SECRET[at] + SECRET[at + 2 :]
    assert is_well_formed(typed) is (typed == SECRET)


@pytest.mark.parametrize("cut", [0, 6, 7, 20, len(SECRET) - 1])
def test_a_part_of_one_is_none(cut: int) -> None:
    assert not is_well_formed(SECRET[:cut])


@given(st.text())
def test_anything_else_is_none(text: str) -> None:
    assert not is_well_formed(text)
    assert not is_well_formed(SECRET + text) or not text


def test_what_is_kept_and_shown_does_not_give_it_away() -> None:
    assert SECRET not in digest_of(SECRET)
    assert len(digest_of(SECRET)) == 64
    assert prefix_of(SECRET) == SECRET[:13]
