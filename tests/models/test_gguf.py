"""The GGUF reader on whole, cut, foreign and hostile files."""

from __future__ import annotations

import contextlib
import random
import struct
import tracemalloc
from pathlib import Path

import pytest

from service.domain.errors import ModelFileError
from service.models.gguf import (
    MAX_TEXT_BYTES,
    ArrayInfo,
    check_model_file,
    read_header,
)
from service.models.registry import resolve

POCKET = resolve("pocket").local_path(Path())


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def entry(key: str, type_id: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", type_id) + value


def gguf(*entries: bytes, tensors: tuple[bytes, ...] = (), data: bytes = b"") -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(entries))
    head += b"".join(entries) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + data


def tensor(name: str, shape: tuple[int, ...], type_id: int, offset: int = 0) -> bytes:
    extents = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + extents + struct.pack("<IQ", type_id, offset)


def test_pocket_is_whole_and_says_what_it_is() -> None:
    header = check_model_file(POCKET)
    assert (header.name, header.architecture, header.version) == ("Pocket", "qwen3", 3)
    assert header.expected_bytes == header.file_bytes == POCKET.stat().st_size
    assert (header.context_length, header.num_layers) == (2048, 5)
    assert header.num_parameters == 4_459_904
    assert header.cache_bytes_per_token == 2 * 5 * 2 * (64 + 64)
    assert header.chat_template is not None
    assert header.chat_template.startswith("{%- if tools %}")
    assert header.metadata["tokenizer.ggml.tokens"] == ArrayInfo(type_id=8, length=2048)


