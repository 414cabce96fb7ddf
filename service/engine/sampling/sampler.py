"""The sampler of one sequence: options, and what they remember."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.domain.errors import InvalidRequest
from service.domain.sampling import Sampling
from service.engine.runner import DeadEnd, Matcher, RunnerError
from service.engine.sampling.candidates import Ids, Row
from service.engine.sampling.dry import Breakers, Dry, wants_dry
from service.engine.sampling.mirostat import Mirostat
from service.engine.sampling.penalties import Penalties
from service.engine.sampling.truncation import chooser

# Where each field of `Sampling` acts.
STAGES: Mapping[str, str] = {
    "logit_bias": "bias",
    "ignore_eos": "bias",
    "min_tokens": "bias",
    "repeat_penalty": "penalties",
    "repeat_last_n": "penalties",
    "presence_penalty": "penalties",
    "frequency_penalty": "penalties",
    "dry_multiplier": "dry",
    "dry_base": "dry",
    "dry_allowed_length": "dry",
    "dry_penalty_last_n": "dry",
    "dry_sequence_breakers": "dry",
    "top_n_sigma": "truncation",
    "top_k": "truncation",
    "typical_p": "truncation",
    "top_p": "truncation",
    "min_p": "truncation",
    "xtc_probability": "truncation",
    "xtc_threshold": "truncation",
    "temperature": "draw",
    "dynatemp_range": "draw",
    "dynatemp_exponent": "draw",
    "seed": "draw",
    "mirostat": "mirostat",
    "mirostat_tau": "mirostat",
    "mirostat_eta": "mirostat",
}

Saved = list[tuple[Ids, Row]]
_NEVER = np.float32(-math.inf)
# So many logits are quicker taken out of their row than all the others are ruled out in it.
_FEW = 8192


class Tokens(Protocol):
    """What a sampler knows of a vocabulary."""

    @property
    def size(self) -> int: ...

    @property
    def ends(self) -> AbstractSet[int]:
        """The tokens that end an answer."""
        ...

    @property
    def suppressed(self) -> Sequence[int]:
        """Tokens that are never to be chosen."""
        ...

    def breakers(self, texts: tuple[str, ...]) -> Breakers: ...


class RowSampler:
    """The sampling state of one sequence over `rows(i)`, the logits of the last decode.

    The same seed gives the same choices for the same logits, whatever else is in the batch.
    Raises `InvalidRequest` for a bias on a token that the model does not have.
    """

    def __init__(
        self,
        sampling: Sampling,
        rows: Callable[[int], Row],
        tokens: Tokens,
        *,
        prompt_tail: Sequence[int] = (),
        matcher: Matcher | None = None,
    ) -> None:
        self._rows: Callable[[int], Row] | None = rows
        self._matcher = matcher
        self._bias = _bias_of(sampling, tokens)
        # Ends that come too early; none of them once enough tokens were written.
        self._ends: Ids | None = None
        if sampling.min_tokens > 0 and tokens.ends:
            self._ends = np.fromiter(sorted(tokens.ends), np.intp)
        self._num_until_ends = sampling.min_tokens
        self._penalties: Penalties | None = None
        self._dry: Dry | None = None
        self._mirostat: Mirostat | None = None
        random = _random(sampling)
        if sampling.mirostat:
            self._mirostat = Mirostat(sampling, random)
        else:
            self._penalties = Penalties.of(sampling, prompt_tail)
            if wants_dry(sampling):
                breakers = tokens.breakers(sampling.dry_sequence_breakers)
                self._dry = Dry(sampling, breakers, prompt_tail)
        self._choose = _chooser(sampling, self._mirostat, random)
        states = (matcher, self._ends, self._penalties, self._dry, self._mirostat)
        self._remembers = any(state is not None for state in states)
        self._lowered: AbstractSet[int] | None = None
        if self._choose is _best and not self._remembers:
            self._lowered = _lowered(self._bias)
        self.needs_whole_rows = True

    def sample(self, row: int) -> int:
        if self._rows is None:
            raise RunnerError("the sampler was closed")
        logits = self._rows(row)
        if self._lowered is not None:
            best = int(logits.argmax())
            if best not in self._lowered:
                return best
        saved = self._adjust(logits)
        try:
            token_id = self._choose_allowed(logits, adjusted=bool(saved))
        finally:
            for ids, values in reversed(saved):
                logits[ids] = values
        if self._remembers:
            if self._mirostat is not None:
                self._mirostat.accept()
            self.accept(token_id)
        return token_id

    def accept(self, token_id: int) -> None:
        if self._ends is not None:
            self._num_until_ends -= 1
            if self._num_until_ends <= 0:
                self._ends = None
        if self._penalties is not None:
            self._penalties.accept(token_id)
        if self._dry is not None:
            self._dry.accept(token_id)
        if self._matcher is not None:
            self._matcher.consume(token_id)

    def forced(self) -> list[int]:
        return [] if self._matcher is None else self._matcher.forced()

    def close(self) -> None:
        self._rows = None
        self._matcher = None

    def _choose_allowed(self, logits: Row, *, adjusted: bool) -> int:
        """A free choice, or where the matcher refuses that, one among what it allows."""
        matcher = self._matcher
        if matcher is None:
            return self._choose(logits)
        if not adjusted or logits[logits.argmax()] > _NEVER:
            token_id = self._choose(logits)
            if matcher.validate(token_id):
                return token_id
        allowed = matcher.allowed()
        ids = np.flatnonzero(allowed)
        if 0 < ids.size <= _FEW:
            return int(ids[self._choose(_possible(logits[ids]))])
        return self._choose(_only(logits, allowed))

    def _adjust(self, logits: Row) -> Saved:
        """Bias and penalties onto the row; what was there before, in order."""
        saved: Saved = []
        if self._bias is not None:
            ids, bias = self._bias
            values = logits[ids]
            saved.append((ids, values))
            logits[ids] = values + bias
        if self._ends is not None:
            saved.append((self._ends, logits[self._ends]))
            logits[self._ends] = _NEVER
        if self._penalties is not None:
            ids = self._penalties.ids()
            values = logits[ids]
            saved.append((ids, values))
            logits[ids] = self._penalties.apply(values)
        repeating = None if self._dry is None else self._dry.penalties()
        if repeating is not None:
            ids, off = repeating
            saved.append((ids, logits[ids]))
            logits[ids] -= off
        return saved


def choice_of(sampling: Sampling) -> Callable[[Row], int]:
    """A token of each row, where nothing but the row and the options matters."""
    return _chooser(sampling, None, _random(sampling))


def _chooser(
    sampling: Sampling, mirostat: Mirostat | None, random: Callable[[], float]
) -> Callable[[Row], int]:
    if mirostat is not None:
        return mirostat.choose
    if sampling.greedy and sampling.typical_p == 1.0 and sampling.xtc_probability == 0.0:
        return _best
    return chooser(sampling, random)


def _best(logits: Row) -> int:
    return int(logits.argmax())


def _random(sampling: Sampling) -> Callable[[], float]:
    seed = secrets.randbits(64) if sampling.seed is None else sampling.seed
    return np.random.Generator(np.random.PCG64(seed)).random


def _possible(logits: Row) -> Row:
    """The row; where all of it is impossible, any of it."""
    return logits if logits.max() > _NEVER else np.zeros_like(logits)


def _only(logits: Row, allowed: NDArray[np.bool_]) -> Row:
    """The row with nothing but what is allowed; where all of that is impossible, any of it.
    Raises `DeadEnd` where nothing is allowed."""
    if not allowed.any():
        raise DeadEnd("the constraint allows no token at all")
    left = np.where(allowed, logits, _NEVER)
    return left if left.max() > _NEVER else np.where(allowed, np.float32(0), _NEVER)


def _lowered(bias: tuple[Ids, Row] | None) -> AbstractSet[int] | None:
    """The tokens that a bias makes less likely: any other that is the best one without it is so
    with it. None where it makes some more likely."""
    if bias is None:
        return frozenset()
    ids, values = bias
    return frozenset(ids.tolist()) if (values <= 0).all() else None


def _bias_of(sampling: Sampling, tokens: Tokens) -> tuple[Ids, Row] | None:
    """Token ids with what is added to their logits, suppressed tokens last and at -infinity."""
    for token_id in sampling.logit_bias:
        if not 0 <= token_id < tokens.size:
            raise InvalidRequest(
                f"logit_bias names token {token_id}; the model has tokens 0 to {tokens.size - 1}.",
                param="logit_bias",
            )
    never = (*tokens.suppressed, *(sorted(tokens.ends) if sampling.ignore_eos else ()))
    bias = {**sampling.logit_bias, **dict.fromkeys(never, -math.inf)}
    if not bias:
        return None
    return np.array(list(bias), np.intp), np.array(list(bias.values()), np.float32)
