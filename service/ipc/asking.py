"""A question on its way to an engine, or, when that one goes away, to its successor."""

from __future__ import annotations

import msgspec

from service.domain.errors import EngineUnavailable, GenerationFailed
from service.ipc.connection import Connection
from service.ipc.inquiry import AnswerFrame, EngineLost
from service.ipc.messages import CountTokens, Detokenize, Embed, Rerank, Tokenize
from service.ipc.refusals import why_unavailable
from service.ipc.submission import HANDOVER_SECONDS, Succession
from service.log import get_logger

Question = CountTokens | Embed | Rerank | Tokenize | Detokenize

log = get_logger(__name__)


async def ask(engines: Succession, connection: Connection, question: Question) -> list[AnswerFrame]:
    """All frames of the answer. Raises the engine's refusal; cancelling this cancels the work.

    An engine that goes away is succeeded once. Raises `EngineUnavailable` where there is no
    successor with the same model, and `GenerationFailed` for a question that two have died of.
    """
    try:
        return await _ask(connection, question)
    except EngineLost:
        successor = await engines.successor(connection, engines.resubmit_seconds)
        refusal = why_unavailable(engines.status, connection.model.mode)
    except EngineUnavailable as error:  # it drains
        connection.retired = True
        successor = await engines.successor(connection, HANDOVER_SECONDS)
        refusal = error
    if successor is None or successor.model != connection.model:
        raise refusal
    log.info("question_asked_again", model=successor.model.name)
    try:
        return await _ask(successor, question)
    except EngineLost:
        raise GenerationFailed(
            "The engine went away twice while it worked on this request."
        ) from None


async def _ask(connection: Connection, question: Question) -> list[AnswerFrame]:
    inquiry = connection.ask(lambda number: msgspec.structs.replace(question, id=number))
    try:
        return await inquiry.answer()
    finally:
        inquiry.close()
