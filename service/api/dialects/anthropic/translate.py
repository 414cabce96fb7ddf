"""From Anthropic's request to ours. No waiting; what is ignored leaves a line in the log."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import groupby

from service.api.dialects.anthropic.schemas import (
    BLOCK_TYPES,
    Block,
    CountTokensBody,
    MessagesBody,
    ResultBlock,
    SourceBody,
    TurnBody,
)
from service.api.dialects.anthropic.tools import allows_several, to_tool_choice, to_tools
from service.api.refusals import refuse_fields
from service.domain.chat import MAX_STOP_LENGTH, MAX_STOP_STRINGS, ChatRequest, Message, Role
from service.domain.chat import ToolCall as Call
from service.domain.constraint import Constraint, ConstraintKind
from service.domain.errors import InvalidRequest, Unsupported
from service.domain.pictures import Picture, with_marks
from service.domain.sampling import Sampling
from service.log import get_logger

_log = get_logger(__name__)

_MAX_TOKEN_COUNT = 2**31 - 1
_BETWEEN = "\n\n"
# Asked for by a value that is neither absent nor empty; silence would change what is answered.
_UNSUPPORTED = ("mcp_servers", "container")
_UNREADABLE = ("document", "search_result", "container_upload")
# Which blocks mean something in which role; text does in all.
_SPEAKERS = {"tool_use": "assistant", "thinking": "assistant", "tool_result": "user"}
# `x-anthropic-billing-header: cc_version=2.1; cch=5f3a;`: a number that some clients put before
# the system text and change with each request, so that no prompt would ever begin like another.
_BILLING = re.compile(
    r"\s*x-anthropic-billing-header:(?:[ \t]*[\w-]+=[^;\s]*;?)*[ \t]*\n*", re.IGNORECASE
)

Placed = tuple[str, Block]
"""A block with the name of its place."""


def to_chat_request(body: MessagesBody, request_id: str) -> ChatRequest:
    """The dialect-neutral request. Raises `InvalidRequest` or `Unsupported`, naming the field."""
    if body.max_tokens < 1:
        raise InvalidRequest(
            f"max_tokens is {body.max_tokens}; it must be at least 1.", param="max_tokens"
        )
    messages, begun = _to_messages(body)
    return ChatRequest(
        messages=messages,
        begun=begun,
        model=body.model,
        sampling=_to_sampling(body),
        max_tokens=min(body.max_tokens, _MAX_TOKEN_COUNT),
        stop=_to_stop(body.stop_sequences or []),
        tools=to_tools(body),
        tool_choice=to_tool_choice(body),
        parallel_tool_calls=allows_several(body),
        constraint=_to_constraint(body),
        thinking=_to_thinking(body),
        reasoning_effort=body.output_config.effort if body.output_config else None,
        reasoning_budget=_to_budget(body),
        request_id=request_id,
    )


def to_counted_request(body: CountTokensBody, request_id: str) -> ChatRequest:
    """As `to_chat_request`, as far as the prompt is concerned."""
    messages, begun = _to_messages(body)
    return ChatRequest(
        messages=messages,
        begun=begun,
        model=body.model,
        tools=to_tools(body),
        tool_choice=to_tool_choice(body),
        thinking=_to_thinking(body),
        reasoning_effort=body.output_config.effort if body.output_config else None,
        request_id=request_id,
    )


def wants_thoughts(body: MessagesBody) -> bool:
    """Whether the answer has thinking blocks, if the model thinks."""
    return _to_thinking(body) is True


def hides_thoughts(body: MessagesBody) -> bool:
    """Whether thinking blocks are to be empty."""
    return body.thinking is not None and body.thinking.display == "omitted"


def _to_thinking(body: CountTokensBody) -> bool | None:
    """None where the client doesn't say. Between tools is where one has just answered."""
    if body.thinking is None:
        return None
    if body.thinking.type == "between_tools":
        last = body.messages[-1].content if body.messages else None
        return any(block.type == "tool_result" for block in last or ())
    return body.thinking.type in ("enabled", "adaptive")