def test_every_kind_of_value_is_read_or_skipped(tmp_path: Path) -> None:
    path = tmp_path / "values.gguf"
    long_text = "x" * (MAX_TEXT_BYTES + 1)
    path.write_bytes(
        gguf(
            entry("a.flag", 7, b"\x01"),
            entry("a.small", 1, struct.pack("<b", -3)),
            entry("a.large", 10, struct.pack("<Q", 1 << 60)),
            entry("a.real", 6, struct.pack("<f", 0.5)),
            entry("a.text", 8, text("grüße")),
            entry("a.book", 8, text(long_text)),
            entry("a.numbers", 9, struct.pack("<IQ3H", 2, 3, 7, 8, 9)),
            entry("a.words", 9, struct.pack("<IQ", 8, 2) + text("one") + text("two")),
            tensors=(tensor("w", (3, 5), 0), tensor("v", (4,), 99, offset=64)),
            data=bytes(64),
        )
    )
    header = check_model_file(path)
    assert dict(header.metadata) == {
        "a.flag": True,
        "a.small": -3,
        "a.large": 1 << 60,
        "a.real": 0.5,
        "a.text": "grüße",
        "a.book": None,
        "a.numbers": ArrayInfo(2, 3),
        "a.words": ArrayInfo(8, 2),
    }
    assert [t.num_bytes for t in header.tensors] == [60, None]
    assert header.expected_bytes == header.data_offset + 64
    assert header.name == "values"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"GG", "truncated inside its header"),
        (b"<!DOCTYPE html><html>", "not a GGUF file: it looks like a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"PK\x03\x04stuff", "ZIP archive"),
        (b"hello, world", "is not a GGUF file; give"),
        (b"GGUF" + struct.pack("<I", 1), "GGUF version 1, and versions 2 and 3"),
        (b"GGUF" + struct.pack(">I", 3), "big-endian"),
        (gguf(), "holds no tensors"),
        (gguf(entry("k", 77, b"")), "unknown type 77"),
        (gguf(entry("k", 9, struct.pack("<IQ", 9, 0))), "array of the unknown type 9"),
        (gguf(entry("general.alignment", 4, bytes(4))), "an alignment of 0"),
        (gguf(tensors=(tensor("w", (1,) * 9, 0),)), "a tensor of 9 dimensions"),
        (gguf(tensors=(tensor("w", (1 << 40, 1 << 40), 0),)), "is truncated: it has"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_file_is_one_sentence_with_path_and_way_out(
    content: bytes, sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelFileError) as caught:
        check_model_file(path)
    message = caught.value.message
    assert message.startswith(str(path))
    assert sentence in message
    assert "`pocket`" in message
    assert "\n" not in message


def test_a_missing_file_and_a_directory_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"nope\.gguf does not exist"):
        check_model_file(tmp_path / "nope.gguf")
    with pytest.raises(ModelFileError, match="is a directory"):
        check_model_file(tmp_path)
    with pytest.raises(ModelFileError, match="cannot be read"):
        check_model_file(Path("/proc/self/mem"))
    with pytest.raises(ModelFileError, match="cannot be read"):
        check_model_file(Path("a\0b.gguf"))


def test_pocket_cut_anywhere_is_truncated_never_anything_else(tmp_path: Path) -> None:
    whole = POCKET.read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(whole)
    cuts = [*range(len(whole) - 1, 100_000, -100_003), *range(100_000, 0, -1024), 5, 4, 1]
    with path.open("r+b") as file:
        for cut in cuts:
            file.truncate(cut)
            with pytest.raises(ModelFileError, match="truncated"):
                check_model_file(path)


def test_a_truncated_file_still_has_a_header(tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(POCKET.read_bytes()[:200_000])
    header = read_header(path)
    assert header.file_bytes == 200_000 < header.expected_bytes


@pytest.mark.parametrize("length", [1 << 63, (1 << 64) - 1, 1 << 40, 10_000])
@pytest.mark.parametrize("where", ["tensors", "entries", "key", "text", "numbers", "words"])
def test_a_huge_length_is_refused_without_being_believed(
    where: str, length: int, tmp_path: Path
) -> None:
    huge = struct.pack("<Q", length)
    content = {
        "tensors": b"GGUF" + struct.pack("<I", 3) + huge + bytes(8),
        "entries": b"GGUF" + struct.pack("<IQ", 3, 0) + huge,
        "key": b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + huge + bytes(64),
        "text": gguf(entry("k", 8, huge)),
        "numbers": gguf(entry("k", 9, struct.pack("<I", 10) + huge)),
        "words": gguf(entry("k", 9, struct.pack("<I", 8) + huge)),
    }[where]
    path = tmp_path / "huge.gguf"
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(ModelFileError, match="truncated or damaged"):
        check_model_file(path)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_random_damage_is_refused_or_read_but_never_crashes(tmp_path: Path) -> None:
    header = POCKET.read_bytes()[:120_000]
    path = tmp_path / "damaged.gguf"
    r = random.Random(11)
    for _ in range(150):
        damaged = bytearray(header)
        for _ in range(r.choice([1, 3, 30])):
            damaged[r.randrange(4, 2_000 if r.random() < 0.5 else len(damaged))] = r.randrange(256)
        path.write_bytes(damaged)
        with contextlib.suppress(ModelFileError):
            assert read_header(path).cache_bytes_per_token >= 0


def test_only_the_header_of_a_big_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "big.gguf"
    size = 4 << 30
    path.write_bytes(gguf(tensors=(tensor("w", (size // 4,), 0),)))
    with path.open("r+b") as file:
        file.truncate(size + 128)  # a sparse file: reading it would take seconds and memory
    tracemalloc.start()
    assert check_model_file(path).weight_bytes == size
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("layers", [0, 513])
def test_a_number_of_layers_that_llama_cpp_would_die_of_is_refused(
    layers: int, tmp_path: Path
) -> None:
    name = struct.pack("<Q", 5) + b"llama"
    path = tmp_path / "model.gguf"
    path.write_bytes(
        gguf(
            entry("general.architecture", 8, name),
            entry("llama.block_count", 4, struct.pack("<I", layers)),
            tensors=(tensor("w", (1,), 0),),
            data=bytes(64),
        )
    )
    with pytest.raises(ModelFileError, match=f"it has {layers} layers, and 1 to 512 can be loaded"):
        check_model_file(path)
