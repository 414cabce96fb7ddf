"""An engine on a fake runner, driven turn by turn in the test's own thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from service.domain.chat import PromptPiece
from service.domain.errors import ServiceError
from service.domain.sampling import Sampling
from service.engine.engine import Engine
from service.engine.inbox import Arrived, Cancelled, Tokenized
from service.engine.intake import Intake
from service.engine.kv.cache import Cache
from service.engine.kv.recall import Recall
from service.engine.sequence import Job
from service.engine.tokenizer import Tokenizer
from service.ipc.messages import Accepted, Delta, Done, Frame, Refused, Step, Submit
from service.settings import EngineSettings
from tests.fakes.clock import FakeClock
from tests.fakes.runner import FakeRunner

F = TypeVar("F", bound=Frame)


@dataclass
class FakeOutbox:
    """Keeps what was posted: `frames` in order, with their connections."""

    frames: list[tuple[int, Frame]] = field(default_factory=list)

    def post(self, connection: int, frame: Frame) -> None:
        self.frames.append((connection, frame))

    def of(self, kind: type[F], connection: int = 1) -> list[F]:
        return [f for c, f in self.frames if c == connection and isinstance(f, kind)]


def submit(request_id: int, text: str, **options: Any) -> Submit:
    """A greedy request for `text`; `options` are fields of `Submit`."""
    prompt = (PromptPiece(text, trusted=True),)
    facts: dict[str, Any] = {"sampling": Sampling(temperature=0), **options}
    return Submit(request_id, f"request-{request_id}", prompt, **facts)


@dataclass
class Loop:
    """`ask`, then `turn` or `finish`, then look at what came out."""

    runner: FakeRunner = field(default_factory=FakeRunner)
    settings: EngineSettings = field(default_factory=lambda: EngineSettings(max_waiting=2))
    clock: FakeClock = field(default_factory=FakeClock)
    outbox: FakeOutbox = field(default_factory=FakeOutbox)
    cache: Cache | None = None
    engine: Engine = field(init=False)
    intake: Intake = field(init=False)
    recall: Recall = field(init=False)

    def __post_init__(self) -> None:
        self.engine = Engine(self.runner, self.outbox, self.settings, self.clock, self.cache)
        self.recall = Recall(self.runner, self.engine.cache)
        tokenizer = Tokenizer(self.runner, self.engine.inbox, self.outbox, self.recall)
        self.intake = Intake(self.engine, tokenizer, self.outbox, self.clock)

    def ask(self, request_id: int, text: str, connection: int = 1, **options: Any) -> None:
        """A request whose tokenizing is done."""
        self.tokenized(self.arrive(request_id, text, connection, **options))

    def arrive(self, request_id: int, text: str, connection: int = 1, **options: Any) -> Job:
        """A request that is with the tokenizer still."""
        job = Job(connection, self.submit(request_id, text, **options), self.clock())
        self.engine.inbox.put(Arrived(job))
        return job

    def submit(self, request_id: int, text: str, **options: Any) -> Submit:
        return submit(request_id, text, **options)

    def tokenized(self, job: Job) -> None:
        try:
            recalled = self.recall.tokenize(job.submit)
            constraint = job.submit.constraint
            matcher = None if constraint is None else self.runner.create_matcher(constraint)
        except ServiceError as error:
            self.engine.inbox.put(Tokenized(job, [], error))
        else:
            job.num_shared = recalled.num_shared
            self.engine.inbox.put(Tokenized(job, recalled.token_ids, matcher=matcher))

    def cancel(self, request_id: int, connection: int = 1) -> None:
        self.engine.inbox.put(Cancelled((connection, request_id)))

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            self.engine.turn()

    def until(self, condition: Callable[[], bool]) -> None:
        for _ in range(1000):
            if condition():
                return
            self.engine.turn()
        raise AssertionError("that never came true")

    def finish(self) -> None:
        """Turn until nothing is left to do."""
        self.until(lambda: self.engine.inbox.empty() and self.engine.scheduler.idle)

    def deltas(self, request_id: int, connection: int = 1) -> list[Delta]:
        steps = self.outbox.of(Step, connection)
        return [d for step in steps for d in step.deltas if d.id == request_id]

    def text(self, request_id: int, connection: int = 1) -> str:
        return "".join(d.text for d in self.deltas(request_id, connection))

    def dones(self, request_id: int, connection: int = 1) -> list[Done]:
        steps = self.outbox.of(Step, connection)
        return [d for step in steps for d in step.dones if d.id == request_id]

    def done(self, request_id: int, connection: int = 1) -> Done:
        (done,) = self.dones(request_id, connection)
        return done

    def accepted(self, request_id: int) -> Accepted:
        (frame,) = [f for f in self.outbox.of(Accepted) if f.id == request_id]
        return frame

    def refused(self, request_id: int) -> Refused:
        (frame,) = [f for f in self.outbox.of(Refused) if f.id == request_id]
        return frame


def alone(text: str, runner: FakeRunner | None = None, **options: Any) -> str:
    """What a fresh engine answers."""
    loop = Loop(runner or FakeRunner())
    loop.ask(1, text, **options)
    loop.finish()
    return loop.text(1)