def _to_budget(body: MessagesBody) -> int | None:
    budget = body.thinking.budget_tokens if body.thinking is not None else None
    if budget is not None and budget < 1:
        raise InvalidRequest(
            f"thinking.budget_tokens is {budget}; it must be at least 1.",
            param="thinking.budget_tokens",
        )
    return budget


def _to_constraint(body: CountTokensBody) -> Constraint | None:
    """The newer of the two places wins."""
    form, where = body.output_format, "output_format"
    if body.output_config is not None and body.output_config.format is not None:
        form, where = body.output_config.format, "output_config.format"
    if form is None:
        return None
    if form.type != "json_schema":
        raise Unsupported(
            f"{where}.type is {form.type[:40]!r}; only 'json_schema' is supported.",
            param=f"{where}.type",
        )
    if form.schema_ is None:
        raise InvalidRequest(f"{where}.schema is missing.", param=f"{where}.schema")
    return Constraint(ConstraintKind.JSON_SCHEMA, json.dumps(form.schema_))


def _to_messages(body: CountTokensBody) -> tuple[tuple[Message, ...], str]:
    """What was said, and how the answer begins: an assistant's message at the end is gone on
    with."""
    refuse_fields(body, _UNSUPPORTED)
    if not body.messages:
        raise InvalidRequest("messages is empty; send at least one.", param="messages")
    places = [(f"messages[{i}]", turn) for i, turn in enumerate(body.messages)]
    told = list(_to_system([(f"system[{i}]", b) for i, b in enumerate(body.system or [])]))
    for role, turns in groupby(places, key=lambda place: place[1].role):
        blocks = [block for where, turn in turns for block in _placed(turn, where)]
        if role == "system":
            told += _to_system(blocks)
        elif role == "assistant":
            told.append(_to_assistant(blocks))
        else:
            told += _to_user(blocks)
    if told and told[-1].role is Role.ASSISTANT:
        return tuple(told[:-1]), _to_beginning(told[-1])
    return tuple(told), ""


def _to_beginning(message: Message) -> str:
    if message.tool_calls:
        raise InvalidRequest(
            f"messages ends with the call {message.tool_calls[0].id[:80]!r}; send what the tool "
            "answered.",
            param="messages",
        )
    return message.content if message.content.strip() else ""


def _placed(turn: TurnBody, where: str) -> Iterator[Placed]:
    """The turn's blocks that can be read, each checked to be where it may be."""
    if turn.content is None:
        raise InvalidRequest(f"{where}.content is missing.", param=f"{where}.content")
    for index, block in enumerate(turn.content):
        place = f"{where}.content[{index}]"
        speaker = _SPEAKERS.get(block.type, turn.role)
        if speaker != turn.role:
            raise InvalidRequest(
                f"{place}.type is {block.type!r}; only {speaker} messages may hold that.",
                param=f"{place}.type",
            )
        yield place, block


def _to_system(blocks: Sequence[tuple[str, ResultBlock]]) -> Iterator[Message]:
    text = _to_text(blocks)
    if billing := _BILLING.match(text):
        text = text[billing.end() :]
    if text:
        yield Message(Role.SYSTEM, text)


def _to_assistant(blocks: Sequence[Placed]) -> Message:
    return Message(
        Role.ASSISTANT,
        _to_text(blocks),
        tool_calls=tuple(
            Call(
                _required(where, "id", block.id),
                _required(where, "name", block.name),
                json.dumps(block.input or {}, ensure_ascii=False),
            )
            for where, block in blocks
            if block.type == "tool_use"
        ),
        reasoning=_BETWEEN.join(
            b.thinking for _, b in blocks if b.type == "thinking" and b.thinking
        ),
    )


