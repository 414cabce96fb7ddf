"""Reads the header of a GGUF file: enough to say what it is and whether it is whole.

The file is not trusted. No length in it is believed before it is compared with what is left of the
file, big values are skipped instead of read, and the tensors' data is never touched. The layout is
the published GGUF specification, versions 2 and 3.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from service.domain.errors import ModelFileError

MAGIC = b"GGUF"
READABLE_VERSIONS = (2, 3)
WHAT_WOULD_WORK = "give the path of a complete .gguf file, or `pocket`, which is built in"

MAX_ENTRIES = 1 << 20  # metadata keys, or tensors: real files have some hundreds
MAX_KEY_BYTES = 1 << 16
MAX_TEXT_BYTES = 1 << 22  # longer text values are skipped; chat templates are some kilobytes
MAX_DIMENSIONS = 8
MAX_ALIGNMENT = 1 << 20
MAX_LAYERS = 512  # llama.cpp ends the process for more, and for none

STRING, ARRAY, BOOL = 8, 9, 7
SCALARS: Mapping[int, str] = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    BOOL: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}

# ggml type: (elements in a block, bytes of a block)
BLOCKS: Mapping[int, tuple[int, int]] = {
    **{0: (1, 4), 1: (1, 2), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8)},
    **{30: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34)},
    **{20: (32, 18), 39: (32, 17), 40: (64, 36), 41: (128, 18), 10: (256, 84)},
    **{11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292)},
    **{16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 21: (256, 110)},
    **{22: (256, 82), 23: (256, 136), 29: (256, 56), 34: (256, 54), 35: (256, 66)},
}

KNOWN_STRANGERS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the model itself; run `git lfs pull`"),
    (b"<", "a web page, as a failed download leaves it"),
    (b"PK\x03\x04", "a ZIP archive (PyTorch checkpoints look like this)"),
    (b"\x80\x02", "a Python pickle"),
    (b"{", "JSON text"),
    (b"ggml", "an old GGML file, which must be converted to GGUF"),
    (b"ggjt", "an old GGJT file, which must be converted to GGUF"),
)


@dataclass(frozen=True, slots=True)
class ArrayInfo:
    """A metadata array that was skipped: only its kind and length are kept."""

    type_id: int
    length: int


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor lies; `num_bytes` is None for a type that is newer than this table."""

    name: str
    shape: tuple[int, ...]
    type_id: int
    offset: int

    @property
    def num_elements(self) -> int:
        count = 1
        for extent in self.shape:
            count *= extent
        return count

    @property
    def num_bytes(self) -> int | None:
        block = BLOCKS.get(self.type_id)
        if block is None:
            return None
        elements, size = block
        return -(-self.num_elements // elements) * size


Value = int | float | bool | str | ArrayInfo | None


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a GGUF file says of itself. A text value that was too long to keep is None."""

    path: Path
    version: int
    metadata: Mapping[str, Value]
    tensors: tuple[TensorInfo, ...]
    data_offset: int
    file_bytes: int

    @property
    def expected_bytes(self) -> int:
        """Least size of the complete file."""
        ends = (self.data_offset + t.offset + (t.num_bytes or 0) for t in self.tensors)
        return max(ends, default=self.data_offset)

    @property
    def architecture(self) -> str:
        return self.text("general.architecture") or ""

    @property
    def name(self) -> str:
        return self.text("general.name") or self.path.stem

    @property
    def chat_template(self) -> str | None:
        return self.text("tokenizer.chat_template")

    @property
    def context_length(self) -> int:
        """Tokens the model was trained for; 0 where the file does not say."""
        return self.number(f"{self.architecture}.context_length")

    @property
    def num_layers(self) -> int:
        return self.number(f"{self.architecture}.block_count")

    @property
    def num_parameters(self) -> int:
        return sum(tensor.num_elements for tensor in self.tensors)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all tensors together, as they lie in the file."""
        return max(0, self.expected_bytes - self.data_offset)

    @property
    def cache_bytes_per_token(self) -> int:
        """Bytes of one token in a 16-bit KV cache; 0 where the file does not say enough."""
        prefix = self.architecture + ".attention."
        heads = self.number(prefix + "head_count")
        kv_heads = self.number(prefix + "head_count_kv") or heads
        embedding = self.number(f"{self.architecture}.embedding_length")
        head = embedding // heads if heads > 0 else 0
        key = self.number(prefix + "key_length") or head
        value = self.number(prefix + "value_length") or head
        return 2 * max(0, self.num_layers * kv_heads * (key + value))

    def text(self, key: str) -> str | None:
        """The text under `key`, or None where there is none."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def number(self, key: str) -> int:
        """The whole number under `key`, or 0 where there is none."""
        value = self.metadata.get(key)
        return value if isinstance(value, int) else 0


def check_model_file(path: Path) -> GgufHeader:
    """The header of a complete GGUF file.

    Raises `ModelFileError`, one sentence with the path and what would work, where the file is
    missing, no file, unreadable, not GGUF, damaged, or shorter than its header says.
    """
    header = read_header(path)
    if header.file_bytes < header.expected_bytes:
        raise ModelFileError(
            f"{path} is truncated: it has {header.file_bytes} of at least "
            f"{header.expected_bytes} bytes; fetch it again, or {WHAT_WOULD_WORK}."
        )
    if not header.tensors:
        raise ModelFileError(f"{path} is GGUF but holds no tensors; {WHAT_WOULD_WORK}.")
    layers = header.metadata.get(f"{header.architecture}.block_count", 1)
    if isinstance(layers, int) and not 1 <= layers <= MAX_LAYERS:
        raise ModelFileError(
            f"{path} is damaged: it says that it has {layers} layers, and 1 to {MAX_LAYERS} can "
            f"be loaded; {WHAT_WOULD_WORK}."
        )
    return header


def read_header(path: Path) -> GgufHeader:
    """The header of a GGUF file whose tensor data may be missing.

    Raises `ModelFileError` like `check_model_file`, but for data behind the header.
    """
    try:
        if path.is_dir():
            raise ModelFileError(f"{path} is a directory; {WHAT_WOULD_WORK}.")
        file_bytes = path.stat().st_size
        with path.open("rb") as file:
            _refuse_strangers(path, file.read(64))
            file.seek(len(MAGIC))
            return _HeaderReader(path, file, file_bytes).read()
    except FileNotFoundError as error:
        raise ModelFileError(f"{path} does not exist; {WHAT_WOULD_WORK}.") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelFileError(f"{path} cannot be read: {reason}; {WHAT_WOULD_WORK}.") from error


def _refuse_strangers(path: Path, start: bytes) -> None:
    if not start:
        raise ModelFileError(f"{path} is empty; {WHAT_WOULD_WORK}.")
    if start.startswith(MAGIC):
        return
    if MAGIC.startswith(start):
        raise ModelFileError(f"{path} is truncated inside its header; {WHAT_WOULD_WORK}.")
    stranger = next((what for sign, what in KNOWN_STRANGERS if start.lstrip().startswith(sign)), "")
    looks = f": it looks like {stranger}" if stranger else ""
    raise ModelFileError(f"{path} is not a GGUF file{looks}; {WHAT_WOULD_WORK}.")


class _HeaderReader:
    """Walks one header from front to back; every read is bounded by what the file still holds."""

    def __init__(self, path: Path, file: BinaryIO, file_bytes: int) -> None:
        self.path = path
        self.file = file
        self.file_bytes = file_bytes
        self.position = len(MAGIC)

    def read(self) -> GgufHeader:
        version = self._version()
        num_tensors = self._count("tensors", smallest=24)
        num_entries = self._count("metadata entries", smallest=13)
        metadata: dict[str, Value] = {}
        for _ in range(num_entries):
            key = self._key()
            metadata[key] = self._value(self._scalar("<I"))
        tensors = tuple(self._tensor() for _ in range(num_tensors))
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= MAX_ALIGNMENT:
            raise self._damaged(f"an alignment of {alignment!r}")
        data_offset = -(-self.position // alignment) * alignment
        return GgufHeader(self.path, version, metadata, tensors, data_offset, self.file_bytes)

    def _version(self) -> int:
        version: int = self._scalar("<I")
        if version in READABLE_VERSIONS:
            return version
        if version and not version & 0xFFFF:
            raise ModelFileError(f"{self.path} is a big-endian GGUF file; {WHAT_WOULD_WORK}.")
        raise ModelFileError(
            f"{self.path} is GGUF version {version}, and versions 2 and 3 are readable; "
            f"convert it again, or {WHAT_WOULD_WORK}."
        )

    def _tensor(self) -> TensorInfo:
        name = self._key()
        num_dimensions = self._scalar("<I")
        if num_dimensions > MAX_DIMENSIONS:
            raise self._damaged(f"a tensor of {num_dimensions} dimensions")
        shape = tuple(self._scalar("<Q") for _ in range(num_dimensions))
        return TensorInfo(name, shape, self._scalar("<I"), self._scalar("<Q"))

    def _value(self, type_id: int) -> Value:
        if type_id in SCALARS:
            scalar: Value = self._scalar(SCALARS[type_id])
            return scalar
        if type_id == STRING:
            return self._text()
        if type_id == ARRAY:
            return self._array()
        raise self._damaged(f"a metadata value of the unknown type {type_id}")

    def _array(self) -> ArrayInfo:
        """Skip an array. Arrays of arrays are not in use, and not accepted."""
        type_id = self._scalar("<I")
        if type_id in SCALARS:
            width = struct.calcsize(SCALARS[type_id])
            length = self._length(width)
            self._skip(width * length)
        elif type_id == STRING:
            length = self._length(8)
            for _ in range(length):
                self._skip(self._length(1))
        else:
            raise self._damaged(f"an array of the unknown type {type_id}")
        return ArrayInfo(type_id, length)

    def _key(self) -> str:
        length = self._length(1)
        if length > MAX_KEY_BYTES:
            raise self._damaged(f"a name of {length} bytes")
        return self._take(length).decode(errors="replace")

    def _text(self) -> str | None:
        length = self._length(1)
        if length > MAX_TEXT_BYTES:
            self._skip(length)
            return None
        return self._take(length).decode(errors="replace")

    def _count(self, what: str, *, smallest: int) -> int:
        """How many `what` follow, each of at least `smallest` bytes."""
        count = self._length(smallest)
        if count > MAX_ENTRIES:
            raise self._damaged(f"{count} {what}")
        return count

    def _length(self, width: int) -> int:
        """A length whose items, of at least `width` bytes, must still fit into the file."""
        length: int = self._scalar("<Q")
        if length * width > self.file_bytes - self.position:
            raise self._short()
        return length

    def _scalar(self, form: str) -> int:
        value: int = struct.unpack(form, self._take(struct.calcsize(form)))[0]
        return value

    def _take(self, length: int) -> bytes:
        data = self.file.read(length)
        if len(data) < length:
            raise self._short()
        self.position += length
        return data

    def _skip(self, length: int) -> None:
        """Pass over bytes that `_length` has found to be there."""
        self.position += length
        self.file.seek(self.position)

    def _short(self) -> ModelFileError:
        return ModelFileError(
            f"{self.path} is truncated or damaged: its header does not end within its "
            f"{self.file_bytes} bytes; fetch it again, or {WHAT_WOULD_WORK}."
        )

    def _damaged(self, found: str) -> ModelFileError:
        return ModelFileError(
            f"{self.path} is damaged: its header holds {found}; fetch it again, "
            f"or {WHAT_WOULD_WORK}."
        )
