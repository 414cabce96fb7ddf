"""The proxy's configuration, run for real."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.settings import ApiSettings
from tests.deploy.nginx import Echo, Proxy, command, program, render, running, service_at
from tests.waiting import until

Clients = Callable[..., httpx.Client]

pytestmark = pytest.mark.skipif(
    not program(),
    reason="nginx is not installed here",
)


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    with running(render(tmp_path)) as proxy:
        yield proxy


@pytest.fixture
def service(proxy: Proxy) -> Iterator[type[Echo]]:
    with service_at(proxy.root / "one.sock") as echo:
        proxy.front.symlink_to("one.sock")
        yield echo


@pytest.fixture
def client() -> Iterator[Clients]:
    """Makes clients of a proxy, with these headers."""
    with ExitStack() as clients:

        def make(proxy: Proxy, **headers: str) -> httpx.Client:
            made = httpx.Client(
                base_url=proxy.url,
                verify=False,  # noqa: S501  # its certificate is its own
                headers=headers,
                timeout=60,
            )
            return clients.enter_context(made)

        yield make


def test_the_configuration_is_accepted_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        command(render(tmp_path), "-t", "-q"), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_tokens_pass_before_the_stream_ends(
    proxy: Proxy, service: type[Echo], client: Clients
) -> None:
    with client(proxy).stream("GET", "/v1/stream") as reply:
        pieces = reply.iter_text()
        assert next(pieces) == "data: first\n\n"
        service.go_on.set()
        assert "".join(pieces) == "data: second\n\n"


@pytest.mark.usefixtures("service")
def test_nothing_that_a_client_claims_about_itself_is_believed(
    proxy: Proxy, client: Clients
) -> None:
    claims = {"X-Forwarded-For": "1.2.3.4", "X-Forwarded-Proto": "gopher", "Proxy": "evil"}
    heard = client(proxy).get("/", headers=claims).json()
    assert heard["X-Forwarded-For"] == "127.0.0.1"
    assert heard["X-Forwarded-Proto"] == "https"
    assert "Proxy" not in heard
    assert heard["Connection"] == "close"


@pytest.mark.usefixtures("service")
def test_a_harmless_request_id_is_kept_and_another_replaced(proxy: Proxy, client: Clients) -> None:
    kept = client(proxy).get("/", headers={"X-Request-Id": "mine-1"})
    replaced = client(proxy).get("/", headers={"X-Request-Id": 'a"b c'})
    assert kept.headers.get_list("X-Request-Id") == ["mine-1"]
    assert replaced.headers["X-Request-Id"].isalnum()


def envelope(path: str, message: str) -> Any:
    """The error at `path` with everything that its dialect requires."""
    if path.startswith("/v1/messages"):
        return {"type": "error", "error": {"type": "overloaded_error", "message": message}}
    if path.startswith("/v1"):
        code = {"type": "service_unavailable", "param": None, "code": "engine_unavailable"}
        return {"error": {"message": message, **code}}
    return {"detail": message}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/chat", "/"])
def test_a_service_that_is_away_is_told_in_the_dialect_of_the_route(
    proxy: Proxy, path: str, client: Clients
) -> None:
    reply = client(proxy).get(path)
    assert reply.status_code == 502
    assert reply.headers["Content-Type"] == "application/json"
    assert reply.headers["Retry-After"] == "5"
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    message = "The service is not answering; try again in a few seconds."
    assert reply.json() == envelope(path, message)


@pytest.mark.usefixtures("service")
def test_too_many_requests_of_one_token_are_refused_and_others_are_not(
    proxy: Proxy, client: Clients
) -> None:
    greedy = client(proxy, Authorization="Bearer greedy")
    replies = [greedy.get("/v1/models") for _ in range(60)]
    refused = [reply for reply in replies if reply.status_code == 429]
    assert len(refused) in range(1, 30)  # a burst of 30 passes, and two more each second
    assert refused[0].json()["error"]["type"] == "rate_limit_error"
    assert refused[0].headers["Retry-After"] == "2"
    assert client(proxy, Authorization="Bearer modest").get("/v1/models").status_code == 200


@pytest.mark.usefixtures("service")
def test_the_service_itself_refuses_bodies_that_are_a_little_too_large(
    proxy: Proxy, client: Clients
) -> None:
    limit = ApiSettings().max_body_bytes
    assert client(proxy).post("/chat", content=b"x" * (limit + 1)).status_code == 200
    reply = client(proxy).post("/chat", content=b"x" * (limit + 1_100_000))
    assert (reply.status_code, list(reply.json())) == (413, ["detail"])


@pytest.mark.usefixtures("service")
def test_metrics_are_for_this_machine(proxy: Proxy, client: Clients) -> None:
    assert client(proxy).get("/metrics").status_code == 200
    text = (proxy.root / "site.conf").read_text()
    assert "deny all;" in text.split("location = /metrics {")[1].split("}")[0]


def test_plain_http_leads_to_https_and_keeps_the_method(proxy: Proxy) -> None:
    base = f"http://127.0.0.1:{proxy.plain_port}"
    reply = httpx.post(f"{base}/chat?a=1", content=b"{}", timeout=60)
    assert (reply.status_code, reply.headers["Location"]) == (308, "https://127.0.0.1/chat?a=1")
    (proxy.root / "acme/.well-known/acme-challenge").mkdir(parents=True)
    (proxy.root / "acme/.well-known/acme-challenge/token").write_text("proof")
    token = f"{base}/.well-known/acme-challenge/token"
    assert httpx.get(token, timeout=60).text == "proof"


def test_turning_the_link_moves_new_requests_and_leaves_open_streams(
    proxy: Proxy, service: type[Echo], client: Clients
) -> None:
    other = proxy.root / "two.sock"
    with service_at(other, "two"), client(proxy).stream("GET", "/v1/stream") as reply:
        pieces = reply.iter_text()
        assert next(pieces) == "data: first\n\n"
        turned = proxy.root / "front.new"
        turned.symlink_to("two.sock")
        turned.replace(proxy.front)
        assert client(proxy).get("/").json()["name"] == "two"
        service.go_on.set()
        assert "".join(pieces) == "data: second\n\n"


def test_a_reload_leaves_open_streams_to_their_end(
    proxy: Proxy, service: type[Echo], client: Clients
) -> None:
    def workers() -> set[str]:
        with suppress(FileNotFoundError):  # it listens before it says who it is
            parent = (proxy.root / "nginx.pid").read_text().strip()
            return set(Path(f"/proc/{parent}/task/{parent}/children").read_text().split())
        return set()

    (before,) = until(workers)
    with client(proxy).stream("GET", "/v1/stream") as reply:
        pieces = reply.iter_text()
        assert next(pieces) == "data: first\n\n"
        subprocess.run(command(proxy, "-s", "reload"), check=True)
        while not workers() - {before}:
            assert client(proxy).get("/").status_code == 200
        assert before in workers()  # it has the stream
        service.go_on.set()
        assert "".join(pieces) == "data: second\n\n"


def test_the_log_holds_neither_queries_nor_access_tokens(
    proxy: Proxy, service: type[Echo], client: Clients
) -> None:
    service.go_on.set()
    client(proxy, Authorization="Bearer secret-1").get("/v1/stream?key=secret-2")
    (line,) = until(lambda: proxy.log)  # it is written behind the answer
    assert (line["path"], line["status"], line["done"]) == ("/v1/stream", 200, "OK")
    assert "secret" not in json.dumps(line)
