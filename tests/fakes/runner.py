"""A model that behaves: exact about what its slots hold, and with something to say."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from service.domain.chat import Prompt, PromptPiece
from service.domain.constraint import Constraint
from service.domain.errors import InvalidRequest
from service.domain.events import Candidate, TokenLogprob
from service.domain.model import ModelInfo
from service.domain.sampling import Sampling
from service.engine.grammar.grammars import Grammars
from service.engine.runner import (
    DecodeAborted,
    DecodeRow,
    Drafter,
    Matcher,
    PrefillPart,
    RunnerError,
    State,
)
from tests.fakes import alphabet

END = alphabet.END
GRAMMARS = Grammars(alphabet.create_alphabet)
END_SPELLING = "<|end|>"
Next = Callable[[Sequence[int]], int]


def babble(token_ids: Sequence[int]) -> int:
    """A letter that depends on every token before it: reusing wrong ones changes the text."""
    return ord("a") + zlib.crc32(bytes(t % 256 for t in token_ids)) % 26


def says(answer: str | bytes, after: str = ">") -> Next:
    """Always `answer`, byte for byte behind the prompt's last `after`, and then the end."""
    text = answer.encode() if isinstance(answer, str) else answer

    def following(token_ids: Sequence[int]) -> int:
        last = max(i for i, token_id in enumerate(token_ids) if token_id == ord(after))
        position = len(token_ids) - last - 1
        return text[position] if position < len(text) else END

    return following


def _tokens_of(piece: PromptPiece) -> list[int]:
    """Bytes; where the piece is trusted, the end is spelled."""
    if not piece.trusted:
        return list(piece.text.encode())
    first, *others = (part.encode() for part in piece.text.split(END_SPELLING))
    return [*first, *(token_id for part in others for token_id in (END, *part))]


def model_info(num_slots: int = 4, slot_length: int = 64) -> ModelInfo:
    return ModelInfo(
        name="fake",
        description="a fake",
        context_length=slot_length,
        trained_context_length=slot_length,
        num_slots=num_slots,
        vocabulary_size=END + 1,
        num_parameters=0,
        size_bytes=0,
        created=0,
    )


@dataclass
class FakeSampler:
    runner: FakeRunner
    sampling: Sampling
    matcher: Matcher | None = None
    closed: bool = False
    needs_whole_rows: bool = True

    def sample(self, row: int) -> int:
        """What follows or, where the matcher refuses it, the first token that it allows."""
        assert not self.closed
        place = self.runner.rows[row]
        token_id = self.runner.following(self.runner.slots[place.slot][: place.position + 1])
        if self.matcher is not None and not self.matcher.validate(token_id):
            token_id = int(self.matcher.allowed().argmax())
        self.accept(token_id)
        return token_id

    def forced(self) -> list[int]:
        return [] if self.matcher is None else self.matcher.forced()

    def accept(self, token_id: int) -> None:
        if self.matcher is not None:
            self.matcher.consume(token_id)

    def close(self) -> None:
        assert not self.closed, "closed twice"
        self.closed = True


