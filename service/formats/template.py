"""Messages to prompt, by the template that the model came with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

import jinja2

from service.domain.chat import Message, Prompt, PromptPiece, Role, Tool, ToolCall
from service.domain.errors import InvalidRequest, Unsupported
from service.domain.model import ModelInfo
from service.formats.messages import (
    Guard,
    Shape,
    fold_system,
    merge_neighbours,
    to_template_messages,
    to_template_tools,
)
from service.formats.sandbox import RENDER_ERRORS, create_environment
from service.formats.spellings import Disguise, Scan, Spellings
from service.formats.stream_parser import TAGS, StreamParser, Tags
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
_NO_YES = (False, True)

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a template was found to do with messages, by trying."""

    system: bool
    system_anywhere: bool
    tools: bool
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
        # Of the words that are tokens, only those that the template speaks with can be abused.
        markup = (word for word in model.markup_tokens if word in self.source)
        self._spellings = Spellings(model.control_tokens, markup)
        self._template = self._environment.from_string(self.source)
        mentioned = (tags for tags in TAGS if tags.start in self.source)
        self._tags: Tags = next(mentioned, TAGS[0])

    def render(
        self, messages: Sequence[Message], tools: Sequence[Tool] = (), *, thinking: bool = False
    ) -> Prompt:
        """The prompt that makes the model answer.

        What people wrote is one with the template's text, except that the spelling of a control
        token, or of the template's markup, is a piece of its own, which is not trusted. Raises
        `InvalidRequest` with the template's own sentence, `Unsupported` for tools that the
        template leaves out.
        """
        abilities = self.abilities
        if tools and not abilities.tools:
            raise Unsupported(
                f"The model `{self.model.name}` knows no tools; leave them out.", param="tools"
            )
        told = merge_neighbours(
            fold_system(messages, first=not abilities.system, others=not abilities.system_anywhere)
        )

        def variables(guard: Guard) -> dict[str, Any]:
            return {
                "messages": to_template_messages(told, abilities.shape, guard),
                "tools": to_template_tools(tools, abilities.shape, guard),
                "enable_thinking": thinking,
                "thinking": thinking,
            }

        scan = Scan(self._spellings)
        unguarded = variables(scan)
        if not scan.found:
            return (PromptPiece(self._render_or_refuse(unguarded), trusted=True),)
        disguise = Disguise(self._spellings, scan.private_use)
        return disguise.reveal(self._render_or_refuse(variables(disguise)))

    def create_parser(self, *, thinking: bool) -> StreamParser:
        """A parser for the answer to a prompt of `render`."""
        return StreamParser(self._tags, inside=self._opens_thought[thinking])

    def thought_end(self, *, thinking: bool) -> str:
        """The text that ends the thought with which the answer begins; empty where it should
        begin with none."""
        thinks = self._opens_thought[thinking] or (thinking and self._closes_thought)
        return self._tags.end if thinks else ""

    @cached_property
    def abilities(self) -> Abilities:
        """Found out at first use, with a dozen renderings."""
        user = Message(Role.USER, _SAID)
        shape = self._find_shape(user)
        system = Message(Role.SYSTEM, _SYSTEM)
        answer, later = Message(Role.ASSISTANT, _ANSWERED), Message(Role.SYSTEM, _LATER)
        twice = self._try([system, user, answer, later, user], shape)
        plain = self._try([user], shape)
        tool = Tool("x_tool", "x_description", '{"type": "object", "properties": {}}')
        return Abilities(
            system=_SYSTEM in self._try([system, user], shape),
            system_anywhere=_SYSTEM in twice and _LATER in twice,
            tools="x_tool" in self._try([user], shape, [tool]) and "x_tool" not in plain,
            shape=shape,
        )

    @cached_property
    def _opens_thought(self) -> Mapping[bool, bool]:
        """By `thinking`: whether the prompt's end begins a thought that the answer goes on with."""
        opens: dict[bool, bool] = {}
        for thinking in (False, True):
            end = self._prompt_end(thinking)
            opens[thinking] = end.rfind(self._tags.start) > end.rfind(self._tags.end)
        return opens

    @cached_property
    def _closes_thought(self) -> bool:
        """Whether the prompt has to end with an empty thought if the model is not to think: left
        to itself, it does."""
        return self._tags.end in self._prompt_end(thinking=False)

    def _prompt_end(self, thinking: bool) -> str:
        """What the template puts behind the last message."""
        rendered = self._try([Message(Role.USER, _SAID)], self.abilities.shape, (), thinking)
        return rendered.rpartition(_SAID)[2]

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
        call = ToolCall("call_1", "x_tool", '{"x_city": "x_Rome"}')
        called = [user, Message(Role.ASSISTANT, "", tool_calls=(call,))]
        as_text = replace(shape, arguments_as_text=True)
        if not self._shows("x_Rome", called, shape) and self._shows("x_Rome", called, as_text):
            return as_text
        return shape

    def _shows(self, text: str, messages: Sequence[Message], shape: Shape) -> bool:
        return text in self._try(messages, shape)

    def _try(
        self,
        messages: Sequence[Message],
        shape: Shape,
        tools: Sequence[Tool] = (),
        thinking: bool = False,
    ) -> str:
        """What the template makes of these; nothing where it refuses."""
        variables = {
            "messages": to_template_messages(messages, shape, _as_it_is),
            "tools": to_template_tools(tools, shape, _as_it_is),
            "enable_thinking": thinking,
            "thinking": thinking,
        }
        try:
            return self._render(variables)
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

    def _render(self, variables: Mapping[str, Any]) -> str:
        rendered = self._template.render(
            **variables,
            add_generation_prompt=True,
            bos_token=self.model.bos_token,
            eos_token=self.model.eos_token,
        )
        # Half a surrogate pair (JSON can spell one in a tool's arguments) can't be sent on.
        return rendered.encode("utf-8", "replace").decode()


def _as_it_is(value: Any, *, own_words: bool = False) -> Any:
    return value
