"""A chat as the model sees it: its text, and its length."""

from __future__ import annotations

import httpx

HELLO = {"messages": [{"role": "user", "content": "Hello there"}]}


async def test_the_prompt_is_written_as_the_models_template_has_it(
    client: httpx.AsyncClient,
) -> None:
    reply = await client.post("/apply-template", json=HELLO)
    assert reply.json() == {
        "prompt": "<|im_start|>user\nHello there<|im_end|>\n<|im_start|>assistant\n"
    }


async def test_the_number_of_tokens_is_that_of_the_answers_usage(client: httpx.AsyncClient) -> None:
    counted = (await client.post("/v1/chat/completions/input_tokens", json=HELLO)).json()
    answered = (await client.post("/v1/chat/completions", json=HELLO)).json()
    assert counted["input_tokens"] == answered["usage"]["prompt_tokens"]


async def test_what_is_no_chat_is_refused_in_the_same_words(client: httpx.AsyncClient) -> None:
    for path in ("/apply-template", "/v1/chat/completions/input_tokens"):
        reply = await client.post(path, json={"messages": []})
        assert reply.status_code == 400
        assert reply.json()["error"]["param"] == "messages"
