"""Going on with a text as it stands: what to ask of the engine."""

from __future__ import annotations

from service.domain.access import Principal
from service.domain.chat import PromptPiece, TextRequest
from service.ipc.messages import Submit


def to_text_job(request: TextRequest, principal: Principal) -> Submit:
    """No spelling in the text becomes a control token; token ids are taken at their word."""
    return Submit(
        id=0,
        request_id=request.request_id,
        prompt=(_to_piece(request.prompt),),
        sampling=request.sampling,
        max_tokens=request.max_tokens,
        stop=request.stop,
        cache_key=principal.id,
        fair_key=principal.id,
        logprobs=request.logprobs,
    )


def _to_piece(prompt: str | tuple[int, ...]) -> PromptPiece:
    if isinstance(prompt, str):
        return PromptPiece(prompt, trusted=False)
    return PromptPiece("", trusted=False, token_ids=prompt)
