"""From what a generation yields to output items, and the events that tell how they grow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.api.custom_tools import InputReader
from service.api.dialects.responses.tools import Toolbox
from service.api.items import new_id
from service.domain.events import (
    Candidate,
    Event,
    Finished,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)

Wire = dict[str, Any]


class Output:
    """The items of one response. An item ends when another one begins."""

    def __init__(self, toolbox: Toolbox, *, with_logprobs: bool = False) -> None:
        self.items: list[Wire] = []
        self._toolbox = toolbox
        self._input: InputReader | None = None  # of the custom tool's call that is open
        self._with_logprobs = with_logprobs
        self._open: Wire | None = None
        self._call: int | None = None

    def feed(self, event: Event) -> list[Wire]:
        """What a delta brings, as vendor events without their numbers."""
        if isinstance(event, TextDelta):
            if not event.text and not event.logprobs:
                return []
            return [*self._begin("message"), *self._grow(event.text, event.logprobs)]
        if isinstance(event, ReasoningDelta):
            return [*self._begin("reasoning"), *self._grow(event.text)]
        if isinstance(event, ToolCallDelta):
            return self._calls(event)
        return []

    def end(self, *, whole: bool) -> list[Wire]:
        """The end of the last item."""
        return self._close("completed" if whole else "incomplete")

    def _calls(self, delta: ToolCallDelta) -> list[Wire]:
        events: list[Wire] = []
        if self._call != delta.index:
            events += self._close("completed")
            self._call = delta.index
            events += self._add(self._to_call(delta))
        return events + self._written(delta.arguments)

    def _to_call(self, delta: ToolCallDelta) -> Wire:
        """A call that begins, by the name that the client knows."""
        offered = self._toolbox.by_name.get(delta.name or "")
        name = offered.name if offered is not None else delta.name
        within = {"namespace": offered.namespace} if offered and offered.namespace else {}
        told = {"status": "in_progress", "call_id": delta.id, "name": name, **within}
        if offered is not None and offered.is_custom:
            self._input = InputReader()
            return {"id": new_id("ctc"), "type": "custom_tool_call", **told, "input": ""}
        return {"id": new_id("fc"), "type": "function_call", **told, "arguments": ""}

    def _written(self, arguments: str) -> list[Wire]:
        """More of the open call."""
        if self._input is not None:
            return self._lengthen("input", self._input.feed(arguments))
        return self._lengthen("arguments", arguments)

    def _lengthen(self, key: str, text: str) -> list[Wire]:
        """Text behind what the open call has under this key."""
        if not text or self._open is None:
            return []
        self._open[key] += text
        where = {"item_id": self._open["id"], "output_index": len(self.items) - 1}
        return [{"type": f"response.{self._open['type']}_{key}.delta", **where, "delta": text}]

    def _begin(self, kind: str) -> list[Wire]:
        """Make sure that an item of this kind is open."""
        if self._open is not None and self._open["type"] == kind:
            return []
        events = self._close("completed")
        if kind == "reasoning":
            item: Wire = {"id": new_id("rs"), "type": kind, "summary": [], "content": []}
            part: Wire = {"type": "reasoning_text", "text": ""}
        else:
            item = {"id": new_id("msg"), "type": kind, "role": "assistant", "content": []}
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        events += self._add(item | {"status": "in_progress"})
        item = self.items[-1]
        item["content"].append(part)
        begun = {**part, "logprobs": []} if kind == "message" else dict(part)
        added = {"type": "response.content_part.added", **self._place(), "part": begun}
        return [*events, added]

    def _grow(self, text: str, logprobs: Sequence[TokenLogprob] = ()) -> list[Wire]:
        part = self.items[-1]["content"][0]
        part["text"] += text
        kind = "reasoning_text" if part["type"] == "reasoning_text" else "output_text"
        event: Wire = {"type": f"response.{kind}.delta", **self._place(), "delta": text}
        if kind == "output_text":
            event["logprobs"] = to_logprobs(logprobs) if self._with_logprobs else []
            part["logprobs"] += event["logprobs"]
        return [event]

    def _add(self, item: Wire) -> list[Wire]:
        shown = {**item, "content": []} if "content" in item else dict(item)
        self.items.append(item)
        self._open = item
        place = {"output_index": len(self.items) - 1}
        return [{"type": "response.output_item.added", **place, "item": shown}]

    def _close(self, status: str) -> list[Wire]:
        events = self._rest()
        item, self._open, self._call = self._open, None, None
        if item is None:
            return []
        item["status"] = status
        place: Wire = {"output_index": len(self.items) - 1}
        if item["type"] == "custom_tool_call":
            kind = "response.custom_tool_call_input.done"
            events.append({"type": kind, "item_id": item["id"], "input": item["input"], **place})
        elif item["type"] == "function_call":
            kind = "response.function_call_arguments.done"
            told = {"item_id": item["id"], "name": item["name"], "arguments": item["arguments"]}
            events.append({"type": kind, **told, **place})
        else:
            part = item["content"][0]
            where = {"item_id": item["id"], "content_index": 0, **place}
            kind = "reasoning_text" if part["type"] == "reasoning_text" else "output_text"
            done: Wire = {"type": f"response.{kind}.done", **where, "text": part["text"]}
            if kind == "output_text":
                done["logprobs"] = part["logprobs"]
            events.append(done)
            events.append({"type": "response.content_part.done", **where, "part": dict(part)})
        return [*events, {"type": "response.output_item.done", **place, "item": dict(item)}]

    def _rest(self) -> list[Wire]:
        """What was held back of a custom tool's text."""
        reader, self._input = self._input, None
        return [] if reader is None else self._lengthen("input", reader.finish())

    def _place(self) -> Wire:
        item = self.items[-1]
        return {"item_id": item["id"], "output_index": len(self.items) - 1, "content_index": 0}


def to_status(finished: Finished) -> tuple[str, Wire | None]:
    """A response's status, and why it is not complete."""
    if finished.reason in (FinishReason.STOP, FinishReason.TOOL_CALLS):
        return "completed", None
    return "incomplete", {"reason": "max_output_tokens"}


def to_usage(usage: Usage) -> Wire:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }


def to_logprobs(logprobs: Sequence[TokenLogprob]) -> list[Wire]:
    return [
        {**_to_entry(one.chosen), "top_logprobs": [_to_entry(other) for other in one.top]}
        for one in logprobs
    ]


def _to_entry(candidate: Candidate) -> Wire:
    """`bytes` says what a token is that is half a character, which `token` can't."""
    return {
        "token": candidate.text.decode("utf-8", "replace"),
        "logprob": candidate.logprob,
        "bytes": list(candidate.text),
    }
