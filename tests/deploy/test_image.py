"""The image as production runs it: read-only, without rights, stopped while somebody listens."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from service.settings import ModelSettings
from tests.deploy.images import execute, image, logs, wait_healthy, why_not
from tests.faults.streams import PATIENCE_SECONDS, Stream
from tests.ports import free_port

pytestmark = [
    pytest.mark.usefixtures("built_image"),
    pytest.mark.deploy,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(why_not() is not None, reason=why_not() or ""),
]


class Container:
    """A running container, reached at `url`."""

    def __init__(self, *options: str, name: str) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.name = f"parley-test-{port}"
        image("run", self.name, str(port), *options, name=name)

    def execute(self, *words: str) -> int:
        return execute(self.name, *words)

    def read(self, *words: str) -> str:
        return image("podman", "exec", self.name, *words)

    def wait_healthy(self) -> None:
        wait_healthy(self.name)

    def stop(self) -> int:
        """Stop it as Docker does; its exit code."""
        image("podman", "stop", self.name)
        return int(image("podman", "inspect", self.name, "--format", "{{.State.ExitCode}}"))


@pytest.fixture
def start() -> Iterator[Callable[..., Container]]:
    started: list[Container] = []

    def run(*options: str, name: str = "localhost/parley-test") -> Container:
        started.append(Container(*options, name=name))
        return started[-1]

    yield run
    for container in started:
        image("podman", "rm", "-f", "-t", "0", container.name, check=False)


def test_it_answers_without_rights_on_a_read_only_root(start: Callable[..., Container]) -> None:
    container = start()
    container.wait_healthy()
    reply = httpx.post(
        f"{container.url}/chat", json={"message": "What is the capital of France?"}, timeout=60
    )
    assert "Paris" in reply.json()["response"]
    assert container.read("id", "-u") == "10001"
    assert container.execute("touch", "/opt/parley/x") == 1
    status = container.read("cat", "/proc/1/status")
    assert "CapBnd:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status


def test_it_answers_as_it_is_to_the_token_that_its_log_shows(
    start: Callable[..., Container],
) -> None:
    """As after `docker run -p 8000:8000 parley`, where no model can be fetched either."""
    usual = {
        "PARLEY_AUTH__ALLOW_ANONYMOUS": "false",
        "PARLEY_MODEL__NAME": ModelSettings().name,
        "HF_ENDPOINT": "http://127.0.0.1:9",
    }
    container = start(*(word for pair in usual.items() for word in ("-e", "=".join(pair))))
    container.wait_healthy()
    (line,) = (line for line in logs(container.name).splitlines() if line.startswith("  curl "))
    words = shlex.split(line)
    assert words[1] == f"{container.url}/chat"
    asked = subprocess.run(["curl", "-s", *words[1:]], capture_output=True, check=True)
    assert "Paris" in json.loads(asked.stdout)["response"]
    stranger = httpx.post(f"{container.url}/chat", json={"message": "Hello!"}, timeout=60)
    assert stranger.status_code == 401


def test_the_image_for_graphics_cards_answers_and_warns_where_there_is_none(
    start: Callable[..., Container], built_image: Path
) -> None:
    """All of Dockerfile.cuda's steps, but for its compiler: llama.cpp is the wheel without CUDA."""
    image("build", str(built_image), "Dockerfile.cuda", name="localhost/parley-cuda")
    container = start("-e", "PARLEY_ENGINE__GPU_LAYERS=99", name="localhost/parley-cuda")
    container.wait_healthy()
    asked = {"message": "What is the capital of France?"}
    reply = httpx.post(f"{container.url}/chat", json=asked, timeout=60)
    assert "Paris" in reply.json()["response"]
    assert "no_graphics_card" in logs(container.name)
    assert container.read("printenv", "NVIDIA_DRIVER_CAPABILITIES") == "compute,utility"


def test_stop_lets_a_stream_finish_and_exits_cleanly(start: Callable[..., Container]) -> None:
    container = start()
    container.wait_healthy()
    stream = Stream(container.url, 300)
    assert stream.started.wait(PATIENCE_SECONDS)
    with ThreadPoolExecutor(1) as pool:
        exit_code = pool.submit(container.stop)
        assert stream.wait().finish_reason == "length"
    assert (stream.whole, stream.completion_tokens) == (True, 300)
    assert exit_code.result() == 0


def test_a_model_that_does_not_fit_the_memory_limit_is_one_sentence(
    start: Callable[..., Container],
) -> None:
    container = start("--memory", "160m")
    image("podman", "wait", container.name)
    assert "of memory" in logs(container.name)


def test_it_lists_what_it_is_made_of(start: Callable[..., Container]) -> None:
    container = start()
    found = json.loads(container.read("cat", "/opt/parley/sbom.cdx.json"))
    listed = {part["name"]: part for part in found["components"]}
    names = "import importlib.metadata as m; print(*(d.name for d in m.distributions()))"
    installed = {
        re.sub(r"[-_.]+", "-", name).lower()
        for name in container.read("python", "-c", names).split()
    } - {"pip", "setuptools", "parley"}
    assert set(listed) == installed | {"pocket.gguf"}
    assert all(part["hashes"] for part in listed.values())
    assert all(listed[name]["licenses"] for name in installed)


def test_it_says_what_it_is() -> None:
    (found,) = json.loads(image("podman", "image", "inspect", "localhost/parley-test"))
    config = found["Config"]
    assert config["User"] == "10001:10001"
    assert config["StopSignal"] == "SIGTERM"
    assert list(config["Volumes"]) == ["/var/lib/parley"]
    assert found["HealthCheck" if "HealthCheck" in found else "Healthcheck"]["Test"] == [
        "CMD",
        "parley",
        "health",
    ]
    assert config["Labels"]["org.opencontainers.image.version"] == "test"
