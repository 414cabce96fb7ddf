"""Tokens that were thought are counted exactly, however they come together."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.chat.reading import Reading
from service.domain.events import ReasoningDelta, Usage
from service.engine.text import TextStream
from service.formats.stream_parser import StreamParser
from service.ipc.connection import Connection, Lane
from service.ipc.messages import Delta

ANSWERS = (
    "<think>Two and three, so 五 😀.</think>\n\nFive. 五",
    "\n<think>\n\nhm\n\n</think>Five.",
    "<think></think>",
    "<think>It never ends, it seems </thin",
    "No thought at all, <think>though it talks of one</think>.",
    "<thinner than thought",
)


def tokens_of(text: str, cuts: list[int]) -> list[bytes]:
    """The bytes of `text` in pieces, which may be half characters."""
    data = text.encode()
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(places)]


def deltas_of(tokens: list[bytes], stops: list[str]) -> list[Delta]:
    """As an engine tells of the tokens."""
    stream = TextStream(stops)
    unreported: list[int] = []
    told = 0
    deltas: list[Delta] = []

    def tell(text: str) -> None:
        nonlocal told
        if text:
            begins = () if unreported == [told] else tuple(begin - told for begin in unreported)
            deltas.append(Delta(1, text, len(unreported), (), begins))
            told += len(text)
            unreported.clear()

    for token in tokens:
        unreported.append(stream.num_decoded)
        tell(stream.feed(token))
    tell(stream.finish())
    return deltas


def merged(deltas: list[Delta], groups: list[int]) -> list[Delta]:
    """As a worker takes them that is slower than the engine."""
    lane = Lane(Connection(), 1)
    taken: list[Delta] = []
    for number, delta in enumerate(deltas):
        lane.extend(delta)
        if groups and groups[number % len(groups)] == 0:
            taken.append(lane._take())
    if lane._texts:
        taken.append(lane._take())
    return taken


def expected(text: str, tokens: list[bytes]) -> int:
    """Tokens that begin before the thought has ended."""
    if not text.lstrip().startswith("<think>"):
        return 0
    end = text.find("</think>")
    size = len(text.encode()) if end < 0 else len(text[: end + len("</think>")].encode())
    starts = [sum(map(len, tokens[:number])) for number in range(len(tokens))]
    return sum(start < size for start in starts)


@pytest.mark.parametrize("text", ANSWERS)
@given(
    cuts=st.lists(st.integers(0, 200), max_size=60),
    groups=st.lists(st.integers(0, 3), max_size=7),
    stops=st.lists(
        st.sampled_from(["</thinker>", ".\n\nx", "😀😀", "> "]), max_size=2, unique=True
    ),
)
@settings(max_examples=200)
async def test_as_many_tokens_as_begin_before_the_end_of_the_thought(
    text: str, cuts: list[int], groups: list[int], stops: list[str]
) -> None:
    tokens = tokens_of(text, cuts)
    reading = Reading(StreamParser())
    told = [d for delta in merged(deltas_of(tokens, stops), groups) for d in reading.feed(delta)]
    usage = Usage(completion_tokens=len(tokens))
    assert reading.num_thought(usage) == expected(text, tokens)
    assert reading.num_thought(usage) <= len(tokens)
    whole = StreamParser()
    parsed = [*whole.feed(text), *whole.finish()]
    thought = "".join(d.text for d in parsed if isinstance(d, ReasoningDelta))
    read = "".join(d.text for d in told if isinstance(d, ReasoningDelta))
    assert thought.startswith(read)
