"""Length-prefixed msgpack: 4 bytes of big-endian length, then one frame."""

from __future__ import annotations

import struct

import msgspec

from service.ipc.messages import Frame, FromEngine, ToEngine

MAX_FRAME_BYTES = 64 * 1024 * 1024
_LENGTH = struct.Struct(">I")

_encoder = msgspec.msgpack.Encoder()
to_engine_decoder: msgspec.msgpack.Decoder[ToEngine] = msgspec.msgpack.Decoder(ToEngine)
from_engine_decoder: msgspec.msgpack.Decoder[FromEngine] = msgspec.msgpack.Decoder(FromEngine)


class FramingError(ValueError):
    """The peer does not speak this protocol; the connection cannot go on."""


def encode(frame: Frame) -> bytes:
    """One frame, ready to be written. Raises `FramingError` when it is over `MAX_FRAME_BYTES`."""
    body = _encoder.encode(frame)
    if len(body) > MAX_FRAME_BYTES:
        raise FramingError(f"a frame of {len(body)} bytes exceeds the {MAX_FRAME_BYTES} allowed")
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Cut a byte stream into frame bodies, however the bytes happen to arrive."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The frame bodies that `data` completes. Raises `FramingError` for an absurd length."""
        self._buffer += data
        bodies: list[bytes] = []
        start = 0
        while len(self._buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, start)
            if length > MAX_FRAME_BYTES:
                raise FramingError(
                    f"a frame of {length} bytes exceeds the {MAX_FRAME_BYTES} allowed"
                )
            end = start + _LENGTH.size + length
            if len(self._buffer) < end:
                break
            bodies.append(bytes(self._buffer[start + _LENGTH.size : end]))
            start = end
        del self._buffer[:start]
        return bodies
