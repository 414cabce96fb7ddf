"""What is asked of a server, and what came of it."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import anthropic
import httpx2
import openai

from tests.conformance.recording import Exchange, Recorder
from tests.conformance.referee import Contradiction, judge
from tests.sdk.published import Published

SECONDS = 120
NOT_OFFERED = {404, 405, 501}


class Verdict(Enum):
    """`LOOSE`: it does what is documented, in words that the schema does not allow. `ABSENT`: the
    server has no such endpoint, and says so."""

    YES = "yes"
    LOOSE = "loose"
    NO = "no"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Outcome:
    verdict: Verdict
    reason: str = ""


class Subject:
    """A server under judgement, and the clients that speak to it. All that they hear is kept."""

    def __init__(self, url: str, token: str, model: str, embedder: str | None = None) -> None:
        self.url = url
        self.model = model
        self.embedder = embedder or model
        self.has_token = bool(token)
        self.recorder = Recorder()
        client = httpx2.Client(transport=self.recorder, timeout=SECONDS)
        # What is asked is partly wrong on purpose, so the clients' own types are no help.
        self.openai: Any = openai.OpenAI(
            base_url=f"{url}/v1", api_key=token or "none", max_retries=0, http_client=client
        )
        self.claude: Any = anthropic.Anthropic(
            base_url=url, api_key=token or "none", max_retries=0, http_client=client
        )
        self._client = client
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    @property
    def last(self) -> Exchange:
        return self.recorder.exchanges[-1]

    def chat(self, text: str, **options: Any) -> Any:
        """A greedy answer, whole or as a stream."""
        return self.openai.chat.completions.create(**self.asking(text, **options))

    def asking(self, text: str, **options: Any) -> dict[str, Any]:
        message = {"role": "user", "content": text}
        return {"model": self.model, "messages": [message], "temperature": 0, **options}

    def message(self, text: str, **options: Any) -> Any:
        """The same of the other vendor."""
        return self.claude.messages.create(**self.asking_claude(text, **options))

    def asking_claude(self, text: str, **options: Any) -> dict[str, Any]:
        asked = {"max_tokens": 200, **self.asking(text, **options)}
        return asked | {"extra_body": {"temperature": asked.pop("temperature")}}

    def respond(self, text: Any, **options: Any) -> Any:
        asked = {"model": self.model, "input": text, "temperature": 0, **options}
        return self.openai.responses.create(**asked)

    def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any]:
        """What a plain client gets; a body of bytes is sent as it is."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        told = {"Content-Type": "application/json", **self._headers, **headers}
        reply = self._client.post(self.url + path, content=content, headers=told)
        return reply.status_code, reply.json()

    def headers_of(self, path: str, body: Any) -> httpx2.Headers:
        reply = self._client.post(self.url + path, json=body, headers=self._headers)
        return reply.headers

    def lines_of(self, path: str) -> Iterator[str]:
        """The lines of an endless stream, as they come."""
        with self._client.stream("GET", self.url + path, headers=self._headers) as reply:
            yield from reply.iter_lines()

    def close(self) -> None:
        self._client.close()


@dataclass(frozen=True, slots=True)
class Check:
    """One documented feature; `run` raises where it is not as documented."""

    area: str
    title: str
    run: Callable[[Subject], None]


CHECKS: list[Check] = []


def check(area: str, title: str) -> Callable[[Callable[[Subject], None]], Callable[..., None]]:
    """Put a function on the list."""

    def adding(run: Callable[[Subject], None]) -> Callable[[Subject], None]:
        CHECKS.append(Check(area, title, run))
        return run

    return adding


def outcome_of(one: Check, subject: Subject, published: Published | None) -> Outcome:
    """Run one check, and look at all that went over the wire meanwhile."""
    subject.recorder.exchanges.clear()
    try:
        one.run(subject)
        for exchange in subject.recorder.exchanges:
            judge(exchange, published)
    except Contradiction as error:
        return Outcome(Verdict.LOOSE, _sentence(error))
    except Exception as error:  # noqa: BLE001  whatever a stranger's server does is its outcome
        exchanges = subject.recorder.exchanges
        if exchanges and exchanges[-1].status in NOT_OFFERED:
            return Outcome(Verdict.ABSENT)
        return Outcome(Verdict.NO, _sentence(error))
    return Outcome(Verdict.YES)


def _sentence(error: Exception) -> str:
    if isinstance(error, AssertionError):
        kind, told = "", str(error) or f"not so: {_failed_line(error)}"
    else:
        kind, told = f"{type(error).__name__}: ", str(error)
    return (kind + " ".join(told.split()))[:240]


def _failed_line(error: Exception) -> str:
    """What was asserted, in the check's own words."""
    line = traceback.extract_tb(error.__traceback__)[-1].line or ""
    return line.removeprefix("assert ")


def refused(call: Callable[[], Any], status: int = 400) -> Any:
    """The vendor's exception for a refusal with `status`."""
    try:
        call()
    except (openai.APIStatusError, anthropic.APIStatusError) as error:
        if error.status_code != status:
            raise AssertionError(f"refused with {error.status_code}, not {status}") from error
        return error
    raise AssertionError(f"accepted, where a {status} is due")
