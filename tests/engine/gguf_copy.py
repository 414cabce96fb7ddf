"""A GGUF file with the words of another and weights of its own, which mean nothing."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

_ALIGNMENT, _F32, _F16 = 32, 0, 1
_STRING, _ARRAY = 8, 9
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def number(self, kind: str) -> int:
        (value,) = struct.unpack_from("<" + kind, self.data, self.at)
        self.at += struct.calcsize("<" + kind)
        return int(value)

    def text(self) -> bytes:
        length = self.number("Q")
        self.at += length
        return self.data[self.at - length : self.at]

    def skip(self, kind: int) -> None:
        if kind == _STRING:
            self.text()
        elif kind == _ARRAY:
            inner, count = self.number("I"), self.number("Q")
            for _ in range(count):
                self.skip(inner)
        else:
            self.at += _SIZES[kind]


def with_random_weights(source: Path, target: Path, seed: int = 0) -> Path:
    """The model of `source`, as if it had never learned anything."""
    reader = _Reader(source.read_bytes())
    reader.at = 8
    num_tensors, num_keys = reader.number("Q"), reader.number("Q")
    first = reader.at
    for _ in range(num_keys):
        reader.text()
        reader.skip(reader.number("I"))
    metadata = reader.data[first : reader.at]
    shapes = {}
    for _ in range(num_tensors):
        name = reader.text()
        shapes[name] = [reader.number("Q") for _ in range(reader.number("I"))]
        reader.at += 12
    rng = np.random.default_rng(seed)
    with target.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, num_tensors, num_keys) + metadata)
        tensors, offset = [], 0
        for name, shape in shapes.items():
            if len(shape) == 1:
                values = np.ones(shape[0], np.float32)
            else:
                wide = rng.standard_normal((shape[1], shape[0]), np.float32)
                values = (wide * shape[0] ** -0.5).astype(np.float16)
            kind = _F32 if len(shape) == 1 else _F16
            file.write(struct.pack("<Q", len(name)) + name + struct.pack("<I", len(shape)))
            file.write(struct.pack(f"<{len(shape)}QIQ", *shape, kind, offset))
            offset += -(-values.nbytes // _ALIGNMENT) * _ALIGNMENT
            tensors.append(values)
        for values in tensors:
            file.write(b"\0" * (-file.tell() % _ALIGNMENT))
            file.write(values.tobytes())
    return target
