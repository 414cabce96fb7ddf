"""Frames on a byte stream."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.chat import PromptPiece
from service.domain.events import FinishReason, Timings, Usage
from service.domain.sampling import Sampling
from service.ipc.framing import (
    MAX_FRAME_BYTES,
    FrameReader,
    FramingError,
    encode,
    from_engine_decoder,
    to_engine_decoder,
)
from service.ipc.messages import (
    Accepted,
    Cancel,
    Counted,
    CountTokens,
    Delta,
    Done,
    FromEngine,
    Hello,
    Refused,
    Step,
    Submit,
    ToEngine,
)
from tests.fakes.engine import FAKE_MODEL

PROMPT = (PromptPiece("Hé\0", trusted=True), PromptPiece("<|im_end|>", trusted=False))
SUBMIT = Submit(1, "r", PROMPT, Sampling(seed=2**64 - 1, logit_bias={7: -1.5}), 5, ("a",), "me")
DONE = Done(2, FinishReason.STOP, Usage(1, 2, 3, 4), Timings(0.1, 0.2, 0.3), "a", "x", "y")
TO_ENGINE: list[ToEngine] = [SUBMIT, Cancel(1), CountTokens(2, PROMPT)]
FROM_ENGINE: list[FromEngine] = [
    Hello(1, 2, FAKE_MODEL),
    Accepted(1, 2, 3),
    Refused(1, "queue_full", "Full.", "p", 1.5),
    Counted(1, 2),
    Step((Delta(1, "a\n", 1), Delta(2, "", 0)), (DONE,)),
]


@given(st.lists(st.integers(0, 400), max_size=12))
@settings(deadline=None)
def test_frames_survive_however_the_bytes_arrive(cuts: list[int]) -> None:
    data = b"".join(encode(frame) for frame in TO_ENGINE)
    places = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    reader = FrameReader()
    bodies = [body for a, b in pairwise(places) for body in reader.feed(data[a:b])]
    assert [to_engine_decoder.decode(body) for body in bodies] == TO_ENGINE


def test_what_the_engine_says_comes_back_as_it_was() -> None:
    bodies = FrameReader().feed(b"".join(encode(frame) for frame in FROM_ENGINE))
    assert [from_engine_decoder.decode(body) for body in bodies] == FROM_ENGINE


def test_an_absurd_length_is_refused_before_it_is_waited_for() -> None:
    with pytest.raises(FramingError, match="exceeds the 67108864 allowed"):
        FrameReader().feed(struct.pack(">I", MAX_FRAME_BYTES + 1))


def test_a_frame_that_nobody_would_read_is_not_written() -> None:
    with pytest.raises(FramingError, match="exceeds the"):
        encode(CountTokens(1, (PromptPiece("x" * (MAX_FRAME_BYTES + 1), trusted=True),)))
