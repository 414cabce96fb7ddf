"""The `/api/v1` vocabulary."""

from __future__ import annotations

import httpx
import pytest

from tests.fakes.engine import FAKE_MODEL, FakeEngine


async def test_a_conversation_is_started_and_goes_on(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    started = (await client.post("/api/v1/chat/new")).json()
    assert started["message"] == "New conversation started"
    name = started["conversation_id"]
    assert name.startswith("conv_")
    engine.answers("The capital of France is Paris.", "About two million.")
    first = {
        "message": "What is the capital of France?",
        "conversation_id": name,
        "max_length": 100,
        "temperature": 0.7,
    }
    reply = (await client.post("/api/v1/chat", json=first)).json()
    assert set(reply) == {"response", "conversation_id", "generation_time"}
    assert reply["response"] == "The capital of France is Paris."
    assert reply["conversation_id"] == name
    assert isinstance(reply["generation_time"], float)
    assert engine.jobs[0].max_tokens == 100
    await client.post("/api/v1/chat", json={"message": "Who lives there?", "conversation_id": name})
    prompt = "".join(piece.text for piece in engine.jobs[1].prompt)
    assert "The capital of France is Paris." in prompt


async def test_a_message_without_a_conversation_starts_one(client: httpx.AsyncClient) -> None:
    reply = (await client.post("/api/v1/chat", json={"message": "Hi"})).json()
    assert reply["conversation_id"].startswith("conv_")


async def test_the_smaller_of_two_lengths_wins(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    body = {"message": "Hi", "max_length": 100, "max_tokens": 150, "top_k": 20}
    await client.post("/api/v1/chat", json=body)
    job = engine.jobs[0]
    assert (job.max_tokens, job.sampling.top_k, job.sampling.temperature) == (100, 20, 0.7)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"message": ""}, 400),
        ({"message": "x", "temperature": 9}, 422),
        ({"message": "x", "conversation_id": "a b"}, 400),
        ({"message": "x", "max_length": 0}, 422),
    ],
)
async def test_bad_input_is_refused_in_this_dialects_words(
    client: httpx.AsyncClient, body: dict[str, object], status: int
) -> None:
    reply = await client.post("/api/v1/chat", json=body)
    assert reply.status_code == status
    assert set(reply.json()) == {"detail"}


async def test_the_models_are_listed_with_the_loaded_one_first(client: httpx.AsyncClient) -> None:
    reply = (await client.get("/api/v1/chat/models")).json()
    assert reply["current_model"] == FAKE_MODEL.name
    assert reply["models"][0]["name"] == FAKE_MODEL.name
    assert [m["status"] for m in reply["models"]].count("Loaded") == 1
    assert {"gpt2", "gpt2-medium", "distilgpt2", "llama3-1b", "llama3-3b"} <= {
        m["name"] for m in reply["models"]
    }


async def test_health_and_model_say_what_is_served(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    assert (await client.get("/api/v1/health")).json()["model_loaded"] is True
    assert (await client.get("/api/v1/model-info")).json()["model_name"] == FAKE_MODEL.name
    engine.dies()
    assert (await client.get("/api/v1/health")).status_code == 503
    assert (await client.get("/api/v1/model-info")).json()["loaded"] is False


async def test_an_unknown_conversation_is_404(client: httpx.AsyncClient) -> None:
    reply = await client.get("/api/v1/chat/conversation/conv_unknown")
    assert reply.status_code == 404
    assert reply.json() == {"detail": "There is no conversation `conv_unknown`."}


@pytest.mark.parametrize("path", ["/api/v1/chat/switch-model", "/api/v1/load-model"])
async def test_another_model_is_loaded_by_name(
    client: httpx.AsyncClient, engine: FakeEngine, path: str
) -> None:
    reply = await client.post(path, json={"model_name": "pocket"})
    assert reply.status_code == 200
    assert reply.json() == {
        "status": "success",
        "model_name": "pocket",
        "previous_model": FAKE_MODEL.name,
        "message": "Successfully switched to pocket",
    }
    assert [command.name for command in engine.switches] == ["pocket"]


async def test_an_unknown_model_is_not_switched_to(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    reply = await client.post("/api/v1/chat/switch-model", json={"model_name": "nonsense-9"})
    assert reply.status_code == 404
    assert "nonsense-9" in reply.json()["detail"]
    assert engine.switches == []
