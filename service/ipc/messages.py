"""The frames between a worker and an engine.

One unix stream socket per worker, many requests on it, told apart by an id that is unique per
connection. The engine says `Hello` first. It answers each `Submit` with `Accepted` or `Refused`,
then reports progress in one `Step` per decode step for all of the connection's requests. The
other requests of a worker (`CountTokens`, `Embed`, …) have each one answer, or `Refused`; which
of them an engine takes depends on its mode. Closing the connection cancels all its requests.
"""

from __future__ import annotations

import msgspec

from service.domain.chat import Priority, PromptPiece
from service.domain.constraint import Constraint
from service.domain.events import FinishReason, Timings, TokenLogprob, Usage
from service.domain.model import ModelInfo
from service.domain.sampling import Sampling

PROTOCOL_VERSION = 3


class Frame(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Base of all frames: msgpack arrays, tagged by name in their first element."""


class Submit(Frame, tag="submit", frozen=True):
    """Generate from `prompt`. `max_tokens` None means the rest of the slot.

    `cache_key` separates prefix caches: a slot's tokens are reused only under the same key. The
    first `shared_characters` of the prompt are nobody's in particular (the operator's own system
    prompt) and are reused, whole, under any key.
    Under `fair_key` requests share one portion of the engine's time, in proportion to `weight`.
    Where the answer has not closed its thought with `reasoning_end` after `reasoning_budget`
    tokens, that text is written for it; there is a thought if it begins with `reasoning_start`, or
    if the prompt does (then that is empty). `shown_tokens` are control tokens whose spelling is
    part of the text. `constraint`, `logprobs` and the deadlines are those of
    `ChatRequest`. `pictures` are the files that the prompt's picture pieces stand for, in their
    order.
    """

    id: int
    request_id: str
    prompt: tuple[PromptPiece, ...]
    sampling: Sampling
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    cache_key: str = ""
    shared_characters: int = 0
    fair_key: str = ""
    weight: float = 1.0
    priority: Priority = Priority.INTERACTIVE
    first_token_seconds: float | None = None
    deadline_seconds: float | None = None
    constraint: Constraint | None = None
    logprobs: int | None = None
    reasoning_budget: int | None = None
    reasoning_end: str = ""
    reasoning_start: str = ""
    shown_tokens: tuple[str, ...] = ()
    pictures: tuple[bytes, ...] = ()


class Cancel(Frame, tag="cancel", frozen=True):
    """Stop request `id`, wherever it is; unknown ids are ignored (it may just have finished)."""

    id: int


class CountTokens(Frame, tag="count", frozen=True):
    """Tokenize `prompt`, with its `pictures`, as `Submit` would, and answer with `Counted`."""

    id: int
    prompt: tuple[PromptPiece, ...]
    pictures: tuple[bytes, ...] = ()


class Embed(Frame, tag="embed", frozen=True):
    """Turn each input, text or token ids, into a vector of length 1; answered by `Embedded`.

    `dimensions` keeps only the first numbers of each vector. Under `fair_key` requests share one
    portion of the engine's time.
    """

    id: int
    request_id: str
    inputs: tuple[str | tuple[int, ...], ...]
    dimensions: int | None = None
    fair_key: str = ""


class Rerank(Frame, tag="rerank", frozen=True):
    """Judge how well each document answers the query; answered by `Ranked`."""

    id: int
    request_id: str
    query: str
    documents: tuple[str, ...]
    fair_key: str = ""


class Tokenize(Frame, tag="tokenize", frozen=True):
    """The token ids of `prompt`; answered by `Tokenized`.

    `add_special` puts around it what the model expects around a text, `with_pieces` asks for the
    bytes of each token.
    """

    id: int
    prompt: tuple[PromptPiece, ...]
    add_special: bool = False
    with_pieces: bool = False


class Detokenize(Frame, tag="detokenize", frozen=True):
    """The text of token ids, control tokens spelled out; answered by `Detokenized`."""

    id: int
    token_ids: tuple[int, ...]


class Hello(Frame, tag="hello", frozen=True):
    """The first frame on every connection."""

    protocol_version: int
    pid: int
    model: ModelInfo


class Accepted(Frame, tag="accepted", frozen=True):
    """The request was tokenized, fits, and is queued; `num_waiting` requests are ahead of it."""

    id: int
    prompt_tokens: int
    num_waiting: int


class Queued(Frame, tag="queued", frozen=True):
    """An accepted request still waits: `num_ahead` go first, for about `eta_seconds`."""

    id: int
    num_ahead: int
    eta_seconds: float


class Refused(Frame, tag="refused", frozen=True):
    """The request will not run. `code` is that of a `ServiceError`."""

    id: int
    code: str
    message: str
    param: str | None = None
    retry_after_seconds: float | None = None


class Counted(Frame, tag="counted", frozen=True):
    id: int
    num_tokens: int


class Embedded(Frame, tag="embedded", frozen=True):
    """Vectors of the next inputs of a request, in their order: 32-bit floats, little-endian.

    `num_tokens` has the length of each of these inputs; the `last` frame completes the request.
    """

    id: int
    vectors: tuple[bytes, ...]
    num_tokens: tuple[int, ...]
    last: bool


class Ranked(Frame, tag="ranked", frozen=True):
    """Scores of the next documents of a request, as `Embedded` has vectors of inputs."""

    id: int
    scores: tuple[float, ...]
    num_tokens: tuple[int, ...]
    last: bool


class Tokenized(Frame, tag="tokenized", frozen=True):
    """`pieces` are the bytes of each token where they were asked for, else none."""

    id: int
    token_ids: tuple[int, ...]
    pieces: tuple[bytes, ...] = ()


class Detokenized(Frame, tag="detokenized", frozen=True):
    id: int
    text: str


class Delta(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """New text of a request. Text may be held back, so `num_tokens` may be any number >= 0, and
    `logprobs`, one for each of them where they were asked for, may be there without text.

    `begins` says of each token behind how many of the characters it begins: of what comes before
    the first, the tokens were counted earlier. Without it, all begin where the text does.
    """

    id: int
    text: str
    num_tokens: int
    logprobs: tuple[TokenLogprob, ...] = ()
    begins: tuple[int, ...] = ()


class Done(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The last word on a request: finished, or (with `error_code`) failed."""

    id: int
    reason: FinishReason
    usage: Usage
    timings: Timings
    stop_sequence: str | None = None
    error_code: str | None = None
    error_message: str = ""


class Step(Frame, tag="step", frozen=True):
    """What one decode step brought to this connection's requests; deltas come before the dones."""

    deltas: tuple[Delta, ...] = ()
    dones: tuple[Done, ...] = ()


ToEngine = Submit | Cancel | CountTokens | Embed | Rerank | Tokenize | Detokenize
FromEngine = (
    Hello
    | Accepted
    | Queued
    | Refused
    | Counted
    | Step
    | Embedded
    | Ranked
    | Tokenized
    | Detokenized
)
