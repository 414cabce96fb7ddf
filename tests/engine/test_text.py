from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.text import TextStream

LETTERS = "ab\nüß漢字👍🏽👩‍🚀é"
TEXTS = st.text(alphabet=LETTERS, max_size=40)
STOPS = st.lists(st.text(alphabet=LETTERS, min_size=1, max_size=4), max_size=4)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(c % (len(data) + 1) for c in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


def run(chunks: list[bytes], stops: list[str]) -> tuple[str, str | None]:
    stream = TextStream(stops)
    pieces = []
    for chunk in chunks:
        pieces.append(stream.feed(chunk))
        if stream.stopped_by is not None:
            break
    pieces.append(stream.finish())
    return "".join(pieces), stream.stopped_by


def letter_by_letter(text: str, stops: list[str]) -> tuple[str, str | None]:
    """What stop strings mean: the first moment at which the text ends with one ends it."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            longest = max(ending, key=len)
            return text[: end - len(longest)], longest
    return text, None


@given(TEXTS, STOPS, st.lists(st.integers(0, 500), max_size=12))
def test_text_does_not_depend_on_where_tokens_are_cut(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    assert run(cut(text.encode(), cuts), stops) == letter_by_letter(text, stops)


@given(st.binary(max_size=60), st.lists(st.integers(0, 500), max_size=12))
def test_invalid_bytes_become_replacement_characters_wherever_they_are_cut(
    data: bytes, cuts: list[int]
) -> None:
    assert run(cut(data, cuts), []) == (data.decode("utf-8", "replace"), None)


@given(TEXTS, STOPS, st.lists(st.integers(0, 500), max_size=12))
def test_what_was_let_out_never_contains_a_stop_string(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    out, _ = run(cut(text.encode(), cuts), stops)
    assert not any(stop in out for stop in stops)


def test_half_a_character_waits_for_its_other_half() -> None:
    stream = TextStream()
    first, second = "👍".encode()[:2], "👍".encode()[2:]
    assert (stream.feed(first), stream.feed(second)) == ("", "👍")


def test_half_a_character_at_the_end_is_a_replacement_character() -> None:
    stream = TextStream()
    assert stream.feed("a👍".encode()[:3]) == "a"
    assert stream.finish() == "\ufffd"


@pytest.mark.parametrize(
    ("chunks", "released"),
    [
        (["one STO", "P two"], ["one ", ""]),
        (["one STO", "NE two"], ["one ", "STONE two"]),
        (["aab", "aac"], ["aab", ""]),
        (["S", "S", "T", "O", "P"], ["", "S", "", "", ""]),
    ],
)
def test_only_what_may_become_a_stop_string_is_held_back(
    chunks: list[str], released: list[str]
) -> None:
    stream = TextStream(["STOP", "aac"])
    assert [stream.feed(chunk.encode()) for chunk in chunks] == released


def test_what_was_held_back_comes_out_at_the_end() -> None:
    stream = TextStream(["STOP"])
    assert (stream.feed(b"one STO"), stream.finish()) == ("one ", "STO")


def test_nothing_comes_out_behind_a_stop_string() -> None:
    stream = TextStream(["."])
    assert stream.feed(b"one. two") == "one"
    assert (stream.feed(b" three"), stream.finish(), stream.stopped_by) == ("", "", ".")
