"""What clients put into conversations as items, sane or not."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
import pytest_asyncio


@pytest_asyncio.fixture
async def path(client: httpx.AsyncClient) -> str:
    """The items of a new conversation."""
    made = (await client.post("/v1/conversations", json={})).json()["id"]
    return f"/v1/conversations/{made}/items"


@pytest.mark.parametrize(
    "item",
    [
        {"role": "assistant"},
        {"role": "assistant", "content": None},
        {"role": "assistant", "content": []},
        {"role": "user"},
        {"role": "user", "content": [{}]},
        {"content": [{"type": "input_text", "text": None}]},
        {"type": "reasoning", "content": "Let me see."},
        {"type": "reasoning", "summary": []},
        {"type": "function_call"},
        {"type": "function_call_output", "output": 7, "beside": {"more": [1, None]}},
        {"id": "", "status": ""},
    ],
)
async def test_an_item_that_says_little_is_kept_shown_and_taken_out(
    client: httpx.AsyncClient, path: str, item: dict[str, Any]
) -> None:
    added = await client.post(path, json={"items": [item]})
    assert added.status_code == 200, added.text
    (kept,) = added.json()["data"]
    assert (await client.get(path)).json()["data"] == [kept]
    assert (await client.delete(f"{path}/{kept['id']}")).status_code == 200
    assert (await client.get(path)).json()["data"] == []


@pytest.mark.parametrize(
    "item",
    [
        {"role": "user", "content": [{"type": "input_text", "text": 5}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": {}}]},
        {"role": "assistant", "content": ["text"]},
        {"type": "reasoning", "summary": "because"},
        {"id": {"a": 1}},
        {"status": ["completed"]},
        {"role": "user", "content": "half \ud800 of it"},
        {"role": "user", "content": [{"type": "input_text", "text": "half \ud800 of it"}]},
        {"type": "function_call", "beside": ["\ud800"]},
        {"type": "function_call", "\ud800": 1},
        {"type": "function_call", "deep": json.loads("[" * 65 + "]" * 65)},
        {"type": "function_call", "deep": json.loads("[" * 800 + "]" * 800)},
    ],
)
async def test_an_item_that_cannot_be_meant_is_refused(
    client: httpx.AsyncClient, path: str, item: dict[str, Any]
) -> None:
    refused = await client.post(
        path, content=json.dumps({"items": [item]}), headers={"Content-Type": "application/json"}
    )
    assert refused.status_code == 400, refused.text
    assert refused.json()["error"]["message"]
