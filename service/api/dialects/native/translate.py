"""From the native request to a turn of a conversation, with each vocabulary's own defaults."""

from __future__ import annotations

from dataclasses import dataclass

from service.api.dialects.native.schemas import ChatBody
from service.chat.conversations import Turn
from service.domain.conversation import valid_conversation_id
from service.domain.errors import InvalidRequest
from service.domain.sampling import Sampling
from service.settings import ChatSettings

DEFAULT_SESSION = "default"
_TEMPERATURE = 0.7
_MAX_TOKENS = 512
_EXCHANGES_KEPT = 5
_CALM_PROMPT = "You are a calm, knowledgeable assistant. Write clear, concise answers."


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """One of the two shapes of this dialect; `history_exchanges` None keeps all that fit."""

    default_session: str | None
    top_p: float
    history_exchanges: int | None


USER_INPUT = Vocabulary(DEFAULT_SESSION, top_p=0.95, history_exchanges=None)
MESSAGE = Vocabulary(None, top_p=0.9, history_exchanges=_EXCHANGES_KEPT)


def vocabulary_of(body: ChatBody) -> Vocabulary:
    return USER_INPUT if body.user_input is not None else MESSAGE


def to_turn(body: ChatBody, request_id: str, system_prompt: str) -> Turn:
    """The turn that the body asks for. Raises `InvalidRequest`."""
    text = body.user_input if body.user_input is not None else body.message or ""
    if not text.strip():
        raise InvalidRequest("Message cannot be empty")
    vocabulary = vocabulary_of(body)
    session = body.session_id or vocabulary.default_session
    return Turn(
        text=text,
        conversation_id=None if session is None else valid_conversation_id(session),
        create_missing=True,
        history_exchanges=to_history(body, vocabulary),
        system_prompt=system_prompt,
        sampling=Sampling(
            temperature=_TEMPERATURE if body.temperature is None else body.temperature,
            top_p=vocabulary.top_p if body.top_p is None else body.top_p,
        ),
        max_tokens=_MAX_TOKENS if body.max_tokens is None else min(body.max_tokens, 2**31 - 1),
        request_id=request_id,
        detached=body.background,
    )


def to_history(body: ChatBody, vocabulary: Vocabulary) -> int | None:
    """How many exchanges are told again; None for all that fit."""
    if body.history is None:
        return vocabulary.history_exchanges
    return None if body.history == "all" else body.history


def to_system_prompt(body: ChatBody, settings: ChatSettings, *, streamed: bool) -> str:
    """The caller's own, or the operator's; else what each older client was promised."""
    if body.system_prompt is not None:
        return body.system_prompt
    ours = ChatSettings.model_fields["system_prompt"].default
    if settings.system_prompt == ours and streamed and body.user_input is not None:
        return _CALM_PROMPT
    return settings.system_prompt
