"""`/v1/chat/completions`: answers, streams, and what they can be told."""

from __future__ import annotations

from typing import Any

from tests.conformance.checks import Subject, check, refused

AREA = "Chat completions"
CAPITAL = "What is the capital of France?"
STORY = "Tell me a story about a dog."
_NULLABLE = (
    *("temperature", "top_p", "n", "stream", "stop", "max_tokens", "max_completion_tokens"),
    *("presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "top_logprobs", "seed"),
    *("response_format", "tools", "tool_choice", "parallel_tool_calls", "user", "metadata"),
    *("store", "service_tier", "reasoning_effort", "stream_options", "modalities", "audio"),
)
_HARMLESS = {
    "store": False,
    "metadata": {"a": "b"},
    "user": "u",
    "safety_identifier": "s",
    "prompt_cache_key": "k",
    "service_tier": "auto",
    "verbosity": "low",
    "modalities": ["text"],
    "unheard_of": 1,
}


def text_of(chunks: list[Any], index: int = 0) -> str:
    """The text of one choice of a stream."""
    choices = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
    return "".join(choice.delta.content or "" for choice in choices)


def names_a_picture(error: Any) -> bool:
    return any(word in str(error).lower() for word in ("image", "picture", "vision"))


@check(AREA, "a whole answer, with every key that clients need, and usage that adds up")
def _(server: Subject) -> None:
    reply = server.chat(CAPITAL)
    (choice,) = reply.choices
    assert "Paris" in choice.message.content, f"the answer is {choice.message.content!r}"
    assert (choice.finish_reason, choice.message.role) == ("stop", "assistant")
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert reply.usage.prompt_tokens > 0, "no prompt tokens are counted"


@check(AREA, "a stream adds up to the whole answer; its role comes once, its id is one")
def _(server: Subject) -> None:
    chunks = list(server.chat(CAPITAL, stream=True))
    assert text_of(chunks) == server.chat(CAPITAL).choices[0].message.content
    roles = [c.choices[0].delta.role for c in chunks if c.choices and c.choices[0].delta.role]
    assert roles == ["assistant"], f"the role comes {len(roles)} times"
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert all(chunk.usage is None for chunk in chunks), "usage comes unasked"


@check(AREA, "`stream_options.include_usage`: a last chunk without choices")
def _(server: Subject) -> None:
    chunks = list(server.chat(CAPITAL, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == [], "the last chunk has choices"
    assert chunks[-1].usage is not None
    assert all(chunk.usage is None for chunk in chunks[:-1])
    whole = server.chat(CAPITAL).usage
    assert chunks[-1].usage.completion_tokens == whole.completion_tokens


@check(AREA, "openai-python's own accumulator agrees with the stream")
def _(server: Subject) -> None:
    with server.openai.chat.completions.stream(**server.asking(CAPITAL)) as stream:
        completion = stream.get_final_completion()
    assert "Paris" in (completion.choices[0].message.content or "")
    assert completion.choices[0].message.role == "assistant"


@check(AREA, "`max_tokens` and `max_completion_tokens` end an answer with `length`")
def _(server: Subject) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        reply = server.chat(STORY, **{name: 4})
        assert reply.choices[0].finish_reason == "length", name
        assert reply.usage.completion_tokens == 4, name


@check(AREA, "`stop`, one or several, ends an answer and is not part of it, streamed or not")
def _(server: Subject) -> None:
    for stop in ("Paris", ["zzz", "ris"]):
        whole = server.chat(CAPITAL, stop=stop).choices[0]
        assert "Paris" not in whole.message.content
        assert whole.finish_reason == "stop"
        chunks = list(server.chat(CAPITAL, stop=stop, stream=True))
        assert text_of(chunks) == whole.message.content


@check(AREA, "`n`: several answers; in a stream each has its own role and its own end")
def _(server: Subject) -> None:
    reply = server.chat(STORY, n=2, temperature=1, seed=1, max_tokens=8)
    assert [choice.index for choice in reply.choices] == [0, 1]
    chunks = list(server.chat(STORY, n=2, temperature=1, seed=1, max_tokens=8, stream=True))
    for index in (0, 1):
        own = [c for chunk in chunks for c in chunk.choices if c.index == index]
        assert [c.delta.role for c in own if c.delta.role] == ["assistant"]
        assert sum(c.finish_reason is not None for c in own) == 1


@check(AREA, "`seed` makes an answer come again")
def _(server: Subject) -> None:
    options = {"temperature": 1.2, "seed": 7, "max_tokens": 24}
    texts = {server.chat(STORY, **options).choices[0].message.content for _ in range(2)}
    assert len(texts) == 1, "two answers with one seed differ"


@check(AREA, "`logprobs` and `top_logprobs`, also in streams, where they come with their text")
def _(server: Subject) -> None:
    whole = server.chat(CAPITAL, logprobs=True, top_logprobs=2).choices[0]
    assert "".join(e.token for e in whole.logprobs.content) == whole.message.content
    assert all(len(entry.top_logprobs) == 2 for entry in whole.logprobs.content)
    for chunk in server.chat(CAPITAL, logprobs=True, top_logprobs=2, stream=True):
        for choice in chunk.choices:
            told = (choice.logprobs and choice.logprobs.content) or []
            assert "".join(entry.token for entry in told) == (choice.delta.content or "")


@check(AREA, "`logit_bias`, whose keys are strings of token ids")
def _(server: Subject) -> None:
    plain = server.chat(CAPITAL, max_tokens=1, logprobs=True, top_logprobs=1)
    wanted = server.chat(CAPITAL, max_tokens=4, logit_bias={"100": 100})
    assert wanted.choices[0].message.content != plain.choices[0].message.content
    pieces = {wanted.choices[0].message.content[i::4] for i in range(4)}
    assert wanted.usage.completion_tokens == 4
    assert pieces, "nothing was written"


@check(AREA, "content as parts, `developer`, `name`, and two messages of one role in a row")
def _(server: Subject) -> None:
    part = {"type": "text", "text": CAPITAL}
    messages = [
        {"role": "developer", "content": "Answer briefly."},
        {"role": "user", "content": "Hello.", "name": "ann"},
        {"role": "user", "content": [part]},
    ]
    reply = server.chat("", messages=messages)
    assert reply.choices[0].message.content, "the answer is empty"


@check(AREA, "every nullable field may be null")
def _(server: Subject) -> None:
    for name in _NULLABLE:
        body = server.asking(CAPITAL, max_tokens=1) | {name: None}
        status, reply = server.post("/v1/chat/completions", body)
        assert status == 200, f"{name}: null is refused: {reply}"


@check(AREA, "harmless and unknown fields are accepted")
def _(server: Subject) -> None:
    body = server.asking(CAPITAL, max_tokens=1) | _HARMLESS
    status, reply = server.post("/v1/chat/completions", body)
    assert status == 200, str(reply)


@check(AREA, "thoughts: `reasoning_content` beside the text, and counted")
def _(server: Subject) -> None:
    reply = server.chat("How much is 2 and 3?", reasoning_effort="high", max_tokens=300)
    message, usage = reply.choices[0].message, reply.usage
    thought = (message.model_extra or {}).get("reasoning_content")
    assert thought, "there is no reasoning_content"
    assert "</think>" not in (message.content or "")
    counted = usage.completion_tokens_details.reasoning_tokens
    assert 0 < counted <= usage.completion_tokens, f"{counted} reasoning tokens"


@check(AREA, "an image for a model that sees none is refused by name")
def _(server: Subject) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]}]
    error = refused(lambda: server.chat("", messages=messages))
    assert names_a_picture(error), f"the sentence is {error.message!r}"


@check(AREA, "what would change the meaning is refused: audio, `n` of 1000, half a logprob")
def _(server: Subject) -> None:
    refused(lambda: server.chat(CAPITAL, n=1000))
    refused(lambda: server.chat(CAPITAL, top_logprobs=2))
    refused(lambda: server.chat(CAPITAL, modalities=["audio"], audio={"voice": "a"}))
    assert server.last.status == 400
