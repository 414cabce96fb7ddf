"""From OpenAI's request to ours. Pure: no waiting, no effects."""

from __future__ import annotations

from service.api.dialects.openai.constraints import to_constraint
from service.api.dialects.openai.functions import with_tools
from service.api.dialects.openai.logprobs import to_num_logprobs
from service.api.dialects.openai.options import to_max_tokens, to_priority, to_sampling, to_stop
from service.api.dialects.openai.reasoning import to_budget, to_effort, to_thinking
from service.api.dialects.openai.schemas import ChatCompletionBody, ContentPart, MessageBody
from service.api.dialects.openai.tools import to_call, to_tool_choice, to_tools
from service.api.refusals import refuse_fields, wants_truncation
from service.domain.chat import ChatRequest, Message, Role
from service.domain.errors import InvalidRequest, Unsupported
from service.domain.pictures import Picture, with_marks

_ROLES = {
    "developer": Role.SYSTEM,
    "system": Role.SYSTEM,
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
    "tool": Role.TOOL,
}
# Asked for by a value that is neither absent nor empty; silence would change what is answered.
_UNSUPPORTED = ("audio", "web_search_options")


def to_chat_request(body: ChatCompletionBody, request_id: str) -> ChatRequest:
    """The dialect-neutral request. Raises `InvalidRequest` or `Unsupported`, naming the field."""
    refuse_fields(body, _UNSUPPORTED)
    if body.modalities not in (None, [], ["text"]):
        raise Unsupported("modalities may only be ['text'].", param="modalities")
    body = with_tools(body)
    return ChatRequest(
        messages=tuple(_to_message(m, f"messages[{i}]") for i, m in enumerate(body.messages)),
        model=body.model,
        sampling=to_sampling(body),
        max_tokens=to_max_tokens(body, "max_completion_tokens", "max_tokens"),
        stop=to_stop(body.stop),
        logprobs=to_num_logprobs(body),
        tools=to_tools(body),
        tool_choice=to_tool_choice(body),
        parallel_tool_calls=body.parallel_tool_calls is not False,
        constraint=to_constraint(body),
        thinking=to_thinking(body),
        reasoning_effort=to_effort(body),
        reasoning_budget=to_budget(body),
        truncate=wants_truncation(body.truncation),
        priority=to_priority(body),
        request_id=request_id,
    )


def _to_message(body: MessageBody, where: str) -> Message:
    role = _ROLES[body.role]
    if body.content is None and role is not Role.ASSISTANT:
        raise InvalidRequest(f"{where}.content is missing.", param=f"{where}.content")
    if role is Role.TOOL and not body.tool_call_id:
        raise InvalidRequest(f"{where}.tool_call_id is missing.", param=f"{where}.tool_call_id")
    parts = enumerate(body.content or [])
    content, pictures = with_marks(_to_piece(p, f"{where}.content[{i}]", role) for i, p in parts)
    return Message(
        role=role,
        content=content,
        tool_calls=tuple(to_call(call) for call in body.tool_calls or ()),
        tool_call_id=body.tool_call_id,
        reasoning=body.reasoning_content or "",
        pictures=pictures,
    )


def _to_piece(part: ContentPart, where: str, role: Role) -> str | Picture:
    """Text, or a picture where one may be shown."""
    if part.type == "image_url" and role in (Role.USER, Role.TOOL):
        if part.image_url is None:
            raise InvalidRequest(f"{where}.image_url is missing.", param=f"{where}.image_url")
        return Picture(part.image_url.url, where)
    if part.type not in ("text", "refusal"):
        raise Unsupported(
            f"{where}.type is {part.type[:40]!r}; text is read, and image_url of users and tools.",
            param=f"{where}.type",
        )
    text = part.refusal if part.type == "refusal" else part.text
    if text is None:
        raise InvalidRequest(f"{where}.{part.type} is missing.", param=f"{where}.{part.type}")
    return text
