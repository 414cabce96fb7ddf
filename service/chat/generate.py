"""Answer a chat: the use case behind every dialect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Protocol, Self

from service.chat.accounting import Accounting, Unaccounted
from service.chat.continuation import to_text_job
from service.chat.infill import InfillRequest, to_job
from service.chat.logprobs import AnswerLogprobs
from service.chat.reading import Reading
from service.chat.sharing import SharedBeginning
from service.chat.showing import shown
from service.chat.truncation import truncated
from service.domain.access import Principal
from service.domain.chat import ChatRequest, TextRequest, ToolCall
from service.domain.errors import (
    ContextLengthExceeded,
    EngineUnavailable,
    GenerationFailed,
    InvalidRequest,
    ModelNotFound,
    error_codes,
)
from service.domain.events import (
    Event,
    Failed,
    Finished,
    FinishReason,
    QueuePosition,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
)
from service.domain.model import ModelInfo
from service.formats.pictures import with_pictures
from service.formats.plain_text import PlainText
from service.formats.prepared import AnswerParser, Prepared, prepare
from service.formats.template import ChatTemplate
from service.ipc.client import EngineClient, Engines, EngineStream
from service.ipc.messages import Done, Queued, Submit
from service.pictures.album import Album
from service.settings import ChatSettings, PictureSettings

SPARE_TOKENS = 16
LONG_TEXT = 65_536  # characters; less is rendered before anybody could notice


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer: what the events of a generation add up to. The calls came behind the first
    `num_before_calls` characters of the text."""

    text: str
    reasoning: str
    finished: Finished
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    num_before_calls: int = 0


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

    def __init__(
        self, stream: EngineStream, model: ModelInfo, parser: AnswerParser, stop: Sequence[str]
    ) -> None:
        self.model = model
        self.prompt_tokens = stream.accepted.prompt_tokens
        self.num_dropped_messages = 0
        self._stream = stream
        self._parser = parser
        self._stop = stop
        self._reading = Reading(parser)
        self._logprobs = AnswerLogprobs()
        self._events = self._read()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._events

    def stop(self) -> None:
        """End it early; `Finished` still comes."""
        self._stream.stop()

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _read(self) -> AsyncIterator[Event]:
        async for message in self._stream:
            if isinstance(message, Done):
                for delta in self._logprobs.attach(self._parser.finish()):
                    yield delta
                yield self._to_last_event(message)
                return
            if isinstance(message, Queued):
                yield QueuePosition(message.num_ahead, message.eta_seconds)
                continue
            deltas = self._reading.feed(message)
            thinking = self._parser.thinking
            for delta in self._logprobs.attach(deltas, message.logprobs, thinking=thinking):
                yield delta

    def _to_last_event(self, done: Done) -> Event:
        if done.error_code is not None:
            kind = error_codes().get(done.error_code, GenerationFailed)
            return Failed(kind(done.error_message))
        num_thought = self._reading.num_thought(done.usage)
        usage = replace(done.usage, reasoning_tokens=num_thought)
        reason = done.reason
        if reason is FinishReason.STOP and self._parser.num_calls:
            reason = FinishReason.TOOL_CALLS
        # What the template adds to the caller's stop strings is none of the caller's business.
        stop_sequence = done.stop_sequence if done.stop_sequence in self._stop else None
        return Finished(reason, usage, done.timings, stop_sequence)


