"""Log probabilities in the vendor's words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.api.dialects.openai.schemas import ChatCompletionBody
from service.domain.errors import InvalidRequest
from service.domain.events import Candidate, TokenLogprob


def to_num_logprobs(body: ChatCompletionBody) -> int | None:
    """How many alternatives to tell of; None: nothing at all. Raises `InvalidRequest`."""
    if body.logprobs:
        return body.top_logprobs or 0
    if body.top_logprobs is not None and body.top_logprobs != 0:
        raise InvalidRequest(
            "top_logprobs is set, but logprobs is not true; send both.", param="top_logprobs"
        )
    return None


def to_logprobs(logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
    content = [
        {**_to_entry(one.chosen), "top_logprobs": [_to_entry(other) for other in one.top]}
        for one in logprobs
    ]
    return {"content": content, "refusal": None}


def _to_entry(candidate: Candidate) -> dict[str, Any]:
    """`bytes` says what a token is that is half a character, which `token` can't."""
    return {
        "token": candidate.text.decode("utf-8", "replace"),
        "logprob": candidate.logprob,
        "bytes": list(candidate.text),
    }
