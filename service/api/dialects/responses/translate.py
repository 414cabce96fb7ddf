"""From a Responses request to ours. Pure: no waiting, no effects."""

from __future__ import annotations

import json
from collections.abc import Iterable

from service.api.custom_tools import to_arguments
from service.api.dialects.responses.compaction import unpacked_text
from service.api.dialects.responses.schemas import (
    FormatBody,
    ItemBody,
    PartBody,
    ResponseBody,
)
from service.api.dialects.responses.tools import Toolbox, known_name, to_tool_choice
from service.api.items import Item, completed
from service.api.refusals import refuse_fields, wants_truncation
from service.chat.compaction import to_message
from service.domain.chat import ChatRequest, Message, Role, ToolCall
from service.domain.constraint import Constraint, ConstraintKind
from service.domain.errors import InvalidRequest, Unsupported
from service.domain.pictures import Picture, with_marks
from service.domain.sampling import Sampling

_ROLES = {
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
}
_TEXTS = ("input_text", "output_text", "text", "summary_text", "reasoning_text")
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_UNSUPPORTED = ("prompt",)
_CALLS = ("function_call", "custom_tool_call")
_OUTPUTS = ("function_call_output", "custom_tool_call_output")
# Thoughts are not told again; the others are traces of what the vendor's servers once did.
_UNTOLD = ("reasoning", "web_search_call", "file_search_call", "image_generation_call")


def to_items(body: ResponseBody) -> list[Item]:
    """The new input as items, as they are kept. Raises `InvalidRequest`."""
    if body.input is None:
        raise InvalidRequest("input is missing; it is text, or a list of items.", param="input")
    if isinstance(body.input, str):
        return completed([{"role": "user", "content": body.input}])
    return completed(item.model_dump(exclude_none=True) for item in body.input)


def refuse_contradictions(body: ResponseBody) -> None:
    """Raises `InvalidRequest` for what does not go together."""
    if body.background and body.store is False:
        raise InvalidRequest(
            "background is true and store is false; an answer in the background has to be kept.",
            param="background",
        )
    if body.conversation and body.previous_response_id:
        raise InvalidRequest(
            "conversation and previous_response_id are both set; one says what came before.",
            param="conversation",
        )


def to_chat_request(
    body: ResponseBody, toolbox: Toolbox, items: Iterable[Item], request_id: str
) -> ChatRequest:
    """The dialect-neutral request, with all that was said. Raises `InvalidRequest` or
    `Unsupported`, naming the field."""
    refuse_fields(body, _UNSUPPORTED)
    effort = body.reasoning.effort if body.reasoning else None
    if effort is not None and effort not in _EFFORTS:
        raise InvalidRequest(
            f"reasoning.effort is {effort[:40]!r}; it must be one of {', '.join(_EFFORTS)}.",
            param="reasoning.effort",
        )
    return ChatRequest(
        messages=to_messages(body.instructions, items),
        model=body.model,
        sampling=Sampling(
            temperature=1.0 if body.temperature is None else body.temperature,
            top_p=1.0 if body.top_p is None else body.top_p,
        ),
        max_tokens=body.max_output_tokens,
        tools=toolbox.tools,
        tool_choice=to_tool_choice(body.tool_choice, toolbox),
        parallel_tool_calls=body.parallel_tool_calls is not False,
        constraint=_to_constraint(body.text.format if body.text else None),
        thinking=None if effort is None else effort not in ("none", "minimal"),
        reasoning_effort=effort,
        truncate=wants_truncation(body.truncation),
        logprobs=(body.top_logprobs or 0) if body.wants_logprobs else None,
        request_id=request_id,
    )


