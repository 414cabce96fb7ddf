"""Compiles constraints, and keeps what is compiled for the next request that says the same."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from llguidance import LLMatcher, LLTokenizer

from service import metrics
from service.domain.constraint import Constraint, ConstraintKind
from service.engine.grammar.alphabet import Alphabet
from service.engine.grammar.limits import create_limits
from service.engine.grammar.matcher import GrammarMatcher, LaterMatcher
from service.engine.grammar.sources import refusal, to_grammar
from service.engine.grammar.trial import Trial
from service.engine.runner import Matcher

_MAX_COMPILED = 64
_MAX_COMPILED_BYTES = 1024 * 1024

Key = tuple[ConstraintKind, str]


class Grammars:
    """The compiled grammars of one model, the latest used. Any thread.

    What is new goes through `trial` first, where there is one.
    """

    def __init__(self, create_alphabet: Callable[[], Alphabet], trial: Trial | None = None) -> None:
        self._create_alphabet = create_alphabet
        self._trial = trial
        self._known: tuple[Alphabet, LLTokenizer] | None = None
        self._compiled: OrderedDict[Key, LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    def create_matcher(self, constraint: Constraint) -> Matcher:
        """Takes up to a second where the grammar is new and large; needs a large stack.

        Raises `InvalidRequest` where `constraint` can't be compiled, naming what is wrong with it.
        """
        with self._lock:
            grammar = self._compiled_from(constraint).deep_copy()
            alphabet, _ = self._vocabulary()
        metrics.CONSTRAINED_REQUESTS.labels(constraint.kind.value).inc()
        strict = GrammarMatcher(grammar, alphabet.ends, len(alphabet.spellings))
        if not constraint.after:
            return strict
        return LaterMatcher(strict, constraint.after.encode(), alphabet.spellings, alphabet.ends)

    def close(self) -> None:
        """End the trial's process. Nothing may be compiled afterwards."""
        with self._lock:
            if self._trial is not None:
                self._trial.close()

    def _compiled_from(self, constraint: Constraint) -> LLMatcher:
        key = (constraint.kind, constraint.source)
        grammar = self._compiled.get(key)
        if grammar is None:
            with metrics.GRAMMAR_SECONDS.time():
                grammar = self._compile(constraint)
            self._compiled[key] = grammar
            while len(self._compiled) > _MAX_COMPILED or self._size() > _MAX_COMPILED_BYTES:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(key)
        return grammar

    def _compile(self, constraint: Constraint) -> LLMatcher:
        """The first mask is computed too: it finds out what compiling leaves for later, and what
        it took is in every copy."""
        _, tokenizer = self._vocabulary()
        source = to_grammar(constraint)
        if self._trial is not None:
            self._trial.check(source)
        grammar = LLMatcher(tokenizer, source, log_level=0, limits=create_limits())
        if not grammar.is_error():
            grammar.compute_bitmask()
        if grammar.is_error():
            raise refusal(constraint.kind, grammar.get_error())
        return grammar

    def _vocabulary(self) -> tuple[Alphabet, LLTokenizer]:
        if self._known is None:
            alphabet = self._create_alphabet()
            self._known = (alphabet, alphabet.create_tokenizer())
        return self._known

    def _size(self) -> int:
        return sum(len(source) for _, source in self._compiled)
