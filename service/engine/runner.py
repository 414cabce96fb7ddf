"""What the engine needs of a loaded model.

`LlamaRunner` (llama.py) is the real one; tests use a fake that behaves. All methods are called
from the engine thread, except where a docstring says otherwise. A *slot* is one lane of the KV
cache (a llama.cpp sequence id) that holds up to `slot_length` tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.domain.chat import Prompt
from service.domain.constraint import Constraint
from service.domain.events import TokenLogprob
from service.domain.model import ModelInfo
from service.domain.sampling import Sampling
from service.engine.kv.prefix import Prefix


@dataclass(frozen=True, slots=True)
class PrefillPart:
    """`token_ids` to be read by `slot` at positions `start`, `start + 1`, …

    Only one that is a prompt's `end` yields logits, those of its last token. Where there are
    `rows`, the model reads those, one for each of the ids, which are below zero.
    """

    slot: int
    start: int
    token_ids: Sequence[int]
    end: bool = False
    rows: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class DecodeRow:
    """One token for `slot` at `position`, whose logits are wanted.

    Rows of one slot follow one another: what comes behind the first are guesses, to be trimmed
    where they were wrong.
    """

    slot: int
    position: int
    token_id: int


class DecodeAborted(Exception):
    """`abort` cut a call short; the slots hold what `resident` says, and work can go on."""


class RunnerError(Exception):
    """llama.cpp refused a batch. `fatal` says that the process should be replaced."""

    def __init__(self, message: str, *, fatal: bool = False) -> None:
        super().__init__(message)
        self.fatal = fatal


class DeadEnd(Exception):
    """One sequence can't go on: no token may follow. The others of its batch are not concerned."""


State = NDArray[np.uint8]
"""What a slot held, as `save` took it: bytes that only a runner of the same kind understands."""


class Spelling(Protocol):
    """How tokens and text correspond. Any thread.

    *Reserved* are control tokens, and markup that is one token: what people's text never becomes.
    """

    @property
    def size(self) -> int:
        """How many tokens there are."""
        ...

    def spell(self, token_ids: Iterable[int]) -> list[bytes]:
        """The bytes of each token; control tokens, which have none in text, by their names."""
        ...

    def is_reserved(self, token_id: int) -> bool: ...

    def find_reserved(self, text: str, start: int, stop: int) -> int:
        """Where the first spelling of a reserved token begins within `start` to `stop`, or -1."""
        ...

    def content(self, prompt: Prompt) -> list[int]:
        """The token ids of a prompt, and nothing in front of them. Otherwise as `tokenize`."""
        ...

    def tokenize(self, prompt: Prompt) -> list[int]:
        """As the runner's."""
        ...

    def fewest_tokens(self, prompt: Prompt) -> int:
        """That many tokens it has at least, without tokenizing it; 0 where that can't be told."""
        ...

    def around(self) -> tuple[list[int], list[int]]:
        """What the model expects before and after a text that stands alone."""
        ...


class Matcher(Protocol):
    """What one answer is held to, at the place that it has come to.

    A sampler asks `validate` about what it would choose freely, and looks at `allowed` only when
    that is refused: the free choice is nearly always right, and then costs nothing.
    """

    def validate(self, token_id: int) -> bool:
        """Whether this token may come next."""
        ...

    def allowed(self) -> NDArray[np.bool_]:
        """What may come next, one entry per token of the vocabulary, at least one of them true.
        Only read, and only until `consume`. Raises `DeadEnd`."""
        ...

    def consume(self, token_id: int) -> None:
        """This token came; it was validated, or is among the allowed ones."""
        ...

    def forced(self) -> list[int]:
        """The tokens that stand for what must come next; none where there is a choice."""
        ...

    def fork(self) -> Matcher:
        """Another one at the same place, which goes its own way from there."""
        ...


class Sampler(Protocol):
    """The sampling state of one sequence: options, penalties' window, random numbers, matcher."""

    def sample(self, row: int) -> int:
        """The next token id from row `row` of the last call; also accepts it."""
        ...

    def accept(self, token_id: int) -> None:
        """This token comes next without being sampled: somebody else has decided so."""
        ...

    def forced(self) -> list[int]:
        """Tokens about which the matcher leaves no choice; other spellings may be."""
        ...

    @property
    def needs_whole_rows(self) -> bool:
        """Whether it looks at all logits; else at the likeliest tokens only."""
        ...

    def close(self) -> None:
        """Give back the C objects. Further calls are errors."""
        ...