def to_messages(instructions: str | None, items: Iterable[Item]) -> tuple[Message, ...]:
    """What was said so far. Calls, and thoughts, belong to the assistant's message beside them."""
    messages = [Message(Role.SYSTEM, instructions)] if instructions else []
    for index, raw in enumerate(items):
        item = ItemBody.model_validate(raw)
        where = f"input[{index}]"
        kind = item.type or "message"
        if kind == "message":
            messages.append(_to_message(item, where))
        elif kind in _CALLS:
            _add_call(messages, item, where)
        elif kind in _OUTPUTS:
            messages.append(_to_result(item, where))
        elif kind == "compaction":
            messages.append(to_message(unpacked_text(item.encrypted_content, where)))
        elif kind not in _UNTOLD:
            raise Unsupported(
                f"{where}.type is {kind[:40]!r}; messages, calls of functions and custom tools, "
                "what they returned, and reasoning are supported.",
                param=f"{where}.type",
            )
    return tuple(messages)


def _to_message(item: ItemBody, where: str) -> Message:
    role = _ROLES.get(item.role or "")
    if role is None:
        raise InvalidRequest(
            f"{where}.role is {str(item.role)[:40]!r}; it must be one of {', '.join(_ROLES)}.",
            param=f"{where}.role",
        )
    content, pictures = _to_content(item.content, f"{where}.content", may_show=role is Role.USER)
    return Message(role, content, pictures=pictures)


def _add_call(messages: list[Message], item: ItemBody, where: str) -> None:
    if not item.call_id or not item.name:
        raise InvalidRequest(f"{where} needs call_id and name.", param=f"{where}.call_id")
    is_custom = item.type == "custom_tool_call"
    arguments = to_arguments(item.input or "") if is_custom else item.arguments or "{}"
    call = ToolCall(item.call_id, known_name(item.namespace, item.name), arguments)
    if messages and messages[-1].role is Role.ASSISTANT:
        last = messages[-1]
        messages[-1] = Message(Role.ASSISTANT, last.content, (*last.tool_calls, call))
    else:
        messages.append(Message(Role.ASSISTANT, "", (call,)))


def _to_result(item: ItemBody, where: str) -> Message:
    if not item.call_id:
        raise InvalidRequest(f"{where}.call_id is missing.", param=f"{where}.call_id")
    content, pictures = _to_content(item.output, f"{where}.output", may_show=True)
    return Message(Role.TOOL, content, tool_call_id=item.call_id, pictures=pictures)


def _to_content(
    content: str | list[PartBody] | None, where: str, *, may_show: bool
) -> tuple[str, tuple[Picture, ...]]:
    """The text, and the pictures where users and tools show them."""
    if content is None:
        raise InvalidRequest(f"{where} is missing.", param=where)
    if isinstance(content, str):
        return content, ()
    return with_marks(
        _to_piece(part, f"{where}[{index}]", may_show=may_show)
        for index, part in enumerate(content)
    )


def _to_piece(part: PartBody, where: str, *, may_show: bool) -> str | Picture:
    if part.type == "input_image" and may_show:
        if part.image_url is None:
            raise InvalidRequest(f"{where}.image_url is missing.", param=f"{where}.image_url")
        return Picture(part.image_url, where)
    if part.type not in (*_TEXTS, "refusal"):
        raise Unsupported(
            f"{where}.type is {part.type[:40]!r}; text is read, and input_image of users and "
            "tools.",
            param=f"{where}.type",
        )
    return (part.refusal if part.type == "refusal" else part.text) or ""


def _to_constraint(form: FormatBody | None) -> Constraint | None:
    if form is None or form.type == "text":
        return None
    if form.type not in ("json_object", "json_schema"):
        raise Unsupported(
            f"text.format.type is {form.type[:40]!r}; 'text', 'json_object' and 'json_schema' are "
            "supported.",
            param="text.format.type",
        )
    if form.type == "json_schema" and form.schema_ is None:
        raise InvalidRequest("text.format.schema is missing.", param="text.format.schema")
    schema = form.schema_ if form.type == "json_schema" else {"type": "object"}
    return Constraint(ConstraintKind.JSON_SCHEMA, json.dumps(schema))
