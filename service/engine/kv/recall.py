"""From a prompt to token ids, with what is remembered of the conversation. Tokenizer thread."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from service.domain.chat import Prompt, PromptPiece
from service.domain.errors import ContextLengthExceeded
from service.engine.kv.cache import Cache
from service.engine.kv.prefix import Prefix
from service.engine.runner import ModelRunner
from service.engine.seen import Seen, Sight, looking
from service.ipc.messages import Submit

# Beginnings that were declared shared; an operator has one, or one for each way to think.
_MAX_SHARED = 8


@dataclass(frozen=True, slots=True)
class Recalled:
    """The tokens of a prompt; the first `num_shared` of them are nobody's in particular. Its
    pictures are `seen`."""

    token_ids: list[int]
    num_shared: int = 0
    seen: Seen | None = None


class Recall:
    """Tokenizes what is new, and brings into memory what is on disk of the rest."""

    def __init__(
        self, runner: ModelRunner, cache: Cache | None = None, sight: Sight | None = None
    ) -> None:
        self.sight = sight
        self._runner = runner
        self._cache = cache
        self._shared: OrderedDict[Prompt, list[int]] = OrderedDict()

    def tokenize(self, submit: Submit) -> Recalled:
        """Raises `InvalidRequest` as the runner does, or `ContextLengthExceeded` for a prompt that
        is too long whatever its tokens are: nobody waits for them to be found out."""
        fewest, most = self._runner.spelling.fewest_tokens(submit.prompt), self._runner.slot_length
        if fewest >= most:
            raise ContextLengthExceeded(
                f"The prompt has at least {fewest} tokens, but the context holds {most}, at least "
                f"one of them for the answer; send at most {most - 1} tokens."
            )
        seen = None
        if submit.pictures:
            prompt, rows = looking(self.sight).look(submit.prompt, submit.pictures)
            token_ids = self._runner.tokenize(prompt)
            seen = Seen.of(token_ids, rows)
        else:
            token_ids = self._token_ids(submit)
        num_shared = self._count_shared(submit, token_ids)
        if self._cache is not None:
            tokens = np.array(token_ids, np.int32)
            self._cache.fetch(Prefix(tokens, submit.cache_key, num_shared))
        return Recalled(token_ids, num_shared, seen)

    def _token_ids(self, submit: Submit) -> list[int]:
        prompt = submit.prompt
        splice = self._cache.splice(submit.cache_key, prompt) if self._cache is not None else None
        if splice is None:
            return self._runner.tokenize(prompt)
        return splice.token_ids + self._runner.spelling.content(splice.rest)

    def _count_shared(self, submit: Submit, token_ids: list[int]) -> int:
        """How many first tokens are of the declared characters alone, and would be so whatever
        came behind."""
        if submit.shared_characters <= 0:
            return 0
        declared = _first_characters(submit.prompt, submit.shared_characters)
        if declared not in self._shared:
            self._shared[declared] = self._runner.tokenize(declared)
            if len(self._shared) > _MAX_SHARED:
                self._shared.popitem(last=False)
        self._shared.move_to_end(declared)
        alone = self._shared[declared]
        pairs = zip(alone, token_ids, strict=False)
        return next(
            (n for n, (a, b) in enumerate(pairs) if a != b), min(len(alone), len(token_ids))
        )


def _first_characters(prompt: Prompt, count: int) -> Prompt:
    pieces = []
    for piece in prompt:
        if count <= 0:
            break
        pieces.append(PromptPiece(piece.text[:count], trusted=piece.trusted))
        count -= len(piece.text)
    return tuple(pieces)
