"""The native routes, as their earlier clients use them."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.fakes.engine import FakeEngine


class _Response:
    """As much of a blocking HTTP client's response as the loop below needs."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._connection = connection
        self._response = connection.getresponse()

    def iter_lines(self) -> Iterator[Any]:
        with closing(self._connection), self._response:
            for line in self._response:
                yield line.rstrip(b"\r\n")


class requests:
    @staticmethod
    def post(url: str, json: Any, stream: bool) -> _Response:
        parts = urlsplit(url)
        assert stream
        connection = http.client.HTTPConnection(parts.netloc, timeout=60)
        connection.request("POST", parts.path, dumped(json), {"Content-Type": "application/json"})
        return _Response(connection)


dumped = json.dumps


def clients_loop(base_url: str, print: Any) -> None:
    """The streaming loop that an earlier API documented for its Python clients, to the letter."""
    # fmt: off
    response = requests.post(
        f"{base_url}/chat/stream",
        json={"message": "Tell me a short story"},
        stream=True
    )

    for line in response.iter_lines():
        if line:
            line = line.decode('utf-8')  # noqa: PLW2901  to the letter
            if line.startswith('data: '):
                data = json.loads(line[6:])
                if 'token' in data:
                    print(data['token'], end='', flush=True)
                elif 'done' in data:
                    print("\n[Stream complete]")
                    break
    # fmt: on


async def test_the_documented_python_loop_reads_the_whole_story(
    address: str, engine: FakeEngine
) -> None:
    story = "Once upon a time,\n\nthere was\u2028 a [DONE] [END] 😀.\n"
    engine.answers(story)
    printed: list[str] = []

    def collect(text: str, end: str = "\n", flush: bool = False) -> None:
        printed.append(text + end)

    await asyncio.to_thread(clients_loop, address, collect)
    assert "".join(printed) == story + "\n[Stream complete]\n"


async def test_the_front_door_speaks_to_browsers_and_to_others(client: httpx.AsyncClient) -> None:
    page = await client.get("/", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.text.lower().startswith("<!doctype html>")
    facts = await client.get("/")
    assert facts.json()["status"] == "ok"
    assert facts.json()["message"] == "Chatbot API is running."
    assert facts.json()["service"] == "LLaMA Chat API"
    assert (facts.json()["docs"], facts.json()["health"]) == ("/docs", "/health")
    assert facts.headers["vary"] == page.headers["vary"] == "Accept"
    assert (await client.head("/")).status_code == 200


async def test_user_input_goes_on_with_one_history(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    first = await client.post("/chat", json={"user_input": "My name is Alice."})
    assert first.json() == {"reply": "Hello there, friend."}
    assert first.headers["x-session-id"] == "default"
    await client.post("/chat", json={"user_input": "What's my name?"})
    prompt = "".join(piece.text for piece in engine.jobs[-1].prompt)
    assert "My name is Alice." in prompt
    assert "You are a helpful assistant. Provide clear, concise, and accurate answers." in prompt


async def test_a_message_starts_a_session_unless_it_names_one(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    first = (await client.post("/chat", json={"message": "My name is Alice."})).json()
    other = (await client.post("/chat", json={"message": "Who am I?"})).json()
    assert first["session_id"] != other["session_id"]
    assert "Alice" not in "".join(piece.text for piece in engine.jobs[-1].prompt)
    body = {"message": "Who am I?", "session_id": first["session_id"]}
    assert (await client.post("/chat", json=body)).json()["session_id"] == first["session_id"]
    assert "Alice" in "".join(piece.text for piece in engine.jobs[-1].prompt)


async def test_a_session_tells_the_model_its_last_five_exchanges(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    for number in range(7):
        body = {"message": f"number{number}", "session_id": "s"}
        reply = await client.post("/chat", json=body)
    prompt = "".join(piece.text for piece in engine.jobs[-1].prompt)
    assert [number for number in range(7) if f"number{number}" in prompt] == [1, 2, 3, 4, 5, 6]
    assert reply.headers["x-context-dropped-messages"] == "2"


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/chat", {"user_input": "a"}, (0.7, 0.95, 512)),
        ("/chat", {"message": "a"}, (0.7, 0.9, 512)),
        ("/chat/stream", {"user_input": "a"}, (0.7, 0.95, 512)),
        ("/chat", {"message": "a", "temperature": 0, "top_p": 0.5, "max_tokens": 9}, (0, 0.5, 9)),
        ("/chat", {"message": "a", "temperature": None, "top_p": None}, (0.7, 0.9, 512)),
    ],
)
async def test_each_shape_has_its_own_defaults(
    client: httpx.AsyncClient,
    engine: FakeEngine,
    path: str,
    body: dict[str, Any],
    expected: tuple[float, float, int],
) -> None:
    await client.post(path, json=body)
    job = engine.jobs[-1]
    assert (job.sampling.temperature, job.sampling.top_p, job.max_tokens) == expected


async def test_the_older_page_gets_the_calm_assistant(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    await client.post("/chat/stream", json={"user_input": "a"})
    prompt = "".join(piece.text for piece in engine.jobs[-1].prompt)
    assert "You are a calm, knowledgeable assistant." in prompt


async def test_sessions_are_listed_and_cleared(client: httpx.AsyncClient) -> None:
    for session in ("a", "b"):
        await client.post("/chat", json={"message": "x", "session_id": session})
    listed = (await client.get("/sessions")).json()
    assert (set(listed["sessions"]), listed["count"]) == ({"a", "b"}, 2)
    cleared = await client.post("/chat/clear", json={"session_id": "a"})
    assert cleared.json() == {"status": "cleared", "session_id": "a"}
    again = await client.post("/chat/clear", json={"session_id": "a"})
    assert (again.status_code, again.json()["detail"]) == (404, "Session not found")
    assert (await client.get("/sessions")).json() == {"sessions": ["b"], "count": 1}


async def test_reset_starts_over(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    assert (await client.post("/reset")).json() == {"status": "cleared", "session_id": "default"}
    await client.post("/chat", json={"user_input": "My name is Alice."})
    assert (await client.post("/reset")).status_code == 200
    await client.post("/chat", json={"user_input": "Who am I?"})
    assert "Alice" not in "".join(piece.text for piece in engine.jobs[-1].prompt)


@pytest.mark.parametrize(
    ("query", "accept", "as_json"),
    [
        ("", "*/*", False),
        ("?format=json", "*/*", True),
        ("?format=text", "application/json", False),
        ("", "application/json", True),
    ],
)
async def test_user_input_may_ask_for_objects(
    client: httpx.AsyncClient, query: str, accept: str, as_json: bool
) -> None:
    reply = await client.post(
        f"/chat/stream{query}", json={"user_input": "a"}, headers={"Accept": accept}
    )
    assert ('data: {"token":"Hello"}' in reply.text) is as_json
    assert ("data: [END]" in reply.text) is not as_json


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_the_documents_need_nothing_from_elsewhere(
    client: httpx.AsyncClient, path: str
) -> None:
    reply = await client.get(path)
    assert reply.status_code == 200
    for word in ("/v1/chat/completions", "/chat/stream", "/health", "text/event-stream"):
        assert word in reply.text
    assert "<script" not in reply.text
    assert not re.search(r"(src|href)=.(?!#|/openapi.json)", reply.text)
