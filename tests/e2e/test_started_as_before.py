"""What started each earlier service starts this one: their commands, in a folder of their own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import service.models
from tests.e2e.parley import Parley
from tests.ports import free_port

pytestmark = [pytest.mark.services, pytest.mark.model]

EARLIER = Path(__file__).parents[2] / "earlier"
POCKET = Path(service.models.__file__).parent / "pocket.gguf"
UVICORN = str(Path(sys.executable).with_name("uvicorn"))
QWEN = "qwen2.5-0.5b-instruct-q4_k_m.gguf"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where an earlier service lived, with its files replaced by ours, and its models' folder."""
    home = tmp_path / "home"
    shutil.copytree(EARLIER, home)
    (home / "models").mkdir()
    return home


def environment_of(folder: Path, **said: str) -> dict[str, str]:
    ours = ("PARLEY_", "MODEL_", "LLM_", "N_", "PORT", "MAX_TOKENS")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    return {
        **kept,
        "PARLEY_STATE_DIR": str(folder / "state"),
        "PARLEY_MODEL__OFFLINE": "true",
        **said,
    }


@contextlib.contextmanager
def started(folder: Path, command: list[str], port: int, **said: str) -> Iterator[Parley]:
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment_of(folder, **said),
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
        )
        running = Parley(process, f"http://127.0.0.1:{port}", log)
        try:
            running.wait_healthy()
            yield running
        finally:
            running.stop()


def refused(folder: Path, command: list[str], **said: str) -> str:
    """What a command that must not start says."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment_of(folder, **said),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_uvicorn_becomes_the_chatbot_api_with_the_model_that_it_had_fetched(folder: Path) -> None:
    shutil.copy(POCKET, folder / "models" / QWEN)
    port = free_port()
    command = [UVICORN, "api_chatbot:app", "--host", "127.0.0.1", "--port", str(port)]
    with started(folder, command, port) as parley:
        reply = httpx.post(f"{parley.url}/chat", json={"user_input": "Hello!"}, timeout=60)
        assert list(reply.json()) == ["reply"]
        (model,) = parley.get("/v1/models").json()["data"]
        assert model["id"] == "qwen2.5-0.5b-instruct"
    assert parley.process.returncode == 0  # the same process: a signal reaches the drain


def test_the_web_app_has_its_shorter_context(folder: Path) -> None:
    shutil.copy(POCKET, folder / "models" / QWEN)
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "web_chatbot:app", "--port", str(port)]
    with started(folder, command, port, N_CTX="1024") as parley:
        page = httpx.get(parley.url, headers={"Accept": "text/html"}, timeout=60)
        assert page.headers["content-type"].startswith("text/html")
        (model,) = parley.get("/v1/models").json()["data"]
        assert model["context_length"] == 1024  # what was said wins over what was assumed


def test_the_chat_api_takes_its_model_from_the_command_line(folder: Path) -> None:
    shutil.copy(POCKET, folder / "mine.gguf")
    port = free_port()  # its own, 8002, may be taken on this machine
    command = [sys.executable, "api_service.py", "mine.gguf"]
    with started(folder, command, port, PORT=str(port)) as parley:
        origin = {"Origin": "http://elsewhere.example"}
        reply = httpx.post(
            f"{parley.url}/chat", json={"message": "Hello!"}, headers=origin, timeout=60
        )
        assert set(reply.json()) == {"response", "session_id", "tokens_used"}
        assert reply.headers["access-control-allow-origin"] == "*"


def test_the_serving_api_starts_with_reload_and_reads_its_dotenv(folder: Path) -> None:
    cache = folder / "cache"
    cache.mkdir()
    shutil.copy(POCKET, cache / "Llama-3.2-3B-Instruct-Q4_K_M.gguf")
    (folder / ".env").write_text(f"LLM_MODEL_NAME=llama3-3b\nLLM_MODEL_CACHE_DIR={cache}\n")
    port = free_port()
    command = [UVICORN, "app.main:app", "--reload", "--host", "127.0.0.1", "--port", str(port)]
    with started(folder, command, port) as parley:
        models = parley.get("/api/v1/chat/models").json()
        assert models["current_model"] == "llama3-3b"
        parley.process.send_signal(signal.SIGINT)
        assert parley.process.wait(60) == 0
    assert "Stopped" in parley.log.read_text() or "service_stopped" in parley.log.read_text()


@pytest.mark.parametrize("command", [[sys.executable, "api.py"], [UVICORN, "api:app"]])
def test_the_multi_api_server_has_its_model_name_and_its_cap(
    folder: Path, command: list[str]
) -> None:
    port = free_port()
    listen = ["--port", str(port)] if command[0] == UVICORN else []
    with started(
        folder, [*command, *listen], port, MODEL_PATH=str(POCKET), PORT=str(port)
    ) as parley:
        (model,) = parley.get("/v1/models").json()["data"]
        assert model["id"] == "llama-local"
        assert parley.chat("Hello!", model="llama-local").status_code == 200


def test_the_multi_api_server_asks_for_a_model(folder: Path) -> None:
    said = refused(folder, [sys.executable, "api.py"])
    assert said == ("parley: error: Model not loaded: set MODEL_PATH or MODEL_DIR and restart.\n")


def test_where_others_can_reach_it_a_token_is_asked_for(folder: Path) -> None:
    shutil.copy(POCKET, folder / "models" / QWEN)
    said = refused(folder, [UVICORN, "api_chatbot:app", "--host", "0.0.0.0"])  # noqa: S104
    assert "there is no access token yet" in said


def test_workers_are_parley_s_own(folder: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.argv[0] = 'uvicorn'; import api; api.app"]
    said = refused(folder, [*command, "--workers", "2"], MODEL_PATH=str(POCKET))
    assert said.endswith("set PARLEY_API__WORKERS instead.\n")


def test_another_server_is_told_what_to_start(folder: Path) -> None:
    said = refused(folder, [sys.executable, "-c", "import api; api.app"])
    assert said.endswith("Start `python api.py`.\n")


def test_the_trial_programs_find_a_service_and_a_model_that_work(folder: Path) -> None:
    command = [sys.executable, "standalone_test.py", "--model", str(POCKET)]
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment_of(folder),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    marks = [line[0] for line in done.stdout.splitlines() if line[0] in "✅❌"]
    assert marks == ["✅"] * 5
    alone = subprocess.run(
        [sys.executable, "client_test.py", "--url", f"http://127.0.0.1:{free_port()}"],
        cwd=folder,
        env=environment_of(folder),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert alone.returncode == 1
    assert "❌ Health: No service answers" in alone.stdout
