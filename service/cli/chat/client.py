"""The service, as the terminal chat needs it. Blocking: one person waits for one answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import httpx2 as httpx

from service.domain.errors import ServiceError

Facts = dict[str, Any]

_CONNECT_SECONDS = 10.0


class Refused(ServiceError):
    """The service said no, or nobody answered; the sentence is for the person."""

    code = "refused"


class Client:
    """Speaks to the service at `url`, as whom `token` stands for. Methods raise `Refused`."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url = url.rstrip("/")
        headers = {"User-Agent": "parley-chat"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        timeout = httpx.Timeout(_CONNECT_SECONDS, read=None)
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout)

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, **query: str) -> Facts:
        return self._call("GET", path, params=query)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Facts:
        return self._call("POST", path, json=body or {})

    def delete(self, path: str) -> Facts:
        return self._call("DELETE", path)

    def served_model(self) -> Facts | None:
        """The model that answers now; None while there is none."""
        data = self.get("/v1/models")["data"]
        return dict(data[0]) if data else None

    def answer(self, body: Mapping[str, Any], path: str = "/chat/stream") -> Iterator[Facts]:
        """The frames of an answer, the last of which has `done`. Closing the iterator stops it."""
        try:
            with self._http.stream("POST", path, json=dict(body)) as reply:
                if reply.status_code != 200:
                    reply.read()
                    raise _refusal(reply)
                for line in reply.iter_lines():
                    if line.startswith("data: "):
                        yield json.loads(line[6:])
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def conversation(self, name: str, rest: str = "", **query: str) -> Facts:
        """What the service knows of one conversation; `rest` is the path below it."""
        return self.get(f"/v1/conversations/{quote(name, safe='')}{rest}", **query)

    def _call(self, method: str, path: str, **options: Any) -> Facts:
        try:
            reply = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        if reply.status_code >= 300:
            raise _refusal(reply)
        try:
            facts = reply.json()
        except ValueError as error:
            raise Refused(f"{self.url} does not answer as Parley does.") from error
        return dict(facts)

    def _unreachable(self, error: Exception) -> Refused:
        reason = str(error) or type(error).__name__
        return Refused(
            f"No service answers at {self.url} ({reason}); `parley serve` starts one, and --url "
            "names another."
        )


def _refusal(reply: httpx.Response) -> Refused:
    """The service's own sentence, whichever envelope it is in."""
    try:
        body = reply.json()
    except ValueError:
        return Refused(f"The service answered {reply.status_code} without a reason.")
    told = body.get("error") or body.get("detail") or {}
    if isinstance(told, dict):
        told = told.get("message", "")
    if isinstance(told, list):
        told = "; ".join(str(fault.get("msg", fault)) for fault in told)
    reason = body.get("reason")
    sentence = str(reason or told or f"The service answered {reply.status_code}.")
    if reply.status_code == 401:
        sentence += " Give an access token with --token."
    return Refused(sentence)
