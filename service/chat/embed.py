"""Turn texts into vectors, and judge documents: the use cases behind embeddings and reranking."""

from __future__ import annotations

from typing import TypeVar

from service.domain.access import Principal
from service.domain.errors import InvalidRequest, ModelNotFound, Unsupported
from service.domain.model import Mode
from service.domain.vectors import Embeddings, EmbedRequest, Ranking, RerankRequest
from service.ipc.client import EngineClient, Engines
from service.ipc.framing import FramingError
from service.ipc.inquiry import AnswerFrame
from service.ipc.messages import Embed, Embedded, Ranked, Rerank
from service.settings import EmbedSettings, RerankSettings

F = TypeVar("F", Embedded, Ranked)

_PURPOSE = {Mode.EMBED: "makes embeddings", Mode.RERANK: "reranks"}


class Vectors:
    """Embeds and reranks with whatever engines there are for it. One per worker."""

    def __init__(self, engines: Engines, embed: EmbedSettings, rerank: RerankSettings) -> None:
        self._engines = engines
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
        frames = _only(Embedded, await client.ask(question))
        vectors = tuple(vector for frame in frames for vector in frame.vectors)
        return Embeddings(client.model, vectors, _total(frames))

    async def rerank(self, request: RerankRequest, principal: Principal) -> Ranking:
        """As `embed`."""
        self._require_few(Mode.RERANK, "documents", len(request.documents))
        client = self._client_for(Mode.RERANK, request.model)
        question = Rerank(
            0, request.request_id, request.query, request.documents, fair_key=principal.id
        )
        frames = _only(Ranked, await client.ask(question))
        scores = tuple(score for frame in frames for score in frame.scores)
        return Ranking(client.model, scores, _total(frames))

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
    return sum(sum(frame.num_tokens) for frame in frames)
