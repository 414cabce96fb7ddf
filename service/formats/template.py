"""Messages to prompt, by the template that the model came with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

import jinja2

from service.domain.chat import Message, Prompt, PromptPiece, Role, Tool, ToolCall
from service.domain.errors import InvalidRequest
from service.domain.model import ModelInfo
from service.formats.messages import (
    Guard,
    Shape,
    fold_system,
    merge_neighbours,
    to_template_messages,
    to_template_tools,
)
from service.formats.overrides import find_override, with_python_tag
from service.formats.sandbox import RENDER_ERRORS, create_environment
from service.formats.spellings import Disguise, Scan, Spellings
from service.formats.stream_parser import TAGS, Tags
from service.formats.told_tools import (
    calls_as_text,
    describe,
    results_as_text,
    said_with_results,
)
from service.formats.tool_syntax import (
    ANSWER,
    IN_TEXT,
    PROBED_TOOLS,
    PROBES,
    Specimens,
    ToolSyntax,
    find_syntax,
)
from service.log import get_logger

CHATML = """{% for message in messages %}
{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' }}
{%- endif %}
"""
PLAIN = """{% for message in messages %}
{{ {'system': '', 'user': 'User: ', 'assistant': 'Assistant: '}.get(message.role, '') }}
{{- message.content + '\\n\\n' }}
{%- endfor %}
{% if add_generation_prompt %}
{{ 'Assistant:' }}
{%- endif %}
"""
PLAIN_STOPS = ("\nUser:",)
_SAID, _ANSWERED, _SYSTEM, _LATER = "xQuestionx", "xAnswerx", "xSystemx", "xLaterx"
_RESULT, _LONG_ID = "xResultx", "call_0123456789abcdef01234567"
_NO_YES = (False, True)

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a template was found to do with messages, by trying.

    `tools` says whether it tells the model about tools, `calls` about calls that were made,
    `results` about what tools answered, and `user_after_result` whether the user may speak next.
    `syntax` is how the model is to call tools.
    """

    system: bool
    system_anywhere: bool
    tools: bool
    calls: bool
    results: bool
    user_after_result: bool
    syntax: ToolSyntax
    shape: Shape


class ChatTemplate:
    """One model's chat template, compiled once.

    A model without one (or with one that is no Jinja) gets ChatML where its vocabulary has the
    tokens, else plain `User:` and `Assistant:`. `stops` end an answer besides the model's own end.
    """

    def __init__(
        self,
        model: ModelInfo,
        now: Callable[[], datetime] = lambda: datetime.now().astimezone(),
    ) -> None:
        self.model = model
        self._environment = create_environment(now)
        self.source, self.stops = self._choose_source()
        self.override = find_override(self.source)
        # Of the words that are tokens, only those that the template speaks with can be abused.
        markup = (word for word in model.markup_tokens if word in self.source)
        self._spellings = Spellings(model.control_tokens, markup)
        self._template = self._environment.from_string(self.source)
        mentioned = (tags for tags in TAGS if tags.start in self.source)
        self.tags: Tags = next(mentioned, TAGS[0])

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] = (),
        *,
        thinking: bool = False,
        effort: str | None = None,
    ) -> Prompt:
        """The prompt that makes the model answer.

        What people wrote is one with the template's text, except that the spelling of a control
        token, or of the template's markup, is a piece of its own, which is not trusted. Tools that
        the template does not know of are told in the system prompt. Raises `InvalidRequest` with
        the template's own sentence.
        """
        abilities = self.abilities
        told = self._fitted(messages, tools if not abilities.tools else ())
        listed = tools if abilities.tools else ()
        # Templates have their own word where this is not defined.
        options = {} if effort is None else {"reasoning_effort": effort}

        def variables(guard: Guard) -> dict[str, Any]:
            return {
                "messages": to_template_messages(told, abilities.shape, guard),
                "tools": to_template_tools(listed, abilities.shape, guard),
                "enable_thinking": thinking,
                "thinking": thinking,
                **options,
            }

        scan = Scan(self._spellings)
        unguarded = variables(scan)
        if not scan.found:
            return (PromptPiece(self._render_or_refuse(unguarded), trusted=True),)
        disguise = Disguise(self._spellings, scan.private_use)
        return disguise.reveal(self._render_or_refuse(variables(disguise)))

    def opens_thought(self, *, thinking: bool) -> bool:
        """Whether the prompt's end begins a thought that the answer goes on with."""
        return self._opens_thought[thinking]

    def thought_end(self, *, thinking: bool) -> str:
        """The text that ends the thought with which the answer begins; empty where it should
        begin with none."""
        thinks = self._opens_thought[thinking] or (thinking and self._closes_thought)
        return self.tags.end if thinks else ""

    @cached_property
    def abilities(self) -> Abilities:
        """Found out at first use, with a dozen renderings."""
        user = Message(Role.USER, _SAID)
        shape = self._find_shape(user)
        system = Message(Role.SYSTEM, _SYSTEM)
        answer, later = Message(Role.ASSISTANT, _ANSWERED), Message(Role.SYSTEM, _LATER)
        twice = self._try([system, user, answer, later, user], shape)
        lists_tools = PROBED_TOOLS[0].name in self._try([user], shape, PROBED_TOOLS)
        called = Message(Role.ASSISTANT, "", tool_calls=PROBES[:1])
        shows_calls = self._shows("x_value_a", [user, called], shape)
        answered = [user, called if shows_calls else answer, _result_of(PROBES[0])]
        shows_results = self._shows(_RESULT, answered, shape)
        syntax = self._find_syntax(user, shape) if lists_tools and shows_results else None
        if self.override is not None and lists_tools:
            syntax = self.override.syntax
        elif syntax is None and "<tool_call>" not in self.source:
            lists_tools = False
        return Abilities(
            system=_SYSTEM in self._try([system, user], shape),
            system_anywhere=_SYSTEM in twice and _LATER in twice,
            tools=lists_tools,
            calls=shows_calls,
            results=shows_results,
            user_after_result=self._shows(_LATER, [*answered, Message(Role.USER, _LATER)], shape),
            syntax=syntax or IN_TEXT,
            shape=shape,
        )

    @cached_property
    def _opens_thought(self) -> Mapping[bool, bool]:
        """By `thinking`."""
        opens: dict[bool, bool] = {}
        for thinking in (False, True):
            end = self._prompt_end(thinking)
            opens[thinking] = end.rfind(self.tags.start) > end.rfind(self.tags.end)
        return opens

    @cached_property
    def _closes_thought(self) -> bool:
        """Whether the prompt has to end with an empty thought if the model is not to think: left
        to itself, it does."""
        return self.tags.end in self._prompt_end(thinking=False)

    def _prompt_end(self, thinking: bool) -> str:
        """What the template puts behind the last message."""
        rendered = self._try([Message(Role.USER, _SAID)], self.abilities.shape, (), thinking)
        return rendered.rpartition(_SAID)[2]

    def _fitted(self, messages: Sequence[Message], described: Sequence[Tool]) -> list[Message]:
        """The messages as the template can take them, with those tools that it can't told."""
        abilities = self.abilities
        told = list(messages)
        if described or not abilities.calls:
            told = calls_as_text(told, abilities.syntax)
        if described or not abilities.results:
            told = results_as_text(told)
        elif not abilities.user_after_result:
            told = said_with_results(told)
        if described:
            at = next((i for i, m in enumerate(told) if m.role is not Role.SYSTEM), len(told))
            told.insert(at, describe(described))
        return merge_neighbours(
            fold_system(told, first=not abilities.system, others=not abilities.system_anywhere)
        )

    def _choose_source(self) -> tuple[str, tuple[str, ...]]:
        source = self.model.chat_template
        if source:
            try:
                self._environment.parse(source)
            except jinja2.TemplateSyntaxError as error:
                log.warning(
                    "chat_template_unusable", error=error.message, template_line=error.lineno
                )
            else:
                return source, ()
        if {"<|im_start|>", "<|im_end|>"} <= set(self.model.control_tokens):
            return CHATML, ()
        return PLAIN, PLAIN_STOPS

    def _find_shape(self, user: Message) -> Shape:
        """How the template wants contents and tool arguments."""
        plainly = (Shape(as_parts, False, as_list) for as_parts in _NO_YES for as_list in _NO_YES)
        shape = next((shape for shape in plainly if self._shows(_SAID, [user], shape)), Shape())
        for long_ids, as_text in ((True, False), (False, False), (True, True), (False, True)):
            call = replace(PROBES[0], id=_LONG_ID) if long_ids else PROBES[0]
            called = [user, Message(Role.ASSISTANT, "", tool_calls=(call,))]
            tried = replace(shape, arguments_as_text=as_text)
            if self._shows("x_value_a", called, tried):
                return replace(tried, short_ids=not long_ids)
        return shape

    def _find_syntax(self, user: Message, shape: Shape) -> ToolSyntax | None:
        """How the template writes calls; None where it leaves them out."""

        def written(*messages: Message, opening: bool = False) -> str:
            told = [user, *messages]
            return self._try(told, shape, PROBED_TOOLS, opening=opening).rpartition(_SAID)[2]

        syntax = find_syntax(
            Specimens(
                answer=written(Message(Role.ASSISTANT, ANSWER)),
                opening=written(opening=True),
                one=written(Message(Role.ASSISTANT, "", tool_calls=PROBES[:1])),
                two=written(Message(Role.ASSISTANT, "", tool_calls=PROBES)),
            )
        )
        if syntax is None:
            return None
        if self.model.eos_token:
            syntax = replace(syntax, end=syntax.end.partition(self.model.eos_token)[0])
        return with_python_tag(syntax, self.model.control_tokens)

    def _shows(self, text: str, messages: Sequence[Message], shape: Shape) -> bool:
        return text in self._try(messages, shape)

    def _try(
        self,
        messages: Sequence[Message],
        shape: Shape,
        tools: Sequence[Tool] = (),
        thinking: bool = False,
        *,
        opening: bool = True,
    ) -> str:
        """What the template makes of these, and of the `opening` of an answer; nothing where it
        refuses."""
        variables = {
            "messages": to_template_messages(messages, shape, _as_it_is),
            "tools": to_template_tools(tools, shape, _as_it_is),
            "enable_thinking": thinking,
            "thinking": thinking,
        }
        try:
            return self._render(variables, opening=opening)
        except RENDER_ERRORS:
            return ""

    def _render_or_refuse(self, variables: Mapping[str, Any]) -> str:
        try:
            return self._render(variables)
        except RENDER_ERRORS as error:
            raise InvalidRequest(
                f"The model's chat template can't take these messages: {error}.",
                param="messages",
            ) from error

    def _render(self, variables: Mapping[str, Any], *, opening: bool = True) -> str:
        rendered = self._template.render(
            **variables,
            add_generation_prompt=opening,
            bos_token=self.model.bos_token,
            eos_token=self.model.eos_token,
        )
        # Half a surrogate pair (JSON can spell one in a tool's arguments) can't be sent on.
        return rendered.encode("utf-8", "replace").decode()


def _result_of(call: ToolCall) -> Message:
    return Message(Role.TOOL, _RESULT, tool_call_id=call.id)


def _as_it_is(value: Any, *, own_words: bool = False) -> Any:
    return value
