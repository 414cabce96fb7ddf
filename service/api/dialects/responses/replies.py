"""The response object, and its stream of events."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from service.api.dialects.responses.output import Output, Wire, new_id, to_status, to_usage
from service.api.dialects.responses.schemas import ResponseBody
from service.api.dialects.responses.translate import Item
from service.api.errors import Problem
from service.api.openai_errors import to_error_body
from service.api.replies import encode_json
from service.domain.conversation import KeptResponse
from service.domain.events import Event, Finished
from service.domain.model import ModelInfo


class Drafted:
    """One response while it is written: fed with events, it knows what to tell and what to keep."""

    def __init__(self, body: ResponseBody, new: Sequence[Item], model: ModelInfo) -> None:
        self.id = new_id("resp")
        self.body = body
        self.model = model
        self.created_at = int(time.time())
        self.final: Wire = {}
        self.waiting: deque[list[Wire]] = deque()
        self._new = new
        self._output = Output()

    def describe(self, event: Event) -> KeptResponse | None:
        """Takes the event in; what is to be kept when it was the last one."""
        told = self._output.feed(event)
        if isinstance(event, Finished):
            status, details = to_status(event)
            told = self._output.end(whole=status == "completed")
            usage = to_usage(event.usage)
            self.final = self.reply(status, incomplete_details=details, usage=usage)
            told = [*told, {"type": f"response.{status}", "response": self.final}]
        self.waiting.append(told)
        if not isinstance(event, Finished) or self.body.store is False:
            return None
        items = [{**item, "id": item.get("id") or new_id("msg")} for item in self._new]
        previous = self.body.previous_response_id
        return KeptResponse(self.id, previous, json.dumps(items), json.dumps(self.final))

    def reply(self, status: str = "in_progress", **facts: Any) -> Wire:
        """The response as it stands, with every field that the vendor's has."""
        body = self.body
        text = body.text.model_dump(exclude_none=True, by_alias=True) if body.text else {}
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created_at,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "model": self.model.name,
            "output": self._output.items,
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": body.previous_response_id,
            "reasoning": {"effort": body.reasoning and body.reasoning.effort, "summary": None},
            "store": body.store is not False,
            "temperature": 1.0 if body.temperature is None else body.temperature,
            "text": {"format": {"type": "text"}, **text},
            "tool_choice": _to_choice(body),
            "tools": [tool.model_dump() for tool in body.tools or ()],
            "top_p": 1.0 if body.top_p is None else body.top_p,
            "truncation": body.truncation or "disabled",
            "usage": None,
            "user": body.user,
            "metadata": body.metadata or {},
            **facts,
        }


class ResponseFrames:
    """The stream of one response; every event has its number."""

    def __init__(self, drafted: Drafted) -> None:
        self._drafted = drafted
        self._number = 0

    def opening(self) -> bytes:
        begun = self._drafted.reply()
        kinds = ("response.created", "response.in_progress")
        return self._frames({"type": kind, "response": begun} for kind in kinds)

    def event(self, event: Event) -> bytes:
        """What `Drafted.describe` has made of the same event."""
        return self._frames(self._drafted.waiting.popleft())

    def failure(self, problem: Problem) -> bytes:
        error = to_error_body(problem)["error"]
        told = {"code": error["code"] or "server_error", "message": error["message"]}
        failed = self._drafted.reply("failed", error=told)
        return self._frames([{"type": "response.failed", "response": failed}])

    def _frames(self, events: Iterable[Wire]) -> bytes:
        return b"".join(self._frame(event) for event in events)

    def _frame(self, event: Wire) -> bytes:
        numbered = {**event, "sequence_number": self._number}
        self._number += 1
        name: str = event["type"]
        return b"event: " + name.encode() + b"\ndata: " + encode_json(numbered) + b"\n\n"


def _to_choice(body: ResponseBody) -> Any:
    choice = body.tool_choice
    if choice is None or isinstance(choice, str):
        return choice or "auto"
    return choice.model_dump(exclude_none=True)
