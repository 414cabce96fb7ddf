"""An engine in this process that says what the test tells it to, when the test lets it.

    engine = FakeEngine()                        # every job is answered "Hello there, friend."
    engine.answers("Paris.", "Berlin.")          # the next two jobs; then the default again
    engine.refuses(QueueFull("…"))               # the next submit raises this
    engine.paced = True                          # nothing is written until `write` says so
    await engine.write(2)                        # … two tokens for every running job
    engine.dies()                                # running jobs end in an error, no engine is left
    engine.revives()                             # ready again
    await engine.until(lambda: engine.cancelled) # a job was closed before its end
    engine.jobs, engine.cancelled                # what was submitted; what was closed early
    engine.companion(EMBEDDER)                   # a second engine, of a mode of its own

One word is one token. `max_tokens`, stop strings and the context length are respected.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

from service.domain.chat import Prompt
from service.domain.errors import ContextLengthExceeded, ServiceError
from service.domain.events import Candidate, FinishReason, Timings, TokenLogprob, Usage
from service.domain.model import Mode, ModelInfo
from service.ipc.asking import Question
from service.ipc.client import EngineClient
from service.ipc.command import SwitchCommand
from service.ipc.inquiry import AnswerFrame
from service.ipc.messages import Accepted, Delta, Done, Submit
from service.ipc.refusals import why_unavailable
from service.ipc.status import (
    EngineState,
    EngineStatus,
    Phase,
    ServiceStatus,
    SwitchPhase,
    SwitchStatus,
)
from tests.fakes.companion import FakeCompanion, FakeWords

DEFAULT_ANSWER = "Hello there, friend."
CHATML = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
FAKE_MODEL = ModelInfo(
    name="fake",
    description="A model that says what it is told.",
    context_length=512,
    trained_context_length=512,
    num_slots=4,
    vocabulary_size=1000,
    num_parameters=1000,
    size_bytes=4000,
    created=1_700_000_000,
    chat_template=CHATML,
    eos_token="<|im_end|>",
    control_tokens=("<|im_start|>", "<|im_end|>"),
)


def serving(model: ModelInfo = FAKE_MODEL) -> ServiceStatus:
    """The status of a service whose one engine is ready."""
    engine = EngineStatus(1, model.name, "engine-1.sock", EngineState.READY, 1.0)
    return ServiceStatus(Phase.SERVING, model.name, 1, (engine,))


def loading(progress: float, model: ModelInfo = FAKE_MODEL) -> ServiceStatus:
    """The status of a service whose one engine still loads."""
    engine = EngineStatus(1, model.name, "engine-1.sock", EngineState.LOADING, progress)
    return ServiceStatus(Phase.STARTING, model.name, None, (engine,))


def words(text: str) -> list[str]:
    """The tokens of `text`, as the fake sees them: words with the space before them."""
    return re.findall(r"\s*\S+|\s+$", text)


@dataclass(eq=False)
class FakeStream:
    """One job's progress. Cancelled by `aclose` before its end."""

    engine: FakeEngine
    job: Submit
    accepted: Accepted
    pending: list[str]
    done: Done
    events: asyncio.Queue[Delta | Done] = field(default_factory=asyncio.Queue)
    ended: bool = False

    def write(self, num_tokens: int) -> None:
        for _ in range(num_tokens):
            if self.pending:
                token = self.pending.pop(0)
                self.events.put_nowait(Delta(self.accepted.id, token, 1, self._logprobs(token)))
        if not self.pending:
            self.end(self.done)

    def _logprobs(self, token: str) -> tuple[TokenLogprob, ...]:
        """Where they are asked for: an even chance, and the same word in capitals."""
        if self.job.logprobs is None:
            return ()
        chosen = Candidate(1, token.encode(), -0.5)
        other = Candidate(2, token.upper().encode(), -0.75)
        return (TokenLogprob(chosen, (chosen, other)[: self.job.logprobs]),)

    def end(self, done: Done) -> None:
        if not self.ended:
            self.ended = True
            self.events.put_nowait(done)
            self.engine.running.remove(self)

    async def __aiter__(self) -> AsyncIterator[Delta | Done]:
        while True:
            event = await self.events.get()
            yield event
            if isinstance(event, Done):
                return

    def stop(self) -> None:
        done = self.done
        if not self.ended:
            self.engine.stopped.append(self.job)
        self.end(Done(done.id, FinishReason.CANCELLED, done.usage, done.timings))
        self.engine.tasks.append(asyncio.create_task(self.engine.changed()))

    async def aclose(self) -> None:
        if not self.ended:
            self.ended = True
            self.engine.running.remove(self)
            self.engine.cancelled.append(self.job)
            await self.engine.changed()


