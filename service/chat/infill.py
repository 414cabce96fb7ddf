"""Filling a gap in a text: what to ask of the engine."""

from __future__ import annotations

from dataclasses import dataclass, field

from service.domain.access import Principal
from service.domain.chat import Prompt, PromptPiece, check_limits
from service.domain.errors import Unsupported
from service.domain.model import ModelInfo
from service.domain.sampling import Sampling
from service.ipc.messages import Submit


@dataclass(frozen=True, slots=True)
class InfillRequest:
    """What stands `before` and `after` the gap; what fills it goes on from `begun`.

    `context` is other text that may help. Otherwise as `ChatRequest`.
    """

    before: str
    after: str
    begun: str = ""
    context: tuple[str, ...] = ()
    model: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    request_id: str = ""

    def __post_init__(self) -> None:
        check_limits(self.max_tokens, self.stop, tokens_name="n_predict")


def to_job(request: InfillRequest, model: ModelInfo, principal: Principal) -> Submit:
    """Raises `Unsupported` for a model that was not trained to fill in."""
    return Submit(
        id=0,
        request_id=request.request_id,
        prompt=to_prompt(request, model),
        sampling=request.sampling,
        max_tokens=request.max_tokens,
        stop=request.stop,
        cache_key=principal.id,
        fair_key=principal.id,
    )


def to_prompt(request: InfillRequest, model: ModelInfo) -> Prompt:
    """The model's own tokens around people's text, which never becomes one of them."""
    if model.infill_tokens is None:
        raise Unsupported(
            f"{model.name} has no tokens for what stands before and after a gap, so it cannot fill "
            "one; use a model that was trained for it."
        )
    before, after, middle = model.infill_tokens
    return (
        *(PromptPiece(text + "\n", trusted=False) for text in request.context),
        PromptPiece(before, trusted=True),
        PromptPiece(request.before, trusted=False),
        PromptPiece(after, trusted=True),
        PromptPiece(request.after, trusted=False),
        PromptPiece(middle, trusted=True),
        PromptPiece(request.begun, trusted=False),
    )
