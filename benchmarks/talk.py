"""One question over HTTP, and what came back when: for scenarios, where few tokens flow."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, str]


@dataclass(slots=True)
class Talk:
    """A streamed answer. Times are those of `time.perf_counter`; `usage` is the server's word."""

    sent: float
    times: list[float] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    usage: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def first_token_seconds(self) -> float:
        return self.times[0] - self.sent

    @property
    def prompt_tokens(self) -> int:
        return int(self.usage["prompt_tokens"])

    @property
    def completion_tokens(self) -> int:
        return int(self.usage["completion_tokens"])

    @property
    def computed_tokens(self) -> int:
        """Prompt tokens that were read anew."""
        details = self.usage.get("prompt_tokens_details") or {}
        return self.prompt_tokens - int(details.get("cached_tokens") or 0)

    @property
    def tokens_per_second(self) -> float:
        """From the first token on."""
        return (self.completion_tokens - 1) / (self.times[-1] - self.times[0])


async def ask(
    port: int,
    messages: Sequence[Mapping[str, str]],
    *,
    token: str | None = None,
    so_far: Talk | None = None,
    **body: Any,
) -> Talk:
    """Ask, and read to the end. Being cancelled hangs up; what came till then is in `so_far`.

    Raises `RuntimeError` for an answer that is not 200.
    """
    talk = so_far or Talk(0.0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**22)
    try:
        talk.sent = time.perf_counter()
        writer.write(_request(messages, token, body))
        await writer.drain()
        status = await reader.readline()
        if b" 200" not in status:
            raise RuntimeError(f"{status!r} {(await reader.read(2000))!r}")
        while line := await reader.readline():
            if line.startswith(b"data: {"):
                _take(talk, json.loads(line[6:]))
        return talk
    finally:
        writer.close()


def _request(messages: Sequence[Mapping[str, str]], token: str | None, body: Any) -> bytes:
    content = json.dumps(
        {
            "messages": [dict(message) for message in messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            **body,
        }
    ).encode()
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"{authorization}Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def _take(talk: Talk, frame: dict[str, Any]) -> None:
    if frame.get("usage"):
        talk.usage = frame["usage"]
    for choice in frame.get("choices", ()):
        if text := choice.get("delta", {}).get("content"):
            talk.times.append(time.perf_counter())
            talk.texts.append(text)
