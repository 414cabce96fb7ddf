"""The load: N streams at once over HTTP, timed as they arrive, in a process of its own.

Run as a program it reads a `Load` as JSON from stdin and writes a `Measured` as JSON to stdout. It
shares the processors with what it measures, so it does as little as possible for each token: it
counts frames in the raw bytes and looks at the clock.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import resource
import string
import sys
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

# A frame that carries text, in any server's spelling of the same JSON; an empty one carries none.
_TEXT, _NO_TEXT = b'"content":"', b'"content":""'
_TEXT_SPACED, _NO_TEXT_SPACED = b'"content": "', b'"content": ""'
_TAIL_BYTES = 4096  # enough for the last frames, which hold the usage


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked, by how many at once, of whom. `logit_bias` keeps the model from ending.

    From a server that `loses` streams or says no usage, what arrived is counted.
    """

    port: int
    streams: int
    prompt_words: int
    max_tokens: int
    seed: int
    body: dict[str, Any] = field(default_factory=dict)
    loses: bool = False


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds and tokens of one load. Rates are of all streams together.

    `decode_tokens_per_second` is taken while every stream is writing (`together_seconds`), so that
    it can be compared with a benchmark that only decodes; `tokens_per_second` from the first
    request to the last byte.
    """

    streams: int
    tokens: list[int]
    prompt_tokens: list[int]
    tokens_per_second: float
    decode_tokens_per_second: float
    together_seconds: float
    first_token_seconds: list[float]
    gap_seconds: list[float]
    client_cpu_share: float


class Stream(asyncio.Protocol):
    """One request and the times at which its text came."""

    def __init__(self, request: bytes, *, may_break: bool = False) -> None:
        self.request = request
        self.may_break = may_break
        self.times: list[float] = []
        self.tail = b""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)  # noqa: S101 - TCP always is
        self.sent = time.perf_counter()
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        count = self._count(_TEXT, data) - self._count(_NO_TEXT, data)
        count += self._count(_TEXT_SPACED, data) - self._count(_NO_TEXT_SPACED, data)
        if count >= 0:
            self.times += [now] * count
        else:  # the bytes were cut within an empty text, which looked like one until now
            del self.times[count:]
        self.tail = (self.tail + data)[-_TAIL_BYTES:]

    def _count(self, mark: bytes, data: bytes) -> int:
        """Marks that end in `data`; one may begin in what came before."""
        return (self.tail[1 - len(mark) :] + data).count(mark)

    def connection_lost(self, error: Exception | None) -> None:
        if error is None or self.may_break:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(error)

    def usage(self) -> dict[str, int]:
        """What the server says it read and wrote. Raises `ValueError` when it does not say so."""
        for line in reversed(self.tail.split(b"\n")[:-1]):
            if line.startswith(b"data: {") and (usage := json.loads(line[6:]).get("usage")):
                return dict(usage)
        raise ValueError(f"the stream ended without usage: {self.tail[-500:]!r}")

    def delivered(self) -> dict[str, int]:
        """What arrived, frame by frame, whatever became of the stream."""
        return {"prompt_tokens": 0, "completion_tokens": len(self.times)}


def create_request(load: Load, stream: int) -> bytes:
    """A prompt of its own for each stream, so that no cache helps."""
    source = random.Random(f"{load.seed}-{stream}")
    words = ("".join(source.choices(string.ascii_lowercase, k=3)) for _ in range(load.prompt_words))
    body = {
        "messages": [{"role": "user", "content": " ".join(words)}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": load.max_tokens,
        **load.body,
    }
    content = json.dumps(body).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


async def measure(load: Load) -> Measured:
    """Send all requests at once and wait for the end of every stream."""
    loop = asyncio.get_running_loop()
    cpu, began = _cpu_seconds(), time.perf_counter()
    streams = [Stream(create_request(load, n), may_break=load.loses) for n in range(load.streams)]
    for stream in streams:
        await loop.create_connection(partial(_same, stream), "127.0.0.1", load.port)
    await asyncio.gather(*(stream.ended for stream in streams))
    wall = time.perf_counter() - began
    share = (_cpu_seconds() - cpu) / wall
    usages = [stream.delivered() if load.loses else stream.usage() for stream in streams]
    tokens = [usage["completion_tokens"] for usage in usages]
    times = [stream.times for stream in streams if stream.times]
    begin, end = _together(times)
    return Measured(
        streams=load.streams,
        tokens=tokens,
        prompt_tokens=[usage["prompt_tokens"] for usage in usages],
        tokens_per_second=sum(tokens) / wall,
        decode_tokens_per_second=_rate_while_all_write(times, tokens),
        together_seconds=end - begin,
        first_token_seconds=[s.times[0] - s.sent for s in streams if s.times],
        gap_seconds=[b - a for t in times for a, b in itertools.pairwise(t)],
        client_cpu_share=share,
    )


def _together(times: list[list[float]]) -> tuple[float, float]:
    """From when the last stream has begun until the first one ends."""
    return max(t[0] for t in times), min(t[-1] for t in times)


def _rate_while_all_write(times: list[list[float]], tokens: list[int]) -> float:
    """Tokens per second while all streams write; 0 when they never do."""
    begin, end = _together(times)
    # Where several tokens came in one frame (a character of several tokens), it counts as many.
    per_frame = sum(tokens) / sum(len(t) for t in times)
    written = sum(sum(begin < at <= end for at in t) for t in times) * per_frame
    return written / (end - begin) if end > begin else 0.0


def _same(stream: Stream) -> Stream:
    return stream


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(measure(Load(**json.load(sys.stdin)))))))