@dataclass
class FakeRunner:
    """Bytes are tokens; `following` says what comes next. Refuses what llama.cpp would refuse.

    `calls` lists every batch: ("prefill", slot, count), ("decode", slot, slot, …), ("fork", …).
    One that cannot be cut goes back to its anchors only.
    `during_prefill` and `during_decode` run inside the calls, as other threads might.
    """

    num_slots: int = 4
    slot_length: int = 64
    max_batch_tokens: int = 16
    bulk_rows: int | None = None
    following: Next = babble
    max_prompt_bytes: int = 1000
    max_draft: int = 0
    can_cut: bool = True
    drafter: Drafter | None = None
    pads_batches: bool = False
    taken: dict[int, bool] = field(default_factory=dict)
    fingerprint: str = "fake"
    info: ModelInfo = field(init=False)
    slots: list[list[int]] = field(init=False)
    anchors: list[list[int]] = field(init=False)
    rows: Sequence[DecodeRow] = ()
    calls: list[tuple[object, ...]] = field(default_factory=list)
    samplers: list[FakeSampler] = field(default_factory=list)
    during_prefill: Callable[[], None] = lambda: None
    during_decode: Callable[[], None] = lambda: None
    broken: RunnerError | None = None
    aborting: bool = False
    closed: bool = False

    def __post_init__(self) -> None:
        self.info = model_info(self.num_slots, self.slot_length)
        self.slots = [[] for _ in range(self.num_slots)]
        self.anchors = [[] for _ in range(self.num_slots)]

    @property
    def spelling(self) -> FakeRunner:
        return self

    def tokenize(self, prompt: Prompt) -> list[int]:
        return self.content(prompt)

    def content(self, prompt: Prompt) -> list[int]:
        size = sum(len(piece.text.encode()) for piece in prompt)
        if size > self.max_prompt_bytes:
            raise InvalidRequest(
                f"The prompt has {size} bytes; at most {self.max_prompt_bytes} are accepted."
            )
        return [token_id for piece in prompt for token_id in _tokens_of(piece)]

    def fewest_tokens(self, prompt: Prompt) -> int:
        return 0

    @property
    def size(self) -> int:
        return END + 1

    def around(self) -> tuple[list[int], list[int]]:
        return [], [END]

    def spell(self, token_ids: Iterable[int]) -> list[bytes]:
        return [END_SPELLING.encode() if i == END else bytes([i]) for i in token_ids]

    def is_reserved(self, token_id: int) -> bool:
        return token_id == END

    def find_reserved(self, text: str, start: int, stop: int) -> int:
        return text.find(END_SPELLING, start, stop + len(END_SPELLING) - 1)

    def is_end(self, token_id: int) -> bool:
        return token_id == END

    def piece(self, token_id: int) -> bytes:
        return b"" if token_id == END else bytes([token_id])

    def prefill(self, parts: Sequence[PrefillPart]) -> None:
        self.aborting, self.rows = False, []
        assert sum(len(part.token_ids) for part in parts) <= self.max_batch_tokens
        for part in parts:
            self.calls.append(("prefill", part.slot, len(part.token_ids)))
            self.during_prefill()
            self._raise_if_broken()
            for position, token_id in enumerate(part.token_ids, part.start):
                if self.aborting and position > part.start:
                    raise DecodeAborted
                self._read(part.slot, position, token_id)
            if part.end:
                place = part.start + len(part.token_ids) - 1
                self.rows = [*self.rows, DecodeRow(part.slot, place, part.token_ids[-1])]

    def decode(self, rows: Sequence[DecodeRow]) -> None:
        self.aborting = False
        self.calls.append(("decode", *(row.slot for row in rows)))
        self.during_decode()
        self._raise_if_broken()
        assert [row.slot for row in rows] == sorted(row.slot for row in rows)
        self.rows = rows
        for row in rows:
            if self.aborting:
                raise DecodeAborted
            self._read(row.slot, row.position, row.token_id)

    def create_matcher(self, constraint: Constraint) -> Matcher:
        return GRAMMARS.create_matcher(constraint)

    def create_sampler(
        self, sampling: Sampling, prompt_tail: Sequence[int], matcher: Matcher | None = None
    ) -> FakeSampler:
        if any(token_id > END for token_id in sampling.logit_bias):
            raise InvalidRequest("logit_bias names a token that the model does not have.")
        self.samplers.append(FakeSampler(self, sampling, matcher))
        return self.samplers[-1]

    def takes_rows(self, slot: int, *, whole: bool) -> None:
        self.taken[slot] = whole

    def logprob(self, row: int, token_id: int, num_top: int) -> TokenLogprob:
        """One half, and a quarter for each of the next tokens."""
        others = ((token_id + i) % END for i in range(1, num_top))
        top = [Candidate(i, self.piece(i), math.log(0.25)) for i in others]
        chosen = Candidate(token_id, self.piece(token_id), math.log(0.5))
        return TokenLogprob(chosen, (chosen, *top)[:num_top])

    def resident(self, slot: int) -> int:
        return len(self.slots[slot])

    def trim(self, slot: int, length: int) -> int:
        assert length <= len(self.slots[slot])
        if not self.can_cut and length < len(self.slots[slot]):
            length = max((a for a in self.anchors[slot] if a <= length), default=0)
        del self.slots[slot][length:]
        self.anchors[slot] = [a for a in self.anchors[slot] if a <= length]
        return length

    def fork(self, source: int, target: int, length: int) -> int:
        assert source != target
        self.calls.append(("fork", source, target, length))
        self.slots[target] = list(self.slots[source])
        self.anchors[target] = list(self.anchors[source])
        return self.trim(target, length)

    def anchor(self, slot: int) -> None:
        self.anchors[slot].append(len(self.slots[slot]))

    def state_size(self, slot: int) -> int:
        return self._state(slot).nbytes

    def save(self, slot: int) -> State:
        self.calls.append(("save", slot, len(self.slots[slot])))
        return self._state(slot)

    def restore(self, slot: int, state: State) -> int:
        """Only what a fake saved, and nobody has touched since."""
        data = state.tobytes()
        body, check = data[:-4], data[-4:]
        if zlib.crc32(body).to_bytes(4, "little") != check:
            self.slots[slot], self.anchors[slot] = [], []
            return 0
        held = json.loads(body)
        self.slots[slot], self.anchors[slot] = held["tokens"], held["anchors"]
        self.calls.append(("restore", slot, len(self.slots[slot])))
        return len(self.slots[slot])

    def _state(self, slot: int) -> State:
        held = {"tokens": self.slots[slot], "anchors": self.anchors[slot]}
        body = json.dumps(held).encode()
        data = body + zlib.crc32(body).to_bytes(4, "little")
        return np.frombuffer(data, np.uint8)

    def abort(self) -> None:
        self.aborting = True

    def close(self) -> None:
        self.closed = True

    def _read(self, slot: int, position: int, token_id: int) -> None:
        held = self.slots[slot]
        assert position == len(held), f"slot {slot} holds {len(held)}, not {position}"
        assert position < self.slot_length, f"slot {slot} is full"
        held.append(token_id)

    def _raise_if_broken(self) -> None:
        if self.broken is not None:
            error, self.broken = self.broken, None
            raise error