class Chat:
    """Answers chats with whatever engine is current. One per worker."""

    def __init__(
        self,
        engines: Engines,
        settings: ChatSettings,
        accounting: Accounting | None = None,
        album: Album | None = None,
    ) -> None:
        self.engines = engines
        self.settings = settings
        self._album = album or Album(PictureSettings())
        self._accounting = accounting or Unaccounted()
        self._template: ChatTemplate | None = None
        self._shared = SharedBeginning(settings.system_prompt)

    async def start(self, request: ChatRequest, principal: Principal) -> Generation:
        """Returns once the engine has accepted; every refusal is raised here, as `ServiceError`."""
        await self.engines.bridged()
        client = self._client_for(request)
        request = await shown(request, client.model, self._album)
        if request.truncate:
            return await self._start_truncated(client, request, principal)
        try:
            return await self._submit(client, request, principal)
        except EngineUnavailable:
            has_left = self.engines.status.sleeper is not None  # in this very moment
            await self.engines.bridged()
            successor = self._client_for(request)
            if successor.model == client.model and not has_left:
                raise
        # The model was switched between our looking and our asking: its prompt is another.
        return await self._submit(successor, request, principal)

    async def go_on(self, request: TextRequest, principal: Principal) -> Generation:
        """Like `start`, for a text without a template. All that is written is the answer."""
        await self.engines.bridged()
        client = self.serving(request.model)
        allowed = replace(request, max_tokens=self._allowed(request.max_tokens))
        job = to_text_job(allowed, principal)
        stream = await self._accounting.submit(client, job, principal)
        return Generation(stream, client.model, PlainText(), request.stop)

    async def fill_in(self, request: InfillRequest, principal: Principal) -> Generation:
        """Write what belongs into a gap. Raises like `start`, and `Unsupported` where the model was
        not trained for it."""
        await self.engines.bridged()
        client = self.serving(request.model)
        allowed = replace(request, max_tokens=self._allowed(request.max_tokens))
        job = to_job(allowed, client.model, principal)
        stream = await self._accounting.submit(client, job, principal)
        return Generation(stream, client.model, PlainText(), request.stop)

    async def _start_truncated(
        self, client: EngineClient, request: ChatRequest, principal: Principal
    ) -> Generation:
        quarter = client.model.context_length // 4
        room = min(request.max_tokens or quarter, quarter)

        async def fits(shorter: ChatRequest) -> bool:
            return await self.fits(shorter, room)

        shorter = replace(await truncated(request, fits), truncate=False)
        generation = await self.start(shorter, principal)
        generation.num_dropped_messages = len(request.messages) - len(shorter.messages)
        return generation

    async def count_tokens(self, request: ChatRequest) -> int:
        """How many tokens the request's prompt has, exactly. Raises like `start`."""
        client = self._client_for(request)
        request = await shown(request, client.model, self._album)
        prepared = await self._prepare(request, await self._template_of(client.model))
        return await client.count_tokens(prepared.prompt, _files(request))

    async def write_down(self, request: ChatRequest) -> str:
        """The request's prompt as text. Raises like `start`."""
        client = self._client_for(request)
        request = await shown(request, client.model, self._album)
        prepared = await self._prepare(request, await self._template_of(client.model))
        return "".join(piece.text for piece in prepared.prompt)

    async def fits(self, request: ChatRequest, room: int) -> bool:
        """Whether the request's prompt leaves `room` tokens of the context for the answer. Raises
        like `start`."""
        client = self._client_for(request)
        allowed = client.model.context_length - room
        prompt = (await self._prepare(request, await self._template_of(client.model))).prompt
        # No token is shorter than a byte, but for a few that tokenizers put in front.
        length = sum(len(piece.text.encode()) for piece in prompt)
        if length + SPARE_TOKENS <= allowed and not request.pictures:
            return True
        return await client.count_tokens(prompt, _files(request)) <= allowed

    async def _submit(
        self, client: EngineClient, request: ChatRequest, principal: Principal
    ) -> Generation:
        template = await self._template_of(client.model)
        prepared = await self._prepare(request, template)
        shared = self._shared.characters(
            request, prepared.prompt, template, thinking=self._thinks(request)
        )
        job = Submit(
            id=0,
            request_id=request.request_id,
            prompt=prepared.prompt,
            sampling=request.sampling,
            max_tokens=self._allowed(request.max_tokens),
            stop=(*request.stop, *template.stops),
            cache_key=principal.id,
            shared_characters=shared,
            fair_key=principal.id,
            priority=request.priority,
            first_token_seconds=request.first_token_seconds,
            deadline_seconds=request.deadline_seconds,
            constraint=prepared.constraint,
            logprobs=request.logprobs,
            reasoning_budget=request.reasoning_budget,
            reasoning_start=prepared.thought_start,
            reasoning_end=prepared.thought_end,
            shown_tokens=prepared.shown_tokens,
            pictures=_files(request),
        )
        try:
            stream = await self._accounting.submit(client, job, principal)
        except ContextLengthExceeded as error:
            error.param = error.param or "messages"  # an engine knows of no fields
            raise
        return Generation(stream, client.model, prepared.create_parser(), request.stop)

    def _allowed(self, max_tokens: int | None) -> int | None:
        """As many tokens as are wanted, and no more than the operator gives to any answer."""
        most = self.settings.max_tokens
        return min(most, max_tokens or most) if most else max_tokens

    def _client_for(self, request: ChatRequest) -> EngineClient:
        if len(request.messages) > self.settings.max_messages:
            raise InvalidRequest(
                f"messages has {len(request.messages)} entries; "
                f"at most {self.settings.max_messages} are accepted.",
                param="messages",
            )
        return self.serving(request.model)

    def serving(self, model: str | None) -> EngineClient:
        """The engine that `model` means. Raises `ModelNotFound` or `EngineUnavailable`."""
        guest = self.engines.guest(model) if model is not None else None
        if guest is not None:
            return guest
        client = self.engines.current()
        served = client.model.name
        known = model in (None, served) or model in self.engines.status.names
        if not known and not self._is_alias(model or ""):
            raise ModelNotFound(
                f"The model `{model}` does not exist; this service serves `{served}`.",
                param="model",
            )
        return client

    def _is_alias(self, name: str) -> bool:
        """Whether the operator wants this name, too, to mean the model that is served."""
        patterns = self.settings.aliases.replace(",", " ").split()
        return any(fnmatchcase(name, pattern) for pattern in patterns)

    def _thinks(self, request: ChatRequest) -> bool:
        return self.settings.thinking if request.thinking is None else request.thinking

    async def _template_of(self, model: ModelInfo) -> ChatTemplate:
        template = self._template
        if template is None or template.model != model:
            # Compiling and trying out a long template takes tens of milliseconds.
            template = await asyncio.to_thread(prepared_template, model)
            self._template = template
        return template

    async def _prepare(self, request: ChatRequest, template: ChatTemplate) -> Prepared:
        def prepared() -> Prepared:
            ready = prepare(template, request, thinking=self._thinks(request))
            return replace(ready, prompt=with_pictures(ready.prompt, request.pictures))

        length = sum(len(message.content) for message in request.messages)
        length += sum(len(tool.description) + len(tool.parameters) for tool in request.tools)
        if length > LONG_TEXT:
            return await asyncio.to_thread(prepared)
        return prepared()