class FakeEngine:
    """`Engines` and its one `EngineClient` in one, under the test's control."""

    def __init__(self, model: ModelInfo = FAKE_MODEL, answer: str = DEFAULT_ANSWER) -> None:
        self.model = model
        self.default_answer = answer
        self.status = serving(model)
        self.paced = False
        self.jobs: list[Submit] = []
        self.cancelled: list[Submit] = []
        self.stopped: list[Submit] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.refused: list[Submit] = []
        self.running: list[FakeStream] = []
        self.closed = False
        self.companions: dict[Mode, FakeCompanion] = {}
        self.guests: dict[str, FakeEngine] = {}
        self._words = FakeWords(model)
        self._answers: list[str] = []
        self._refusals: list[ServiceError] = []
        self._turn = asyncio.Condition()
        self._news = asyncio.Event()
        self.switches: list[SwitchCommand] = []
        self._awake = asyncio.Event()
        self._awake.set()

    def answers(self, *texts: str) -> None:
        self._answers += texts

    def refuses(self, error: ServiceError) -> None:
        self._refusals.append(error)

    def dies(self) -> None:
        """As a crash looks to a worker: running jobs fail, new ones find no engine."""
        engine = replace(serving(self.model).engines[0], state=EngineState.RESTARTING)
        self.status = replace(self.status, current=None, engines=(engine,), num_engine_restarts=1)
        for stream in list(self.running):
            message = "The engine stopped before the answer was complete."
            stream.end(replace_error(stream.done, "engine_unavailable", message))

    def revives(self) -> None:
        self.status = replace(serving(self.model), num_engine_restarts=1)

    def shuts_down(self) -> None:
        """Running jobs end early but well-formed; new ones are refused."""
        self.status = replace(self.status, phase=Phase.DRAINING)
        for stream in list(self.running):
            done = stream.done
            stream.end(Done(done.id, FinishReason.SHUTDOWN, done.usage, done.timings))

    def companion(self, model: ModelInfo) -> FakeCompanion:
        """A second engine, for what `model` was made for."""
        made = self.companions[model.mode] = FakeCompanion(model)
        return made

    def current(self, mode: Mode = Mode.CHAT) -> EngineClient:
        if mode is not Mode.CHAT:
            if mode not in self.companions or self.status.phase is Phase.DRAINING:
                raise why_unavailable(self.status, mode)
            return self.companions[mode]
        if self.status.phase is Phase.DRAINING or self.status.current is None:
            raise why_unavailable(self.status)
        return self

    def guest(self, model: str) -> EngineClient | None:
        return self.guests.get(model)

    async def switch(self, command: SwitchCommand) -> int:
        """Succeeds at once, with a model that differs in nothing but its name."""
        if self._refusals:
            raise self._refusals.pop(0)
        self.switches.append(command)
        if command.beside:
            return self._welcome(command.name)
        previous, self.model = self.model.name, replace(self.model, name=command.name)
        done = SwitchStatus(len(self.switches), command.name, previous, SwitchPhase.DONE, 1.0)
        self.tells(replace(serving(self.model), switch=done))
        return len(self.switches)

    def _welcome(self, name: str) -> int:
        """A guest, which is there at once."""
        self.guests[name] = FakeEngine(replace(self.model, name=name))
        number, phase = len(self.switches), SwitchPhase.DONE
        done = SwitchStatus(number, name, self.model.name, phase, 1.0)
        self.tells(replace(self.status, switch=done))
        return number

    def tells(self, status: ServiceStatus) -> None:
        """As the supervisor announces it."""
        self.status = status
        self._news.set()
        self._news = asyncio.Event()

    def sleeps(self) -> None:
        """As a model looks that has left memory; `wakes` brings it back."""
        engine = replace(serving(self.model).engines[0], state=EngineState.ASLEEP, progress=0.0)
        self._awake.clear()
        self.tells(replace(self.status, current=None, engines=(engine,)))

    def wakes(self) -> None:
        self.tells(replace(self.status, current=1, engines=serving(self.model).engines))
        self._awake.set()

    @property
    def resting(self) -> ModelInfo | None:
        return None if self.status.sleeper is None else self.model

    async def bridged(self) -> None:
        """When it is awake; its switches leave no gap."""
        await self._awake.wait()

    async def news(self) -> None:
        await self._news.wait()

    async def settled(self, seconds: float = 2.0) -> None:
        """At once: there is nobody to wait for."""

    async def submit(self, job: Submit) -> FakeStream:
        if self._refusals:
            self.refused.append(job)
            raise self._refusals.pop(0)
        prompt_tokens = await self.count_tokens(job.prompt)
        if prompt_tokens >= self.model.context_length:
            raise ContextLengthExceeded(
                f"The prompt has {prompt_tokens} tokens; the context holds "
                f"{self.model.context_length}.",
                param="messages",
            )
        self.jobs.append(job)
        stream = self._create_stream(job, prompt_tokens)
        self.running.append(stream)
        if not self.paced:
            stream.write(len(stream.pending))
        await self.changed()
        return stream

    async def count_tokens(self, prompt: Prompt, pictures: tuple[bytes, ...] = ()) -> int:
        return len(re.findall(r"\w+|[^\w\s]", "".join(piece.text for piece in prompt)))

    async def ask(self, question: Question) -> list[AnswerFrame]:
        return [self._words.answer(question)]

    async def write(self, num_tokens: int = 1) -> None:
        """Let every running job write this many tokens, and the readers read them."""
        for stream in list(self.running):
            stream.write(num_tokens)
        await asyncio.sleep(0)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until `condition` holds; it is looked at after each submit and cancellation."""
        async with self._turn:
            await self._turn.wait_for(lambda: bool(condition()))

    async def changed(self) -> None:
        async with self._turn:
            self._turn.notify_all()

    async def aclose(self) -> None:
        self.closed = True

    def _create_stream(self, job: Submit, prompt_tokens: int) -> FakeStream:
        text = self._answers.pop(0) if self._answers else self.default_answer
        reason, stop_sequence = FinishReason.STOP, None
        found = [(text.find(stop), stop) for stop in job.stop if stop in text]
        if found:
            end, stop_sequence = min(found)
            text = text[:end]
        tokens = words(text)
        if job.max_tokens is not None and len(tokens) > job.max_tokens:
            tokens, reason, stop_sequence = tokens[: job.max_tokens], FinishReason.LENGTH, None
        job_id = len(self.jobs)
        usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=len(tokens))
        done = Done(job_id, reason, usage, Timings(0.001, 0.002, 0.003), stop_sequence)
        accepted = Accepted(job_id, prompt_tokens, num_waiting=0)
        return FakeStream(self, job, accepted, tokens, done)


def replace_error(done: Done, code: str, message: str) -> Done:
    """`done` as a failure."""
    return Done(
        done.id,
        FinishReason.CANCELLED,
        done.usage,
        done.timings,
        error_code=code,
        error_message=message,
    )
