"""A model's words: from text to token ids and back, as the model itself sees them."""

from __future__ import annotations

from contextlib import suppress

from service.domain.chat import PromptPiece
from service.domain.errors import EngineUnavailable, ModelNotFound
from service.domain.model import Mode
from service.ipc.client import EngineClient, Engines
from service.ipc.framing import FramingError
from service.ipc.messages import Detokenize, Detokenized, Tokenize, Tokenized


async def tokenize(
    engines: Engines, piece: PromptPiece, model: str | None, *, add_special: bool, with_pieces: bool
) -> Tokenized:
    """The token ids of a text. Where it is trusted, spellings of control tokens are those tokens.

    `model` None means the one that answers chats. Raises `ModelNotFound` or `EngineUnavailable`.
    """
    question = Tokenize(0, (piece,), add_special, with_pieces)
    (answer,) = await _client_of(engines, model).ask(question)
    if not isinstance(answer, Tokenized):
        raise FramingError(f"the engine answered a text with {type(answer).__name__}")
    return answer


async def detokenize(engines: Engines, token_ids: tuple[int, ...], model: str | None) -> str:
    """The text of token ids, control tokens spelled out. Raises `InvalidRequest` for what is no
    token id, and otherwise as `tokenize`."""
    (answer,) = await _client_of(engines, model).ask(Detokenize(0, token_ids))
    if not isinstance(answer, Detokenized):
        raise FramingError(f"the engine answered token ids with {type(answer).__name__}")
    return answer.text


def _client_of(engines: Engines, model: str | None) -> EngineClient:
    chat = engines.current()
    if model in (None, chat.model.name) or model in engines.status.names:
        return chat
    for mode in (Mode.EMBED, Mode.RERANK):
        with suppress(EngineUnavailable):
            client = engines.current(mode)
            if client.model.name == model:
                return client
    raise ModelNotFound(f"The model `{str(model)[:200]}` does not exist.", param="model")