def _files(request: ChatRequest) -> tuple[bytes, ...]:
    return tuple(picture.data for picture in request.pictures)


def prepared_template(model: ModelInfo) -> ChatTemplate:
    """The model's template, with all that has to be found out about it found out."""
    template = ChatTemplate(model)
    template.opens_thought(thinking=False)
    return template


async def collect(generation: EventSource) -> Answer:
    """The whole answer; closes the generation. Raises the error of a generation that failed."""
    text: list[str] = []
    reasoning: list[str] = []
    calls: list[_Call] = []
    logprobs: list[TokenLogprob] = []
    num_before_calls = 0
    async with generation:
        async for event in generation:
            match event:
                case TextDelta(text=piece):
                    text.append(piece)
                    logprobs += event.logprobs
                case ReasoningDelta(text=piece):
                    reasoning.append(piece)
                case ToolCallDelta():
                    num_before_calls = num_before_calls if calls else sum(map(len, text))
                    _add_to(calls, event)
                case Failed(error=error):
                    raise error
                case Finished():
                    return Answer(
                        "".join(text),
                        "".join(reasoning),
                        event,
                        tuple(ToolCall(c.id, c.name, "".join(c.arguments)) for c in calls),
                        tuple(logprobs),
                        num_before_calls,
                    )
    raise GenerationFailed("The generation ended without saying why.")


@dataclass(frozen=True, slots=True)
class _Call:
    id: str
    name: str
    arguments: list[str]


def _add_to(calls: list[_Call], delta: ToolCallDelta) -> None:
    """Calls begin in their order, each when the one before is complete."""
    if delta.index == len(calls):
        calls.append(_Call(delta.id or "", delta.name or "", []))
    calls[delta.index].arguments.append(delta.arguments)
