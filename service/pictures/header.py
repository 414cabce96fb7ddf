"""How many pixels a picture has, by its first bytes: nothing is unpacked to find that out."""

from __future__ import annotations

import struct

ACCEPTED = "PNG, JPEG, GIF and BMP"
_PNG, _JPEG, _BMP = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM"
_GIFS = (b"GIF87a", b"GIF89a")
# Of JPEG's markers: those that begin a frame, with its size, and those without a length.
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_ALONE = {0x01, *range(0xD0, 0xD9)}


def size_of(data: bytes) -> tuple[int, int] | None:
    """Width and height; None for what is no picture of the `ACCEPTED` kinds, or is cut short."""
    try:
        if data.startswith(_PNG) and data[12:16] == b"IHDR":
            return _positive(struct.unpack_from(">II", data, 16))
        if data.startswith(_GIFS):
            return _positive(struct.unpack_from("<HH", data, 6))
        if data.startswith(_BMP):
            width, height = struct.unpack_from("<ii", data, 18)
            return _positive((width, abs(height)))  # upside down where it is negative
        if data.startswith(_JPEG):
            return _size_of_jpeg(data)
    except struct.error:
        pass
    return None


def unread_kind(data: bytes) -> str | None:
    """What a file is that people take for a picture, and nothing here can unpack; None where that
    can't be said."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "a WebP picture"
    if data[4:8] == b"ftyp":
        return "a HEIC or AVIF picture"
    if data[:4] in (b"II*\0", b"MM\0*"):
        return "a TIFF picture"
    if data[:5] == b"%PDF-":
        return "a PDF document"
    if data.lstrip()[:5] in (b"<svg ", b"<?xml"):
        return "a drawing (SVG)"
    return None


def _size_of_jpeg(data: bytes) -> tuple[int, int] | None:
    """Of the first frame. Raises `struct.error` where there is none."""
    at = 2
    while True:
        (mark, kind) = struct.unpack_from(">BB", data, at)
        if mark != 0xFF:
            return None
        if kind == 0xFF:  # padding
            at += 1
        elif kind in _ALONE:
            at += 2
        elif kind in _FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return _positive((width, height))
        else:
            (length,) = struct.unpack_from(">H", data, at + 2)
            at += 2 + max(2, length)


def _positive(size: tuple[int, ...]) -> tuple[int, int] | None:
    width, height = size
    return (width, height) if width > 0 and height > 0 else None
