"""The load generator counts what arrives, however the bytes are cut."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from benchmarks.load import Load, create_request, measure

FIRST = {"choices": [{"delta": {"role": "assistant", "content": ""}}]}
TEXT = {"choices": [{"delta": {"content": "word"}}]}
LAST = {"choices": [{"delta": {}, "finish_reason": "length"}]}
USAGE = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 20}}


def answer(separators: tuple[str, str]) -> bytes:
    frames = [FIRST, *[TEXT] * 20, LAST, USAGE]
    text = "".join(f"data: {json.dumps(f, separators=separators)}\n\n" for f in frames)
    return b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + text.encode() + b"data: [DONE]\n\n"


@asynccontextmanager
async def serving(pieces: list[bytes]) -> AsyncIterator[int]:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(reply, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("size", [1, 5, 11, 12, 4096])
async def test_every_token_is_counted_once_however_the_bytes_are_cut(size: int) -> None:
    whole = answer((",", ":"))
    async with serving([whole[at : at + size] for at in range(0, len(whole), size)]) as port:
        measured = await measure(Load(port, streams=3, prompt_words=4, max_tokens=20, seed=1))
    assert measured.tokens == [20, 20, 20]
    assert measured.prompt_tokens == [7, 7, 7]
    assert len(measured.gap_seconds) == 3 * 19
    assert len(measured.first_token_seconds) == 3


async def test_a_stream_without_its_end_is_an_error_and_not_a_number() -> None:
    async with serving([answer((",", ":"))[:700]]) as port:
        with pytest.raises(ValueError, match="ended without usage"):
            await measure(Load(port, streams=1, prompt_words=4, max_tokens=20, seed=1))


def test_no_two_streams_ask_the_same() -> None:
    load = Load(port=1, streams=8, prompt_words=8, max_tokens=20, seed=1, body={"temperature": 0})
    requests = {create_request(load, n) for n in range(8)}
    assert len(requests) == 8
    body = json.loads(requests.pop().partition(b"\r\n\r\n")[2])
    assert body["max_tokens"] == 20
    assert body["temperature"] == 0
