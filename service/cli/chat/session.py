"""What a chat in the terminal remembers: where it is, and how answers are to be."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from service.cli.chat.client import Client, Facts, Refused

_NUMBERS: dict[str, Callable[[str], Any]] = {
    "temperature": float,
    "top_p": float,
    "max_tokens": int,
}
MAX_TOKENS = 2048


@dataclass(slots=True)
class Told:
    """Of the last answer: its tokens and seconds, and how much of the window is used."""

    tokens: int = 0
    seconds: float = 0.0
    window_used: int = 0
    finish_reason: str = ""

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


@dataclass(slots=True)
class Session:
    """One person's chat. Methods raise `Refused`."""

    client: Client
    model: str = ""
    window: int = 0
    conversation_id: str | None = None
    system_prompt: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    told: Told = field(default_factory=Told)
    last_message: str = ""

    def refresh(self) -> None:
        """Ask which model answers."""
        served = self.client.served_model()
        self.model = served["id"] if served else ""
        self.window = int(served.get("context_length", 0)) if served else 0

    def answer(self, message: str) -> Iterator[str]:
        """The answer's text as it comes. Closing the iterator stops the answer."""
        body: Facts = {"message": message, "history": "all", "max_tokens": MAX_TOKENS}
        body |= self.options
        if self.conversation_id:
            body["session_id"] = self.conversation_id
        if self.system_prompt is not None:
            body["system_prompt"] = self.system_prompt
        self.last_message = message
        yield from self._read(self.client.answer(body))

    def go_on(self) -> Iterator[str]:
        """More of the last answer, where it was cut."""
        if self.conversation_id is None:
            raise Refused("There is no answer yet to go on with.")
        body = {name: value for name, value in self.options.items() if value is not None}
        if self.system_prompt is not None:
            body["system_prompt"] = self.system_prompt
        path = f"/v1/conversations/{quote(self.conversation_id, safe='')}/continue"
        yield from self._read(self.client.answer(body, path))

    def _read(self, frames: Iterator[Facts]) -> Iterator[str]:
        began = 0.0
        for frame in frames:
            if session_id := frame.get("session_id"):
                self.conversation_id = session_id
            if token := frame.get("token"):
                began = began or time.monotonic()
                yield token
            if frame.get("error"):
                raise Refused(str(frame["error"]))
            if frame.get("done"):
                self._note(frame, time.monotonic() - began if began else 0.0)

    def regenerate(self) -> Iterator[str]:
        """Another answer to the last message. The conversation goes on as a copy without the old
        answer, which is forgotten once the new one is there; where it is refused, all stays."""
        if self.conversation_id is None:
            raise Refused("There is no answer yet to be written again.")
        old = self.conversation_id
        last = self._last_exchange(old)
        path = f"/v1/conversations/{quote(old, safe='')}"
        copy = self.client.post(f"{path}/fork", {"last_turn": last["turn"] - 1})
        self.conversation_id = copy["id"]
        try:
            yield from self.answer(last["text"])
        except Refused:
            self.client.delete(f"/v1/conversations/{quote(copy['id'], safe='')}")
            self.conversation_id = old
            raise
        self.client.delete(path)

    def open(self, name: str) -> Facts:
        """Go on with a conversation of the service's, by its id or a beginning of it."""
        known = self.client.get("/v1/conversations", limit="200")["data"]
        found = [c for c in known if c["id"] == name] or [
            c for c in known if c["id"].startswith(name) or c["title"] == name
        ]
        if len(found) != 1:
            said = f"{len(found)} conversations begin so" if found else "no conversation does"
            raise Refused(f"{name}: {said}; /list shows them, and /load also takes a file.")
        self.conversation_id = found[0]["id"]
        return dict(found[0])

    def save(self, path: Path) -> int:
        """Write the conversation to a file; returns how many messages it has."""
        if self.conversation_id is None:
            raise Refused("There is nothing to save yet; say something first.")
        document = self.client.conversation(self.conversation_id, "/export")
        try:
            path.write_text(json.dumps(document, indent=1, ensure_ascii=False), encoding="utf-8")
        except OSError as error:
            raise Refused(f"{path} can't be written: {error.strerror}.") from error
        return len(document["messages"])

    def load(self, path: Path) -> Facts:
        """Go on with a conversation from a file that was saved."""
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise Refused(f"{path} can't be read: {error.strerror}.") from error
        except ValueError as error:
            raise Refused(f"{path} is not a saved conversation: {error}.") from error
        made = self.client.post("/v1/conversations/import", document)
        self.conversation_id = made["id"]
        return made

    def set(self, name: str, value: str) -> None:
        """An option of the answers to come; the value `default` takes it back."""
        if name not in _NUMBERS:
            raise Refused(f"{name} can't be set; {', '.join(_NUMBERS)} can.")
        if value == "default":
            self.options.pop(name, None)
            return
        try:
            self.options[name] = _NUMBERS[name](value)
        except ValueError as error:
            raise Refused(f"{name} {value} is not a number.") from error

    def _last_exchange(self, name: str) -> Facts:
        items = self.client.conversation(name, "/export")["messages"]
        said = [m["content"] for m in items if m["role"] == "user"]
        if not said:
            raise Refused("There is no answer yet to be written again.")
        return {"turn": len(said), "text": said[-1]}

    def _note(self, frame: Facts, seconds: float) -> None:
        self.told = Told(
            tokens=int(frame.get("completion_tokens") or 0),
            seconds=seconds,
            window_used=int(frame.get("tokens_used") or 0),
            finish_reason=str(frame.get("finish_reason") or ""),
        )
