"""Two programs of an earlier service that try one out: a running one, or a model without one."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from service.cli.chat.client import Client, Facts, Refused
from service.settings import environment_with

EXIT_FAILED = 1
USUAL_URL = "http://localhost:8000"
# Models may have to be fetched first.
START_SECONDS = 3600.0
_POLL_SECONDS = 0.2


@click.command()
@click.option("--interactive", is_flag=True, help="Chat with it.")
@click.option("--url", default=USUAL_URL, show_default=True, help="Where the service is.")
def client_test(interactive: bool, url: str) -> None:
    """Ask a running service what its clients ask, and say what works."""
    if interactive:
        _chat(url)
        return
    sys.exit(_try(url))


@click.command()
@click.option("--model", default="llama3-1b", show_default=True, metavar="NAME|PATH")
@click.option("--interactive", is_flag=True, help="Chat with it.")
def standalone_test(model: str, interactive: bool) -> None:
    """Try a model in a service of its own, which ends with this."""
    try:
        with _serving(model) as url:
            if interactive:
                _chat(url)
                return
            sys.exit(_try(url))
    except Refused as error:
        click.echo(error.message, err=True)
        sys.exit(EXIT_FAILED)


def _try(url: str) -> int:
    """Exit code 0 where all works."""
    client = Client(url)
    checks: tuple[tuple[str, Callable[[], str]], ...] = (
        ("Health", lambda: str(client.get("/api/v1/health")["status"])),
        ("Models", lambda: _models(client.get("/api/v1/chat/models"))),
        ("Chat", lambda: _say(client, {"message": "Hello!", "max_tokens": 50})["response"]),
        ("Conversation", lambda: _two_turns(client)),
        ("Generate", lambda: _generate(client)),
    )
    failed = False
    with contextlib.closing(client):
        for name, check in checks:
            try:
                click.echo(f"✅ {name}: {check()}")
            except (Refused, KeyError, TypeError) as error:
                failed = True
                click.echo(f"❌ {name}: {error}")
    return EXIT_FAILED if failed else 0


def _models(reply: Facts) -> str:
    return f"{len(reply['models'])} known, {reply['current_model'] or 'none'} loaded"


def _say(client: Client, body: Facts) -> Facts:
    return client.post("/api/v1/chat", body)


def _two_turns(client: Client) -> str:
    name = client.post("/api/v1/chat/new")["conversation_id"]
    for text in ("Hello!", "What did I just say?"):
        _say(client, {"message": text, "conversation_id": name, "max_tokens": 50})
    kept = client.get(f"/api/v1/chat/conversation/{name}")["messages"]
    client.delete(f"/v1/conversations/{name}")
    return f"{len(kept)} messages kept, and forgotten again"


def _generate(client: Client) -> str:
    reply = client.post("/api/v1/generate", {"prompt": "Once upon a time", "max_length": 30})
    return str(reply["generated_text"])


def _chat(url: str) -> None:
    command = [sys.executable, "-P", "-m", "service", "chat", "--url", url]
    subprocess.run(command, check=False)  # noqa: S603  # our own program


@contextlib.contextmanager
def _serving(model: str) -> Iterator[str]:
    """The address of a service with this model, for as long as the block lasts. Raises
    `Refused`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    with tempfile.TemporaryDirectory(prefix="parley-try-") as state:
        # What is fetched stays, what is said does not.
        assumed = {"LLM_MODEL_CACHE_DIR": str(Path("models").absolute())}
        environment = environment_with(assumed) | {"PARLEY_STATE_DIR": state}
        log = Path(state) / "log"
        command = [sys.executable, "-P", "-m", "service", "serve", "--model", model]
        with log.open("wb") as output:
            service = subprocess.Popen(  # noqa: S603  # our own program
                [*command, "--port", port], env=environment, stdout=output, stderr=output
            )
            try:
                _wait(service, f"http://127.0.0.1:{port}", log)
                yield f"http://127.0.0.1:{port}"
            finally:
                service.terminate()
                service.wait()


def _wait(service: subprocess.Popen[bytes], url: str, log: Path) -> None:
    with contextlib.closing(Client(url)) as client:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(Refused):
                client.get("/health")
                return
            if service.poll() is not None:
                raise Refused(f"The model could not be served: {log.read_text().strip()[-500:]}")
            time.sleep(_POLL_SECONDS)
    raise Refused(f"The model was not there after {START_SECONDS:g} s.")
