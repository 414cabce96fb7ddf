"""What an operator may type, and which source it means."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.domain.errors import ModelNotFound
from service.models.registry import catalog, resolve
from service.settings import ModelSettings


def test_the_configured_default_is_in_the_catalogue() -> None:
    source = resolve(ModelSettings.model_fields["name"].default)
    assert source.repo == "Qwen/Qwen2.5-0.5B-Instruct-GGUF"
    assert source.file == "qwen2.5-0.5b-instruct-q4_k_m.gguf"
    assert source.needs_hub


def test_pocket_is_built_in() -> None:
    source = resolve("pocket")
    assert not source.needs_hub
    assert source.is_present(Path("/nonexistent"))
    path = source.local_path(Path())
    assert path.stat().st_size == source.about_bytes <= 8_000_000


def test_every_entry_of_the_catalogue_is_complete() -> None:
    assert {"pocket", "qwen2.5-0.5b-instruct", "qwen2.5-1.5b-instruct", "qwen2.5-3b-instruct"} <= (
        set(catalog())
    )
    for name, source in catalog().items():
        assert name == name.lower()
        assert source.description
        assert source.licence
        assert 0 < source.about_bytes < source.about_memory
        assert source.context_length > 0
        assert resolve(name) is source


def test_names_have_no_case_and_no_surrounding_space() -> None:
    assert resolve(" Qwen2.5-0.5B-Instruct ") is resolve("qwen2.5-0.5b-instruct")


def test_a_repository_file_is_a_source_and_the_catalogue_knows_its_own() -> None:
    source = resolve("acme/Tiny-GGUF:q4/Tiny-Q4_K_M.gguf")
    assert (source.repo, source.file) == ("acme/Tiny-GGUF", "q4/Tiny-Q4_K_M.gguf")
    assert source.name == "tiny-q4_k_m"
    assert source.local_path(Path("/m")) == Path("/m/acme--Tiny-GGUF/q4/Tiny-Q4_K_M.gguf")
    own = resolve("Qwen/Qwen2.5-0.5B-Instruct-GGUF:qwen2.5-0.5b-instruct-q4_k_m.gguf")
    assert own is resolve("qwen2.5-0.5b-instruct")


@pytest.mark.parametrize(
    ("typed", "path"),
    [
        ("/models/Big.gguf", "/models/Big.gguf"),
        ("/models/no-suffix", "/models/no-suffix"),
        ("~/big.gguf", str(Path("~/big.gguf").expanduser())),
        ("./big.gguf", str(Path.cwd() / "big.gguf")),
        ("sub/big.GGUF", str(Path.cwd() / "sub/big.GGUF")),
        ("/odd:name/big.gguf", "/odd:name/big.gguf"),
    ],
)
def test_paths_are_taken_as_they_are(typed: str, path: str) -> None:
    source = resolve(typed)
    assert source.path == Path(path)
    assert not source.needs_hub


def test_a_file_without_suffix_is_a_path_where_it_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("blob").touch()
    assert resolve("blob").path == tmp_path / "blob"


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("pockt", "'pockt' is unknown; the nearest names are pocket;"),
        ("qwen2.5-1.5b", "qwen2.5-1.5b-instruct"),
        ("zzz", "known: pocket, qwen2.5-0.5b-instruct"),
        ("", "'' is unknown"),
        ("Qwen/Qwen2.5-0.5B-Instruct-GGUF", "names a repository but no file in it"),
        ("acme/x:../../etc/passwd.gguf", "is unknown"),
        ("acme/x:model.bin", "is unknown"),
    ],
)
def test_an_unknown_name_is_one_sentence_with_what_would_work(typed: str, sentence: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        resolve(typed)
    assert sentence in caught.value.message
    assert ".gguf" in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("0" * 500, "is unknown"),
        ("0" * 5000, "at most 1024 characters; this one has 5000"),
        ("a\0b", "is unknown"),
        ("~nobody-of-that-name/x", "begins with the home of a user who has none here"),
        (f"acme/x:{'y' * 300}.gguf", "is unknown"),
    ],
)
def test_what_could_never_be_a_file_is_no_model(typed: str, sentence: str) -> None:
    with pytest.raises(ModelNotFound, match=sentence):
        resolve(typed)
