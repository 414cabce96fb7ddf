"""A chat made ready for an engine, and for reading what the engine writes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from service.domain.chat import ChatRequest, Prompt, PromptPiece, Tool, ToolMode
from service.domain.constraint import Constraint, ConstraintKind
from service.domain.errors import Unsupported
from service.formats.call_parser import CallParser, new_call_id
from service.formats.segments import SegmentGrammar, SegmentParser
from service.formats.stream_parser import Deltas, StreamParser, Tags
from service.formats.template import ChatTemplate
from service.formats.tool_grammar import to_constraint
from service.formats.tool_syntax import ID_LENGTH, PLACEHOLDER, ToolSyntax


class AnswerParser(Protocol):
    """Reads an answer while it is being written.

    `thinking` says whether what comes next belongs to a thought, `thought` whether any of what was
    fed last did; None where that can't be said yet.
    """

    thought: bool | None

    @property
    def num_calls(self) -> int: ...

    @property
    def thinking(self) -> bool: ...

    def feed(self, text: str) -> Deltas: ...

    def finish(self) -> Deltas: ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """`prompt` ends with the first words of the answer, `begun`, where those are certain.

    `in_thought` says that it ends in a thought, `thought_end` what then ends that, or the one that
    the answer should begin with. `shown_tokens` are control tokens without which calls can't be
    read.
    """

    prompt: Prompt
    begun: str
    tags: Tags
    in_thought: bool
    thought_end: str
    tools: tuple[Tool, ...]
    max_calls: int | None
    syntax: ToolSyntax
    segments: SegmentGrammar | None
    constraint: Constraint | None
    shown_tokens: tuple[str, ...]

    @property
    def thought_start(self) -> str:
        """What the answer begins with if it begins with a thought."""
        return "" if self.in_thought else self.tags.start

    def create_parser(self) -> AnswerParser:
        """A reader for one answer to the prompt."""
        if self.segments is not None:
            reader = SegmentParser(self.segments, self.tools, self.max_calls)
            reader.feed(self.begun)
            return reader
        calls = None
        if self.tools:
            calls = CallParser(self.syntax, self.tools, self.max_calls)
        parser = StreamParser(self.tags, inside=self.in_thought, calls=calls)
        parser.feed(self.begun)
        return parser


def prepare(template: ChatTemplate, request: ChatRequest, *, thinking: bool) -> Prepared:
    """Everything that follows from the request and the model's template.

    An answer that must call a tool is begun with the call, and not thought about. Raises
    `InvalidRequest`, or `Unsupported` for what does not go together.
    """
    tools = request.callable_tools
    forced = request.tool_choice.mode is ToolMode.REQUIRED
    thinking = thinking and not forced and not request.begun
    told = request.tools if tools else ()
    prompt = template.render(
        request.messages, told, thinking=thinking, effort=request.reasoning_effort
    )
    in_thought, thought_end = template.opens_thought(thinking=thinking), ""
    begun = ""
    if forced:
        begun = template.abilities.syntax.begin.replace(PLACEHOLDER, new_call_id()[-ID_LENGTH:])
        closing = f"\n{template.tags.end}\n\n" if in_thought else ""
        prompt, in_thought = (*prompt, PromptPiece(closing + begun, trusted=True)), False
    elif request.begun:
        header = _header(template, in_thought=in_thought)
        prompt = (*prompt, PromptPiece(header, trusted=True))
        prompt = (*prompt, PromptPiece(request.begun, trusted=False))
        begun, in_thought = request.begun, False
        if template.override is not None:
            begun = header + begun
    else:
        thought_end = template.thought_end(thinking=thinking)
    constraint = request.constraint
    if tools:
        constraint = _tool_constraint(template, request, tools, forced=forced)
    override = template.override
    if constraint is not None and not forced:
        constraint = replace(constraint, after=override.answer_start if override else thought_end)
    return Prepared(
        prompt=prompt,
        begun=begun,
        tags=template.tags,
        in_thought=in_thought,
        thought_end=thought_end,
        tools=tools,
        max_calls=None if request.parallel_tool_calls else 1,
        syntax=template.abilities.syntax,
        segments=override.segments if override else None,
        constraint=constraint,
        shown_tokens=_shown_tokens(template, calls=bool(tools)),
    )


def _header(template: ChatTemplate, *, in_thought: bool) -> str:
    """What stands between the prompt and the first words of an answer without a thought."""
    if template.override is not None:
        return template.override.answer_start
    return f"\n{template.tags.end}\n\n" if in_thought else ""


def _tool_constraint(
    template: ChatTemplate, request: ChatRequest, tools: tuple[Tool, ...], *, forced: bool
) -> Constraint | None:
    schema = None
    if request.constraint is not None and not forced:
        schema = _schema_of(request.constraint, template)
    if template.override is not None and not forced:
        return None  # free text and calls have headers, which are not free
    model = template.model
    return to_constraint(
        template.abilities.syntax,
        tools,
        (*model.control_tokens, *model.markup_tokens),
        forced=forced,
        parallel=request.parallel_tool_calls,
        schema=schema,
    )


def _schema_of(constraint: Constraint, template: ChatTemplate) -> str:
    """The schema that an answer is to follow unless it calls a tool."""
    tells_calls = template.override is None and not template.abilities.syntax.is_bare
    if constraint.kind is not ConstraintKind.JSON_SCHEMA or not tells_calls:
        raise Unsupported(
            "tools go together with a JSON schema for the answer only, and not with every model; "
            "leave one of them out, or ask for a call with tool_choice.",
            param="tools",
        )
    return constraint.source


def _shown_tokens(template: ChatTemplate, *, calls: bool) -> tuple[str, ...]:
    """The control tokens that calls are written with; others are the template's own business."""
    if template.override is not None:
        return template.override.shown_tokens
    if not calls:
        return ()
    syntax = template.abilities.syntax
    literals = "".join(
        filter(None, (syntax.begin, syntax.middle, syntax.between, syntax.end, *syntax.aliases))
    )
    return tuple(token for token in template.model.control_tokens if token and token in literals)
