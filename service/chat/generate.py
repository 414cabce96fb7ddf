"""Answer a chat: the use case behind every dialect."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from service.domain.access import Principal
from service.domain.chat import ChatRequest, Prompt
from service.domain.errors import GenerationFailed, InvalidRequest, ModelNotFound, error_codes
from service.domain.events import Event, Failed, Finished, ReasoningDelta, TextDelta
from service.domain.model import ModelInfo
from service.formats.stream_parser import StreamParser
from service.formats.template import ChatTemplate
from service.ipc.client import EngineClient, Engines, EngineStream, Job
from service.ipc.messages import Delta, Done
from service.settings import ChatSettings

SPARE_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer: what the events of a generation add up to."""

    text: str
    reasoning: str
    finished: Finished


class EventSource(Protocol):
    """A generation, whoever wraps it."""

    def __aiter__(self) -> AsyncIterator[Event]: ...

    async def __aenter__(self) -> object: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...


class Generation:
    """One request being answered.

    Iterating yields deltas, then exactly one `Finished` or `Failed`. `aclose` cancels whatever is
    left to do; leaving `async with` closes.
    """

    def __init__(self, stream: EngineStream, model: ModelInfo, parser: StreamParser) -> None:
        self.model = model
        self.prompt_tokens = stream.accepted.prompt_tokens
        self._stream = stream
        self._parser = parser
        self._events = self._read()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._events

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _read(self) -> AsyncIterator[Event]:
        async for message in self._stream:
            if isinstance(message, Delta):
                for delta in self._parser.feed(message.text):
                    yield delta
                continue
            for delta in self._parser.finish():
                yield delta
            yield _to_last_event(message)
            return


class Chat:
    """Answers chats with whatever engine is current. One per worker."""

    def __init__(self, engines: Engines, settings: ChatSettings) -> None:
        self.engines = engines
        self.settings = settings
        self._template: ChatTemplate | None = None

    async def start(self, request: ChatRequest, principal: Principal) -> Generation:
        """Returns once the engine has accepted; every refusal is raised here, as `ServiceError`."""
        client = self._client_for(request)
        prompt = self._render(request, client.model)
        job = Job(
            request_id=request.request_id,
            prompt=prompt,
            sampling=request.sampling,
            max_tokens=request.max_tokens,
            stop=request.stop,
            cache_key=principal.id,
        )
        stream = await client.submit(job)
        parser = StreamParser("".join(piece.text for piece in prompt))
        return Generation(stream, client.model, parser)

    async def count_tokens(self, request: ChatRequest) -> int:
        """How many tokens the request's prompt has, exactly. Raises like `start`."""
        client = self._client_for(request)
        return await client.count_tokens(self._render(request, client.model))

    async def fits(self, request: ChatRequest, room: int) -> bool:
        """Whether the request's prompt leaves `room` tokens of the context for the answer. Raises
        like `start`."""
        client = self._client_for(request)
        allowed = client.model.context_length - room
        prompt = self._render(request, client.model)
        # No token is shorter than a byte, but for a few that tokenizers put in front.
        if sum(len(piece.text.encode()) for piece in prompt) + SPARE_TOKENS <= allowed:
            return True
        return await client.count_tokens(prompt) <= allowed

    def _client_for(self, request: ChatRequest) -> EngineClient:
        if len(request.messages) > self.settings.max_messages:
            raise InvalidRequest(
                f"messages has {len(request.messages)} entries; "
                f"at most {self.settings.max_messages} are accepted.",
                param="messages",
            )
        client = self.engines.current()
        served = client.model.name
        if request.model not in (None, served, self.engines.status.wanted_model):
            raise ModelNotFound(
                f"The model `{request.model}` does not exist; this service serves `{served}`.",
                param="model",
            )
        return client

    def _render(self, request: ChatRequest, model: ModelInfo) -> Prompt:
        if self._template is None or self._template.model != model:
            self._template = ChatTemplate(model.chat_template or "", model)
        thinking = self.settings.thinking if request.thinking is None else request.thinking
        return self._template.render(request.messages, request.tools, thinking=thinking)


async def collect(generation: EventSource) -> Answer:
    """The whole answer; closes the generation. Raises the error of a generation that failed."""
    text: list[str] = []
    reasoning: list[str] = []
    async with generation:
        async for event in generation:
            match event:
                case TextDelta(text=piece):
                    text.append(piece)
                case ReasoningDelta(text=piece):
                    reasoning.append(piece)
                case Failed(error=error):
                    raise error
                case Finished():
                    return Answer("".join(text), "".join(reasoning), event)
    raise GenerationFailed("The generation ended without saying why.")


def _to_last_event(done: Done) -> Event:
    if done.error_code is None:
        return Finished(done.reason, done.usage, done.timings, done.stop_sequence)
    kind = error_codes().get(done.error_code, GenerationFailed)
    return Failed(kind(done.error_message))
