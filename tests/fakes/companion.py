"""An engine beside the chat engine: it embeds or reranks, under the test's control.

    embedder = FakeCompanion(EMBEDDER)
    embedder.refuses(QueueFull("…"))        # the next question raises this
    embedder.hangs = True                   # questions are never answered
    await embedder.until(lambda: embedder.cancelled)
    embedder.questions, embedder.cancelled  # what was asked; what was given up

One word is one token. A vector has the number of tokens, then zeros; a document scores by the
share of its words that the query has.
"""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from service.domain.chat import Prompt
from service.domain.errors import InvalidRequest, ServiceError, Unsupported
from service.domain.model import Mode, ModelInfo
from service.ipc.asking import Question
from service.ipc.client import EngineStream
from service.ipc.inquiry import AnswerFrame
from service.ipc.messages import (
    Counted,
    CountTokens,
    Detokenize,
    Detokenized,
    Embed,
    Embedded,
    Ranked,
    Rerank,
    Submit,
    Tokenize,
    Tokenized,
)


def _model(name: str, mode: Mode, vector_length: int) -> ModelInfo:
    return ModelInfo(
        name,
        description="A fake.",
        context_length=8,
        trained_context_length=8,
        num_slots=4,
        vocabulary_size=1000,
        num_parameters=1000,
        size_bytes=4000,
        created=1_700_000_000,
        mode=mode,
        vector_length=vector_length,
    )


EMBEDDER = _model("fake-embedder", Mode.EMBED, 4)
RERANKER = _model("fake-reranker", Mode.RERANK, 1)


class FakeWords:
    """A vocabulary that grows: each new word is the next token."""

    def __init__(self, model: ModelInfo) -> None:
        self._size = model.vocabulary_size
        self._words = ["[BEGIN]"]

    def answer(self, question: Question) -> AnswerFrame:
        match question:
            case Tokenize():
                ids = self._ids("".join(piece.text for piece in question.prompt))
                ids = [0, *ids] if question.add_special else ids
                pieces = tuple(self._words[i].encode() for i in ids)
                return Tokenized(question.id, tuple(ids), pieces if question.with_pieces else ())
            case Detokenize():
                if any(i >= len(self._words) for i in question.token_ids):
                    raise InvalidRequest(f"token ids are 0 to {self._size - 1}.")
                text = "".join(self._words[i] for i in question.token_ids)
                return Detokenized(question.id, text)
            case CountTokens():
                text = "".join(piece.text for piece in question.prompt)
                return Counted(question.id, len(self._ids(text)))
        raise Unsupported(f"fake runs to chat, not to {type(question).__name__}.")

    def _ids(self, text: str) -> list[int]:
        found = re.findall(r"\s*\S+|\s+$", text)
        self._words += dict.fromkeys(word for word in found if word not in self._words)
        return [self._words.index(word) for word in found]


@dataclass
class FakeCompanion:
    """The `EngineClient` of an embedding or reranking model."""

    model: ModelInfo
    questions: list[Question] = field(default_factory=list)
    cancelled: list[Question] = field(default_factory=list)
    hangs: bool = False
    _refusals: list[ServiceError] = field(default_factory=list)
    _turn: asyncio.Condition = field(default_factory=asyncio.Condition)

    def refuses(self, error: ServiceError) -> None:
        self._refusals.append(error)

    async def ask(self, question: Question) -> list[AnswerFrame]:
        if self._refusals:
            raise self._refusals.pop(0)
        self.questions.append(question)
        await self.changed()
        if self.hangs:
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.append(question)
                await self.changed()
        match question:
            case Embed():
                return self._embed(question)
            case Rerank():
                return [self._rerank(question)]
        return [FakeWords(self.model).answer(question)]

    async def submit(self, job: Submit) -> EngineStream:
        raise Unsupported(f"{self.model.name} runs to {self.model.mode}; it does nothing else.")

    async def count_tokens(self, prompt: Prompt, pictures: tuple[bytes, ...] = ()) -> int:
        return len("".join(piece.text for piece in prompt).split())

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until `condition` holds; it is looked at after each question and cancellation."""
        async with self._turn:
            await self._turn.wait_for(lambda: bool(condition()))

    async def changed(self) -> None:
        async with self._turn:
            self._turn.notify_all()

    def _embed(self, question: Embed) -> list[AnswerFrame]:
        """In two frames where there is more than one input, as a real one may."""
        counts = [len(i.split() if isinstance(i, str) else i) for i in question.inputs]
        length = question.dimensions or self.model.vector_length
        vectors = [struct.pack(f"<{length}f", n, *[0.0] * (length - 1)) for n in counts]
        first = Embedded(question.id, (vectors[0],), (counts[0],), last=len(counts) == 1)
        rest = Embedded(question.id, tuple(vectors[1:]), tuple(counts[1:]), last=True)
        return [first, rest] if len(counts) > 1 else [first]

    def _rerank(self, question: Rerank) -> Ranked:
        asked = set(question.query.split())
        documents = [document.split() for document in question.documents]
        scores = tuple(len(asked & set(words)) / len(words) for words in documents)
        counts = tuple(len(words) + len(asked) for words in documents)
        return Ranked(question.id, scores, counts, last=True)
