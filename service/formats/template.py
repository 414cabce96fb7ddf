"""Messages to prompt, by the template that the model came with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jinja2
from jinja2.sandbox import SandboxedEnvironment

from service.domain.chat import Message, Prompt, PromptPiece, Tool
from service.domain.errors import InvalidRequest
from service.domain.model import ModelInfo


class ChatTemplate:
    """One model's chat template, compiled once."""

    def __init__(self, source: str, model: ModelInfo) -> None:
        self.model = model
        environment = SandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        self._template = environment.from_string(source)

    def render(
        self, messages: Sequence[Message], tools: Sequence[Tool] = (), *, thinking: bool = False
    ) -> Prompt:
        """The prompt that makes the model answer. Raises `InvalidRequest`."""
        variables: dict[str, Any] = {
            "messages": [{"role": m.role.value, "content": m.content} for m in messages],
            "add_generation_prompt": True,
            "enable_thinking": thinking,
            "bos_token": self.model.bos_token,
            "eos_token": self.model.eos_token,
        }
        try:
            text = self._template.render(variables)
        except jinja2.TemplateError as error:
            raise InvalidRequest(f"The model's chat template refuses: {error}.") from error
        return (PromptPiece(text, trusted=True),)
