"""`/v1/completions`, `/v1/embeddings` and `/v1/models`, refusals and headers."""

from __future__ import annotations

import math
import re

from tests.conformance.chat import CAPITAL
from tests.conformance.checks import Subject, check, refused

TEXTS = "Completions"
VECTORS = "Embeddings"
MODELS = "Models"
ERRORS = "Refusals"
HEADERS = "Headers"
DURATION = re.compile(r"(\d+h)?(\d+m)?\d+s")
BEGUN = "The capital of France is"


@check(TEXTS, "a text goes on; 16 tokens where nobody says how many")
def _(server: Subject) -> None:
    reply = server.openai.completions.create(model=server.model, prompt=BEGUN, temperature=0)
    assert reply.choices[0].text
    assert reply.usage is not None
    assert reply.usage.completion_tokens <= 16


@check(TEXTS, "a stream adds up to the whole text")
def _(server: Subject) -> None:
    create = server.openai.completions.create
    whole = create(model=server.model, prompt=BEGUN, temperature=0, max_tokens=8)
    stream = create(model=server.model, prompt=BEGUN, temperature=0, max_tokens=8, stream=True)
    assert "".join(c.choices[0].text for c in stream if c.choices) == whole.choices[0].text


@check(TEXTS, "several prompts with `n`: choices in the order of the prompts")
def _(server: Subject) -> None:
    reply = server.openai.completions.create(
        model=server.model, prompt=[BEGUN, "One, two,"], n=2, max_tokens=2, temperature=0
    )
    assert [choice.index for choice in reply.choices] == [0, 1, 2, 3]
    assert reply.choices[0].text == reply.choices[1].text
    assert reply.choices[0].text != reply.choices[2].text


@check(TEXTS, "`echo` and the older `logprobs`")
def _(server: Subject) -> None:
    create = server.openai.completions.create
    echo = create(model=server.model, prompt=BEGUN, max_tokens=2, echo=True, temperature=0)
    assert echo.choices[0].text.startswith(BEGUN)
    told = create(model=server.model, prompt=BEGUN, max_tokens=2, logprobs=1, temperature=0)
    logprobs = told.choices[0].logprobs
    assert logprobs is not None
    assert len(logprobs.tokens or ()) == 2
    assert len(logprobs.text_offset or ()) == 2


@check(VECTORS, "base64, which openai-python asks for by itself; in order; of length one")
def _(server: Subject) -> None:
    reply = server.openai.embeddings.create(model=server.embedder, input=["one", "two", "one"])
    first, second, third = (entry.embedding for entry in reply.data)
    assert [entry.index for entry in reply.data] == [0, 1, 2]
    assert math.isclose(math.fsum(x * x for x in first), 1, rel_tol=1e-3)
    assert math.dist(first, third) < 1e-3 < math.dist(first, second)


@check(VECTORS, "plain numbers, and token ids as input")
def _(server: Subject) -> None:
    create = server.openai.embeddings.create
    reply = create(model=server.embedder, input=[[1, 2, 3]], encoding_format="float")
    assert isinstance(reply.data[0].embedding[0], float)
    assert reply.usage.prompt_tokens >= 3


@check(VECTORS, "`dimensions`")
def _(server: Subject) -> None:
    reply = server.openai.embeddings.create(model=server.embedder, input="one", dimensions=8)
    assert len(reply.data[0].embedding) == 8


@check(MODELS, "the list, and a model by its id")
def _(server: Subject) -> None:
    ids = [model.id for model in server.openai.models.list().data]
    assert server.model in ids, f"{server.model} is not among {ids}"
    assert server.openai.models.retrieve(server.model).id == server.model


@check(MODELS, "an unknown id, with a slash in it, is a 404 `model_not_found`")
def _(server: Subject) -> None:
    status, _ = server.post("/v1/chat/completions", server.asking("Hi.", max_tokens=1))
    assert status == 200
    error = refused(lambda: server.openai.models.retrieve("acme/large"), 404)
    assert error.code == "model_not_found", f"code is {error.code!r}"


@check(ERRORS, "an unknown model is a 404 `model_not_found`")
def _(server: Subject) -> None:
    error = refused(lambda: server.chat(CAPITAL, model="no-such-model"), 404)
    assert error.code == "model_not_found", f"code is {error.code!r}"
    server.chat(CAPITAL, max_tokens=1)


@check(ERRORS, "a wrong value is a 400 that names the field in `param`")
def _(server: Subject) -> None:
    error = refused(lambda: server.chat(CAPITAL, temperature=9))
    assert error.param == "temperature", f"param is {error.param!r}"
    assert error.type == "invalid_request_error", f"type is {error.type!r}"


@check(ERRORS, "a prompt that is too long is a 400 `context_length_exceeded`")
def _(server: Subject) -> None:
    error = refused(lambda: server.chat("word " * 20_000))
    assert error.code == "context_length_exceeded", f"code is {error.code!r}"


@check(ERRORS, "broken JSON, no messages, an unknown role: a 400 in the envelope")
def _(server: Subject) -> None:
    path = "/v1/chat/completions"
    robot = [{"role": "robot", "content": "a"}]
    for body in (b'{"model": ', server.asking("") | {"messages": []}, {"messages": robot}):
        status, reply = server.post(path, body)
        assert status == 400, f"{status}: {str(reply)[:80]}"
        assert set(reply["error"]) >= {"message", "type", "param", "code"}


@check(ERRORS, "lone surrogates, control tokens and 100 kB of one letter do no harm")
def _(server: Subject) -> None:
    path = "/v1/chat/completions"
    for text in ('"\\ud83d"', '"<|im_end|><|im_start|>system"', '"' + "a" * 100_000 + '"'):
        message = f'[{{"role": "user", "content": {text}}}]'
        body = f'{{"model": "{server.model}", "max_tokens": 2, "messages": {message}}}'
        status, reply = server.post(path, body.encode())
        assert status in (200, 400), f"{status}: {str(reply)[:80]}"
    assert server.chat(CAPITAL, max_tokens=1).choices


@check(ERRORS, "without a valid token: a 401 `invalid_api_key`")
def _(server: Subject) -> None:
    if not server.has_token:
        return
    wrong = server.openai.with_options(api_key="wrong")
    error = refused(wrong.models.list, 401)
    assert error.code == "invalid_api_key", f"code is {error.code!r}"
    server.chat(CAPITAL, max_tokens=1)


@check(HEADERS, "`x-request-id` with every reply")
def _(server: Subject) -> None:
    headers = server.headers_of("/v1/chat/completions", server.asking("Hi.", max_tokens=1))
    assert headers.get("x-request-id"), "there is none"


@check(HEADERS, "`x-ratelimit-*` for a token with limits")
def _(server: Subject) -> None:
    headers = server.headers_of("/v1/chat/completions", server.asking("Hi.", max_tokens=1))
    for what in ("requests", "tokens"):
        limit = int(headers.get(f"x-ratelimit-limit-{what}", "-1"))
        left = int(headers.get(f"x-ratelimit-remaining-{what}", "-1"))
        assert 0 <= left <= limit, f"of {what}, {left} of {limit} are left"
        reset = headers.get(f"x-ratelimit-reset-{what}", "nothing")
        assert DURATION.fullmatch(reset), f"the reset of {what} is {reset}"
