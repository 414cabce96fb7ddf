"""The bytes of all tokens, close together: no token loses any of them, or gets another's."""

from __future__ import annotations

import random

import pytest

from service.engine.spellings import Spellings


def test_each_token_has_its_own_bytes_and_none_is_none() -> None:
    rng = random.Random(5)
    texts = [b"", *(rng.randbytes(rng.randrange(9)) for _ in range(10_000)), b""]
    spellings = Spellings(iter(texts))
    assert len(spellings) == len(texts)
    assert [*spellings] == texts
    assert [spellings.of(token_id) for token_id in range(len(texts))] == texts
    assert spellings.longest == 8


@pytest.mark.parametrize(
    ("byte", "found"),
    [(b">", [1, 4]), (b"a", [0, 6]), (b"z", []), (b"\n", [6])],
)
def test_the_tokens_that_hold_a_byte_are_found_with_bare_ones_between_them(
    byte: bytes, found: list[int]
) -> None:
    assert Spellings([b"aa", b">>", b"", b"", b"b>", b"", b"a\n"]).holding(byte) == found


def test_a_vocabulary_of_nothing_has_no_longest_token() -> None:
    assert Spellings([]).longest == 0
    assert Spellings([b""]).holding(b"a") == []