class Drafter(Protocol):
    """A small model that guesses what the large one will say. Engine thread only.

    For each slot it has read some beginning of what is there. A guess is its likeliest next token.
    """

    def unread(self, slot: int, prefix: Prefix) -> int:
        """How many last tokens of `prefix` it has yet to read there, at least one; whatever else it
        had read there is forgotten. All of them where they are too many for it."""
        ...

    def read(self, slot: int, token_ids: Sequence[int]) -> None:
        """Read these next. Raises `RunnerError`."""
        ...

    def guess(self, slot: int, token_ids: Sequence[int], length: int) -> list[int]:
        """Read these, and say what comes next: so many tokens, or as many as there is room for.
        Raises `RunnerError`."""
        ...

    def took(self, slot: int, num_tokens: int) -> None:
        """Of what it has read and guessed there, so many first tokens were right."""
        ...


class ModelRunner(Protocol):
    """Executes one batch at a time. Validates what llama.cpp would abort on.

    From `bulk_rows` tokens on (None: nowhere) a `prefill` call is computed in another way, which
    costs more for the call and less for each of its tokens.
    """

    info: ModelInfo
    num_slots: int
    slot_length: int
    max_batch_tokens: int

    @property
    def bulk_rows(self) -> int | None: ...

    @property
    def drafter(self) -> Drafter | None:
        """The model that goes ahead of this one, if there is one."""
        ...

    @property
    def spelling(self) -> Spelling: ...

    @property
    def fingerprint(self) -> str:
        """Of model and context: what one of the same fingerprint saved can be restored."""
        ...

    @property
    def can_cut(self) -> bool:
        """Whether a slot can always forget its end; recurrent memory, and what is restored of a
        sliding window, only goes back to an `anchor`."""
        ...

    def tokenize(self, prompt: Prompt) -> list[int]:
        """Token ids; only trusted pieces may contain control tokens. Thread-safe: called from the
        tokenizer thread. Raises `InvalidRequest` for text over the configured limit."""
        ...

    def is_end(self, token_id: int) -> bool:
        """Whether this token ends an answer (the model may have several such tokens)."""
        ...

    def piece(self, token_id: int) -> bytes:
        """The bytes that a token stands for; empty for control tokens. May be half a character."""
        ...

    def prefill(self, parts: Sequence[PrefillPart]) -> None:
        """Read prompt chunks, `max_batch_tokens` together at most; then the logits of those that
        end a prompt are there to sample, a row for each, in order. Raises `DecodeAborted`."""
        ...

    @property
    def pads_batches(self) -> bool:
        """Whether a step of 1, 2, 4, 8, … rows is quicker than one of a few less: a graph that has
        been seen before need not be made anew."""
        ...

    def takes_rows(self, slot: int, *, whole: bool) -> None:
        """How the logits of this slot's rows are going to be looked at, from the next step on:
        whole, or the likeliest tokens only. What isn't whole has no `logprob`."""
        ...

    @property
    def max_draft(self) -> int:
        """How many guesses may follow the one row of a lonely sequence; 0 where what was guessed
        wrong could not be forgotten."""
        ...

    def decode(self, rows: Sequence[DecodeRow]) -> None:
        """One step for each row, in ascending order of slots, then logits are there to sample."""
        ...

    def create_matcher(self, constraint: Constraint) -> Matcher:
        """What holds an answer to `constraint`. Thread-safe; takes long, and a large stack. Raises
        `InvalidRequest` where it can't be compiled."""
        ...

    def create_sampler(
        self, sampling: Sampling, prompt_tail: Sequence[int], matcher: Matcher | None = None
    ) -> Sampler:
        """A sampler whose penalties have seen `prompt_tail`, and whose choices `matcher` allows
        and is told of. Raises `InvalidRequest`."""
        ...

    def logprob(self, row: int, token_id: int, num_top: int) -> TokenLogprob:
        """How likely `token_id` was in row `row` of the last call, and the `num_top` likeliest
        tokens: of what the model said, before any option had its effect."""
        ...

    def resident(self, slot: int) -> int:
        """How many tokens the slot holds, as llama.cpp sees it."""
        ...

    def trim(self, slot: int, length: int) -> int:
        """Forget everything behind the first `length` tokens; returns how many remain, which may
        be an earlier `anchor` or 0 where a model cannot be cut (recurrent memory)."""
        ...

    def fork(self, source: int, target: int, length: int) -> int:
        """Replace `target`'s content by the first `length` tokens of `source`; returns how many
        `target` then holds, as for `trim`."""
        ...

    def anchor(self, slot: int) -> None:
        """Where the model cannot be cut, `trim` can return to what the slot holds now."""
        ...

    def state_size(self, slot: int) -> int:
        """Bytes that `save` would return."""
        ...

    def save(self, slot: int) -> State:
        """A copy of what the slot holds."""
        ...

    def restore(self, slot: int, state: State) -> int:
        """Replace the slot's content by what was saved; returns how many tokens it then holds:
        0 where the state makes no sense here."""
        ...

    def abort(self) -> None:
        """Make a running `prefill` or `decode` raise `DecodeAborted` soon. Any thread."""
        ...

    def close(self) -> None: ...
