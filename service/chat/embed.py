"""Turn texts into vectors, and judge documents: the use cases behind embeddings and reranking."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from service.auth.spending import Reservation, Spending
from service.domain.access import Principal
from service.domain.chat import PromptPiece
from service.domain.errors import InvalidRequest, ModelNotFound, Unsupported
from service.domain.events import Usage
from service.domain.model import Mode
from service.domain.vectors import Embeddings, EmbedRequest, Ranking, RerankRequest
from service.ipc.client import EngineClient, Engines
from service.ipc.framing import FramingError
from service.ipc.inquiry import AnswerFrame
from service.ipc.messages import Embed, Embedded, Ranked, Rerank
from service.settings import EmbedSettings, RerankSettings

F = TypeVar("F", Embedded, Ranked)

# Put around each text, or around and between two.
_SPECIAL_TOKENS = 3
_LONG_TEXT = 65_536  # characters

_PURPOSE = {Mode.EMBED: "makes embeddings", Mode.RERANK: "reranks"}


class Vectors:
    """Embeds and reranks with whatever engines there are for it. One per worker."""

    def __init__(
        self,
        engines: Engines,
        embed: EmbedSettings,
        rerank: RerankSettings,
        spending: Spending | None = None,
    ) -> None:
        self._engines = engines
        self._spending = spending
        self._settings = {Mode.EMBED: embed, Mode.RERANK: rerank}

    async def embed(self, request: EmbedRequest, principal: Principal) -> Embeddings:
        """Raises every refusal as a `ServiceError`; cancelling this cancels the work."""
        self._require_few(Mode.EMBED, "input", len(request.inputs))
        client = self._client_for(Mode.EMBED, request.model)
        length = client.model.vector_length
        if request.dimensions is not None and request.dimensions > length:
            raise InvalidRequest(
                f"dimensions is {request.dimensions}; the vectors of {client.model.name} have "
                f"{length}.",
                param="dimensions",
            )
        inputs, dimensions = request.inputs, request.dimensions
        question = Embed(0, request.request_id, inputs, dimensions, fair_key=principal.id)
        frames = _only(Embedded, await self._within_limits(client, question, principal))
        vectors = tuple(vector for frame in frames for vector in frame.vectors)
        return Embeddings(client.model, vectors, _total(frames))

    async def rerank(self, request: RerankRequest, principal: Principal) -> Ranking:
        """As `embed`."""
        self._require_few(Mode.RERANK, "documents", len(request.documents))
        client = self._client_for(Mode.RERANK, request.model)
        question = Rerank(
            0, request.request_id, request.query, request.documents, fair_key=principal.id
        )
        frames = _only(Ranked, await self._within_limits(client, question, principal))
        scores = tuple(score for frame in frames for score in frame.scores)
        return Ranking(client.model, scores, _total(frames))

    async def _within_limits(
        self, client: EngineClient, question: Embed | Rerank, principal: Principal
    ) -> list[AnswerFrame]:
        """The answer, for which is set aside before it is asked for, and counted afterwards."""
        spending, limits = self._spending, principal.limits
        if spending is None:
            return await client.ask(question)
        name = client.model.name
        spending.bound(principal, name, None)
        reservation = Reservation(None, None)
        if limits.spends or limits.prompt_tokens is not None:
            num_tokens = await _estimate(client, question)
            reservation = await spending.reserve(principal, name, num_tokens, 0, room=0)
        taken = Usage()
        try:
            frames = await client.ask(question)
            taken = Usage(prompt_tokens=sum(map(_num_tokens, frames)))
        finally:
            began = taken.prompt_tokens > 0
            if began or reservation.key is not None:
                await spending.settle(principal, reservation, name, taken, began=began)
        return frames

    def _require_few(self, mode: Mode, param: str, count: int) -> None:
        most = self._settings[mode].max_inputs
        if count > most:
            raise InvalidRequest(
                f"{param} has {count} entries; at most {most} are accepted.", param=param
            )

    def _client_for(self, mode: Mode, wanted: str | None) -> EngineClient:
        if self._settings[mode].model is None:
            raise Unsupported(
                f"This service has no model that {_PURPOSE[mode]}; its operator names one in "
                f"PARLEY_{mode.upper()}__MODEL.",
                param="model",
            )
        client = self._engines.current(mode)
        if wanted is not None and wanted != client.model.name:
            raise ModelNotFound(
                f"There is no model `{wanted[:200]}` here that {_PURPOSE[mode]}; "
                f"`{client.model.name}` does.",
                param="model",
            )
        return client


def _only(kind: type[F], frames: list[AnswerFrame]) -> list[F]:
    """The frames as what they have to be."""
    answers = [frame for frame in frames if isinstance(frame, kind)]
    if len(answers) != len(frames):
        raise FramingError(f"the engine answered with something other than {kind.__name__}")
    return answers


def _total(frames: list[Embedded] | list[Ranked]) -> int:
    return sum(map(_num_tokens, frames))


def _num_tokens(frame: AnswerFrame) -> int:
    return sum(frame.num_tokens) if isinstance(frame, Embedded | Ranked) else 0


async def _estimate(client: EngineClient, question: Embed | Rerank) -> int:
    """About how many tokens are going to be read: those of all texts in one, and what stands
    around each."""
    if isinstance(question, Embed):
        texts = [given for given in question.inputs if isinstance(given, str)]
        num_ids = sum(len(given) for given in question.inputs if not isinstance(given, str))
        num_pairs = len(texts)
    else:
        texts = [question.query, *question.documents]
        num_pairs = len(question.documents)
        query = await client.count_tokens((PromptPiece(question.query, trusted=False),))
        num_ids = query * (num_pairs - 1)
    num_tokens = 0
    for joined in _joined(texts):
        num_tokens += await client.count_tokens((PromptPiece(joined, trusted=False),))
    return num_ids + num_tokens + _SPECIAL_TOKENS * num_pairs


def _joined(texts: list[str]) -> Iterator[str]:
    """The texts, many short ones as one."""
    waiting: list[str] = []
    for text in texts:
        waiting.append(text)
        if sum(map(len, waiting)) > _LONG_TEXT:
            yield "\n".join(waiting)
            waiting = []
    if waiting:
        yield "\n".join(waiting)
