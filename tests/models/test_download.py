"""Downloads against a hub on the loopback: whole, cut, resumed, refused, unreachable."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import close_session

from service.domain.errors import DownloadFailed
from service.models.download import ATTEMPTS, SPARE_BYTES, Surroundings, fetch
from service.models.registry import ModelSource, resolve
from tests.models.hub import LoopbackHub, serving
from tests.waiting import quick

CONTENT = random.Random(5).randbytes(1_500_000)


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with serving(LoopbackHub(CONTENT)) as hub:
        yield hub
        close_session()


@pytest.fixture
def around(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> Surroundings:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return Surroundings(endpoint=hub.endpoint, offline=False, pause=lambda seconds: None)


def tiny(sha256: str | None = None) -> ModelSource:
    return replace(resolve("acme/Tiny-GGUF:tiny.gguf"), sha256=sha256)


def part_of(models_dir: Path) -> Path:
    (part,) = models_dir.rglob("*.part")
    return part


def test_a_model_arrives_whole_and_tells_how_far_it_is(
    tmp_path: Path, hub: LoopbackHub, around: Surroundings
) -> None:
    seen: list[tuple[int, int]] = []
    path = fetch(tiny(), tmp_path, lambda done, total: seen.append((done, total)), around)
    assert path == tmp_path / "acme--Tiny-GGUF" / "tiny.gguf"
    assert path.read_bytes() == CONTENT
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)
    assert not list(tmp_path.rglob("*.part"))


def test_a_model_that_is_here_asks_nobody(tmp_path: Path, around: Surroundings) -> None:
    path = tiny().local_path(tmp_path)
    path.parent.mkdir()
    path.write_bytes(b"GGUF")
    nowhere = replace(around, endpoint="http://127.0.0.1:9")
    assert fetch(tiny(), tmp_path, around=nowhere) == path
    assert fetch(resolve("pocket"), tmp_path, around=nowhere).name == "pocket.gguf"


def test_a_cut_connection_is_continued_where_it_broke(
    tmp_path: Path, hub: LoopbackHub, around: Surroundings
) -> None:
    hub.cuts = [400_000, 300_000]
    assert fetch(tiny(), tmp_path, around=around).read_bytes() == CONTENT
    starts = [int(asked[6:-1]) if asked else 0 for asked in hub.ranges]
    assert starts[0] == 0
    assert 0 < starts[1] <= 400_000
    assert starts[1] < starts[2] <= 700_000


def test_the_next_process_continues_what_the_last_one_left(
    tmp_path: Path, hub: LoopbackHub, around: Surroundings
) -> None:
    hub.cuts = [600_000] + [0] * ATTEMPTS
    with pytest.raises(DownloadFailed, match=r"broke off 5 times in a row .* goes on from here"):
        fetch(tiny(), tmp_path, around=around)
    kept = part_of(tmp_path).stat().st_size
    assert kept > 0
    hub.ranges.clear()
    assert fetch(tiny(), tmp_path, around=around).read_bytes() == CONTENT
    assert hub.ranges == [f"bytes={kept}-"]


def test_a_server_that_ignores_ranges_is_read_from_the_start(
    tmp_path: Path, hub: LoopbackHub, around: Surroundings
) -> None:
    hub.cuts, hub.knows_ranges = [500_000], False
    assert fetch(tiny(), tmp_path, around=around).read_bytes() == CONTENT


def test_the_part_of_an_older_version_is_not_continued(
    tmp_path: Path, hub: LoopbackHub, around: Surroundings
) -> None:
    hub.cuts = [600_000] + [0] * ATTEMPTS
    with pytest.raises(DownloadFailed):
        fetch(tiny(), tmp_path, around=around)
    hub.content = CONTENT[::-1]
    assert fetch(tiny(), tmp_path, around=around).read_bytes() == CONTENT[::-1]
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("left", [len(CONTENT), len(CONTENT) + 7])
def test_a_part_that_is_long_enough_but_wrong_is_not_kept(
    left: int, tmp_path: Path, hub: LoopbackHub, around: Surroundings
) -> None:
    target = tiny().local_path(tmp_path)
    target.parent.mkdir()
    target.with_name(f"tiny.gguf.{hub.sha256[:16]}.part").write_bytes(bytes(left))
    if left == len(CONTENT):
        with pytest.raises(DownloadFailed, match="SHA-256"):
            fetch(tiny(), tmp_path, around=around)
    assert fetch(tiny(), tmp_path, around=around).read_bytes() == CONTENT


@pytest.mark.parametrize("promised_by", ["hub", "catalogue"])
def test_a_wrong_checksum_is_deleted_and_refused(
    promised_by: str, tmp_path: Path, hub: LoopbackHub, around: Surroundings
) -> None:
    wrong = "ab" * 32
    source = tiny(sha256=wrong) if promised_by == "catalogue" else tiny()
    hub.etag = wrong if promised_by == "hub" else ""
    with pytest.raises(DownloadFailed, match=f"SHA-256 {hub.sha256} instead of {wrong}"):
        fetch(source, tmp_path, around=around)
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".lock"]


@pytest.mark.parametrize(
    ("refusal", "sentence"),
    [
        ((404, "EntryNotFound"), r"acme/Tiny-GGUF:tiny.gguf does not exist on http"),
        ((404, "RepoNotFound"), r"does not exist on"),
        ((401, "GatedRepo"), r"HTTP 401.* set HF_TOKEN"),
        ((403, ""), r"HTTP 403.* set HF_TOKEN"),
        ((503, ""), r"answered HTTP 503 .* try again later"),
    ],
)
def test_a_refusal_is_one_sentence_that_names_the_file(
    refusal: tuple[int, str],
    sentence: str,
    tmp_path: Path,
    hub: LoopbackHub,
    around: Surroundings,
) -> None:
    hub.refuse = refusal
    with pytest.raises(DownloadFailed, match=sentence) as caught:
        fetch(tiny(), tmp_path, around=around)
    assert "acme/Tiny-GGUF:tiny.gguf" in caught.value.message
    assert "\n" not in caught.value.message


def test_the_access_token_of_the_environment_opens_a_closed_repository(
    tmp_path: Path, hub: LoopbackHub, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.token = "hf_secret"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert fetch(tiny(), tmp_path, around=around).read_bytes() == CONTENT


def test_so_does_the_one_of_the_settings_which_may_lie_in_a_file(
    tmp_path: Path, hub: LoopbackHub, around: Surroundings
) -> None:
    hub.token = "hf_secret"
    given = replace(around, hub_token="hf_secret")
    assert fetch(tiny(), tmp_path, around=given).read_bytes() == CONTENT
    assert "hf_secret" not in repr(given)


def test_something_that_is_no_hub_is_recognised(
    tmp_path: Path, hub: LoopbackHub, around: Surroundings
) -> None:
    hub.looks_like_hub = False
    with pytest.raises(DownloadFailed, match="does not answer like a model hub"):
        fetch(tiny(), tmp_path, around=around)


def seconds_of(act: Callable[[], object]) -> float:
    start = time.monotonic()
    act()
    return time.monotonic() - start


def test_a_closed_port_is_noticed_at_once(tmp_path: Path, around: Surroundings) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nowhere = replace(around, endpoint=f"http://127.0.0.1:{unused.getsockname()[1]}")

        def refused() -> None:
            with pytest.raises(DownloadFailed, match="cannot be reached"):
                fetch(tiny(), tmp_path, around=nowhere)

        quick(lambda: seconds_of(refused), 2, tries=3)


def test_a_hub_that_accepts_and_says_nothing_is_noticed_within_five_seconds(
    tmp_path: Path, around: Surroundings
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        nowhere = replace(around, endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}")

        def given_up() -> None:
            with pytest.raises(DownloadFailed, match=r"cannot be reached .*; check the network"):
                fetch(tiny(), tmp_path, around=nowhere)

        quick(lambda: seconds_of(given_up), 5, tries=3)


def test_offline_asks_nobody(tmp_path: Path, hub: LoopbackHub, around: Surroundings) -> None:
    with pytest.raises(DownloadFailed, match="HF_HUB_OFFLINE"):
        fetch(tiny(), tmp_path, around=replace(around, offline=True))
    assert hub.ranges == []


def test_a_disk_that_is_too_small_is_refused_before_the_first_byte(
    tmp_path: Path, hub: LoopbackHub, around: Surroundings
) -> None:
    needed = len(CONTENT) + SPARE_BYTES
    small = replace(around, free_bytes=lambda directory: needed - 1)
    with pytest.raises(DownloadFailed, match=f"needs {needed} more bytes.* {needed - 1} are free"):
        fetch(tiny(), tmp_path, around=small)
    assert hub.ranges == []
    fetch(tiny(), tmp_path, around=replace(around, free_bytes=lambda directory: needed))


def test_a_directory_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, around: Surroundings
) -> None:
    (tmp_path / "models").write_text("a file where the directory should be")
    with pytest.raises(DownloadFailed, match="cannot be used"):
        fetch(tiny(), tmp_path / "models", around=around)
