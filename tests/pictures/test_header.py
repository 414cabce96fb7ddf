"""The size of a picture, by its first bytes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.pictures.header import size_of
from tests.pictures.files import jpeg_head, png, png_head

GIF = b"GIF89a" + struct.pack("<HH", 7, 5) + b"\x00\x00\x00"
BMP = b"BM" + bytes(16) + struct.pack("<ii", 7, -5)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (png(7, 5), (7, 5)),
        (png_head(60_000, 60_000), (60_000, 60_000)),
        (jpeg_head(7, 5), (7, 5)),
        (GIF, (7, 5)),
        (BMP, (7, 5)),
    ],
)
def test_the_size_is_found(data: bytes, size: tuple[int, int]) -> None:
    assert size_of(data) == size


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", png()[:20], jpeg_head(7, 5)[:14], png_head(0, 5), GIF[:8], b"RIFF0000WEBPVP8 "],
)
def test_what_is_no_picture_has_none(data: bytes) -> None:
    assert size_of(data) is None


@given(st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM"]), st.binary())
def test_no_bytes_are_too_odd(start: bytes, rest: bytes) -> None:
    size = size_of(start + rest)
    assert size is None or min(size) > 0
