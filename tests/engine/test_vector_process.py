"""An engine of its own mode, as the process that it is."""

from __future__ import annotations

import signal
import struct
from pathlib import Path

import numpy as np
import pytest

from service.domain.chat import PromptPiece
from service.domain.model import Mode
from service.ipc.messages import (
    Cancel,
    Counted,
    CountTokens,
    Detokenize,
    Detokenized,
    Embed,
    Embedded,
    Hello,
    Ranked,
    Refused,
    Rerank,
    Tokenize,
    Tokenized,
)
from tests.engine.encoder_file import CLS, SEP, RandomEncoder
from tests.engine.process import SECONDS, Client, running_engine

pytestmark = pytest.mark.model


def vectors(client: Client, number: int, *inputs: str) -> np.ndarray[tuple[int, int], np.dtype]:
    frames = client.ask(Embed(number, "r", inputs))
    assert all(isinstance(f, Embedded) for f in frames), frames
    rows = [v for f in frames if isinstance(f, Embedded) for v in f.vectors]
    return np.array([struct.unpack(f"<{len(v) // 4}f", v) for v in rows])


def test_an_embedding_engine_serves_vectors_and_drains(tmp_path: Path) -> None:
    encoder = RandomEncoder()
    path = encoder.write(tmp_path / "encoder.gguf")
    with running_engine(tmp_path, path, Mode.EMBED) as engine:
        engine.next_event("ready")
        client = engine.connect()
        (hello,) = client.frames
        assert isinstance(hello, Hello)
        assert (hello.model.mode, hello.model.vector_length) == (Mode.EMBED, 64)
        texts = ["the cat", *["a mat"] * 200, "zebra"]
        found = vectors(client, 1, *texts)
        expected = np.stack([encoder.vector(text) for text in texts])
        np.testing.assert_allclose(found, expected, atol=5e-4)
        engine.process.send_signal(signal.SIGTERM)
        assert engine.process.wait(SECONDS) == 0


def test_what_an_embedding_engine_refuses(tmp_path: Path) -> None:
    path = RandomEncoder().write(tmp_path / "encoder.gguf")
    with running_engine(tmp_path, path, Mode.EMBED, PARLEY_EMBED__CONTEXT_LENGTH="16") as engine:
        engine.next_event("ready")
        client = engine.connect()
        (long,) = client.ask(Embed(1, "r", ("the cat", "the " * 15)))
        assert isinstance(long, Refused)
        assert (long.code, long.param) == ("context_length_exceeded", "input")
        assert long.message == (
            "input[1] has 17 tokens, but pocket reads at most 16 at once."  # the name it was given
        )
        (wrong,) = client.ask(Embed(2, "r", ((1, 2), (9999,))))
        assert isinstance(wrong, Refused)
        assert wrong.message == "input[1]: 9999 is no token id of pocket; those are 0 to 93."
        (judged,) = client.ask(Rerank(3, "r", "the", ("cat",)))
        assert isinstance(judged, Refused)
        assert judged.code == "unsupported"
        client.submit(4, "hello")
        assert client.reply(4) == Refused(4, "unsupported", judged.message)
        assert vectors(client, 5, "the " * 14).shape == (1, 64)


def test_a_reranking_engine_scores_documents(tmp_path: Path) -> None:
    encoder = RandomEncoder(pooling="rank")
    path = encoder.write(tmp_path / "ranker.gguf")
    with running_engine(tmp_path, path, Mode.RERANK) as engine:
        engine.next_event("ready")
        client = engine.connect()
        documents = ("the cat sat", "a mat", "zebra")
        frames = client.ask(Rerank(1, "r", "what is a cat", documents))
        scores = [s for f in frames if isinstance(f, Ranked) for s in f.scores]
        expected = [encoder.score("what is a cat", document) for document in documents]
        assert scores == pytest.approx(expected, abs=2e-3)
        (long,) = client.ask(Rerank(2, "r", "the", ("cat", "the " * 200)))
        assert isinstance(long, Refused)
        assert long.message.startswith("documents[1] has 204 tokens together with the query,")


def test_an_embedding_engine_knows_its_words(tmp_path: Path) -> None:
    encoder = RandomEncoder()
    path = encoder.write(tmp_path / "encoder.gguf")
    with running_engine(tmp_path, path, Mode.EMBED) as engine:
        engine.next_event("ready")
        client = engine.connect()
        prompt = (PromptPiece("the cat", trusted=False),)
        (ids,) = client.ask(Tokenize(1, prompt, add_special=True, with_pieces=True))
        assert isinstance(ids, Tokenized)
        assert ids.token_ids == (CLS, *encoder.ids("the cat"), SEP)
        assert ids.pieces == (b"[CLS]", b" the", b" cat", b"[SEP]")
        assert client.ask(Detokenize(2, ids.token_ids)) == [Detokenized(2, "[CLS] the cat[SEP]")]
        (wrong,) = client.ask(Detokenize(3, (94,)))
        assert isinstance(wrong, Refused)
        assert wrong.message == "94 is no token id; those are 0 to 93."
        assert client.ask(CountTokens(4, prompt)) == [Counted(4, 3)]


def test_too_many_requests_at_once_are_told_when_to_come_back(tmp_path: Path) -> None:
    encoder = RandomEncoder(layers=8, width=256, feed_forward=1024, context_length=512)
    path = encoder.write(tmp_path / "encoder.gguf")
    with running_engine(tmp_path, path, Mode.EMBED, PARLEY_EMBED__MAX_WAITING="2") as engine:
        engine.next_event("ready")
        client = engine.connect()
        long = ("the " * 500,) * 200
        for number in range(1, 6):
            client.send(Embed(number, "r", long))
        client.reply(5)
        refused = [f for f in client.frames if isinstance(f, Refused)]
        assert [(f.id, f.code) for f in refused] == [(4, "queue_full"), (5, "queue_full")]
        assert all(f.retry_after_seconds is not None for f in refused)
        for number in (1, 2, 3):
            client.send(Cancel(number))
        # Cancelled work is gone at once: this is not read after six hundred others.
        assert vectors(client, 6, "the cat").shape == (1, 256)
        assert not [f for f in client.frames if isinstance(f, Embedded) and f.id < 6 and f.last]
