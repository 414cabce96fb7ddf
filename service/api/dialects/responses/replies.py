"""The response object, and its stream of events."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from service.api.dialects.responses.output import Output, Wire, to_status, to_usage
from service.api.dialects.responses.schemas import TOOL_TYPES, ResponseBody, ToolBody
from service.api.dialects.responses.tools import Toolbox
from service.api.errors import Problem
from service.api.items import Item, to_turns
from service.api.replies import encode_json
from service.domain.conversation import AnswerState, KeptResponse, KeptTurn, ResponseState
from service.domain.events import Event, Failed, Finished, FinishReason, QueuePosition
from service.domain.model import ModelInfo

_CUT_SHORT = (FinishReason.CANCELLED, FinishReason.SHUTDOWN, FinishReason.DEADLINE)
STOPPED = "The service stopped before the answer was complete."


class Drafted:
    """One response while it is written: it takes events in, and `events` are the frames that tell
    of it, each with its number. `new` are the items that its request brought, as they are kept."""

    def __init__(
        self,
        body: ResponseBody,
        toolbox: Toolbox,
        new: Sequence[Item],
        model: ModelInfo,
        response_id: str,
    ) -> None:
        self.id = response_id
        self.is_kept = body.store is not False
        self.events: list[str] = []
        self._body = body
        self._model = model
        self._new = new
        self._conversation_id = body.conversation_id
        self._output = Output(toolbox, with_logprobs=body.wants_logprobs)
        self._created_at = int(time.time())
        self._status = "queued" if body.background else "in_progress"
        self._facts: Wire = {}
        for kind in ("created", self._status):
            self._tell({"type": f"response.{kind}", "response": self.reply()})

    def take(self, event: Event) -> None:
        if isinstance(event, QueuePosition):
            return
        if isinstance(event, Failed):
            self._fail(event.error.message)
            return
        if self._status == "queued":
            self._status = "in_progress"
            self._tell({"type": "response.in_progress", "response": self.reply()})
        if isinstance(event, Finished):
            self._end(event)
            return
        for told in self._output.feed(event):
            self._tell(told)

    def kept(self, state: ResponseState) -> KeptResponse:
        previous = self._body.previous_response_id
        new, reply = json.dumps(self._new), json.dumps(self.reply())
        return KeptResponse(self.id, previous, new, reply, state)

    def turn(self) -> KeptTurn | None:
        if self._conversation_id is None or self._status not in ("completed", "incomplete"):
            return None
        state = AnswerState.COMPLETE if self._status == "completed" else AnswerState.CUT
        items = [*self._new, *self._output.items]
        return KeptTurn(self._conversation_id, to_turns(items, state))

    def failure(self, number: int, message: str) -> str:
        """The frame that ends a stream after `number` events because something broke."""
        error = {"code": "server_error", "message": message}
        response = self.reply() | {"status": "failed", "error": error}
        return to_frame({"type": "response.failed", "response": response}, number)

    def reply(self) -> Wire:
        """The response as it stands, with every field that the vendor's has."""
        body = self._body
        text = body.text.model_dump(exclude_none=True, by_alias=True) if body.text else {}
        conversation = self._conversation_id and {"id": self._conversation_id}
        return {
            "id": self.id,
            "object": "response",
            "created_at": self._created_at,
            "status": self._status,
            "background": body.background is True,
            "completed_at": None,
            "conversation": conversation,
            "error": None,
            "incomplete_details": None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "model": self._model.name,
            "output": self._output.items,
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": body.previous_response_id,
            "reasoning": {"effort": body.reasoning and body.reasoning.effort, "summary": None},
            "store": self.is_kept,
            "temperature": 1.0 if body.temperature is None else body.temperature,
            "text": {"format": {"type": "text"}, **text},
            "tool_choice": _to_choice(body),
            "tools": [_to_tool(tool) for tool in body.tools or () if tool.type in TOOL_TYPES],
            "top_logprobs": body.top_logprobs or 0,
            "top_p": 1.0 if body.top_p is None else body.top_p,
            "truncation": body.truncation or "disabled",
            "metadata": body.metadata or {},
            **({"user": body.user} if body.user else {}),
            **self._facts,
        }

    def _end(self, finished: Finished) -> None:
        self._facts = {"usage": to_usage(finished.usage)}
        if finished.reason in _CUT_SHORT:
            self._fail(STOPPED)
            return
        status, details = to_status(finished)
        for told in self._output.end(whole=status == "completed"):
            self._tell(told)
        self._status = status
        self._facts["incomplete_details"] = details
        if status == "completed":
            self._facts["completed_at"] = int(time.time())
        self._tell({"type": f"response.{status}", "response": self.reply()})

    def _fail(self, message: str) -> None:
        for told in self._output.end(whole=False):
            self._tell(told)
        self._status = "failed"
        self._facts["error"] = {"code": "server_error", "message": message}
        self._tell({"type": "response.failed", "response": self.reply()})

    def _tell(self, event: Wire) -> None:
        self.events.append(to_frame(event, len(self.events)))


class ResponseFrames:
    """The stream of one response, as far as it was not told yet."""

    def __init__(self, drafted: Drafted) -> None:
        self._drafted = drafted
        self._num_told = 0

    def opening(self) -> bytes:
        return self._rest()

    def event(self, event: Event) -> bytes:
        """What the draft has made of it, which has taken it already."""
        return self._rest()

    def failure(self, problem: Problem) -> bytes:
        return self._drafted.failure(self._num_told, problem.message).encode()

    def _rest(self) -> bytes:
        events = self._drafted.events[self._num_told :]
        self._num_told += len(events)
        return "".join(events).encode()


def to_frame(event: Wire, number: int) -> str:
    data = encode_json({**event, "sequence_number": number}).decode()
    return f"event: {event['type']}\ndata: {data}\n\n"


def shown(kept: KeptResponse) -> Wire:
    """A kept response as it is now: one that nobody writes on says why."""
    reply: Wire = json.loads(kept.reply)
    if kept.state is ResponseState.CANCELLED:
        reply["status"] = "cancelled"
    elif kept.state is ResponseState.LOST:
        reply["status"] = "failed"
        reply["error"] = {"code": "server_error", "message": STOPPED}
    else:
        return reply
    for item in reply["output"]:
        if item.get("status") == "in_progress":
            item["status"] = "incomplete"
    return reply


def last_frame(kept: KeptResponse, number: int) -> str:
    """What ends the stream of a response that nobody wrote to its end, after `number` events. The
    vendor has no event for cancelled ones; this is the one that clients end at."""
    kind = "failed" if kept.state is ResponseState.LOST else "incomplete"
    return to_frame({"type": f"response.{kind}", "response": shown(kept)}, number)


def _to_tool(tool: ToolBody) -> Wire:
    """A tool as it is told back: a function with each of its facts."""
    if tool.type == "function":
        names = {"type", "name", "description", "parameters", "strict"}
        return tool.model_dump(include=names)
    return tool.model_dump(exclude_none=True)


def _to_choice(body: ResponseBody) -> Any:
    choice = body.tool_choice
    if choice is None or isinstance(choice, str):
        return choice or "auto"
    return choice.model_dump(exclude_none=True)