def _to_user(blocks: Sequence[Placed]) -> Iterator[Message]:
    """What tools answered comes directly after the calls, whatever was said before it."""
    results = [(where, block) for where, block in blocks if block.type == "tool_result"]
    for where, block in results:
        inner = [(f"{where}.content[{i}]", b) for i, b in enumerate(block.content or [])]
        text, pictures = _to_content(inner)
        yield Message(
            Role.TOOL,
            f"Error: {text}" if block.is_error else text,
            tool_call_id=_required(where, "tool_use_id", block.tool_use_id),
            pictures=pictures,
        )
    said = [placed for placed in blocks if placed[1].type != "tool_result"]
    if said or not results:
        text, pictures = _to_content(said)
        yield Message(Role.USER, text, pictures=pictures)


def _required(where: str, name: str, value: str | None) -> str:
    if not value:
        raise InvalidRequest(f"{where}.{name} is missing.", param=f"{where}.{name}")
    return value


def _to_content(
    blocks: Sequence[tuple[str, ResultBlock]],
) -> tuple[str, tuple[Picture, ...]]:
    """The text of all text blocks, with pictures where they stand. Raises `Unsupported` for what
    can be neither read nor shown."""
    pieces = (_to_piece(where, block) for where, block in blocks)
    return with_marks((piece for piece in pieces if piece is not None), _BETWEEN)


def _to_text(blocks: Sequence[tuple[str, ResultBlock]]) -> str:
    """As `_to_content`, where no picture may stand."""
    text, pictures = _to_content(blocks)
    if pictures:
        raise Unsupported(
            f"{pictures[0].where} is a picture; only users and tools may show one.",
            param=pictures[0].where,
        )
    return text


def _to_piece(where: str, block: ResultBlock) -> str | Picture | None:
    """None for what is ignored."""
    if block.type in _UNREADABLE:
        raise Unsupported(
            f"{where}.type is {block.type!r}; text is read, and images are, by models that see.",
            param=f"{where}.type",
        )
    if block.type == "image":
        return _to_picture(where, block.source)
    if block.type not in BLOCK_TYPES:
        _log.warning("block_ignored", type=block.type[:40])
    elif block.type == "text":
        if block.text is None:
            raise InvalidRequest(f"{where}.text is missing.", param=f"{where}.text")
        return block.text
    return None


def _to_picture(where: str, source: SourceBody | None) -> Picture:
    if source is None:
        raise InvalidRequest(f"{where}.source is missing.", param=f"{where}.source")
    if source.type == "url":
        return Picture(_required(f"{where}.source", "url", source.url), where)
    if source.type == "base64":
        data = _required(f"{where}.source", "data", source.data)
        return Picture(f"data:{source.media_type or ''};base64,{data}", where)
    raise Unsupported(
        f"{where}.source.type is {source.type[:40]!r}; 'base64' and 'url' are supported.",
        param=f"{where}.source.type",
    )


def _to_sampling(body: MessagesBody) -> Sampling:
    """The vendor's defaults are the neutral ones; its temperature ends at 1."""
    temperature = 1.0 if body.temperature is None else body.temperature
    if not 0 <= temperature <= 1:  # also refuses NaN
        raise InvalidRequest(
            f"temperature is {temperature}; it must be between 0 and 1.", param="temperature"
        )
    return Sampling(
        temperature=temperature,
        top_k=body.top_k or 0,
        top_p=1.0 if body.top_p is None else body.top_p,
    )


def _to_stop(sequences: Sequence[str]) -> tuple[str, ...]:
    if len(sequences) > MAX_STOP_STRINGS:
        raise InvalidRequest(
            f"stop_sequences has {len(sequences)} entries; at most {MAX_STOP_STRINGS} are "
            "accepted.",
            param="stop_sequences",
        )
    for index, sequence in enumerate(sequences):
        if not 1 <= len(sequence) <= MAX_STOP_LENGTH:
            raise InvalidRequest(
                f"stop_sequences[{index}] has {len(sequence)} characters; "
                f"1 to {MAX_STOP_LENGTH} are accepted.",
                param=f"stop_sequences[{index}]",
            )
    return tuple(sequences)
