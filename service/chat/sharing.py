"""Which beginning of a prompt is the operator's, and nobody's in particular."""

from __future__ import annotations

from service.domain.chat import ChatRequest, Message, Prompt, Role
from service.formats.template import ChatTemplate

_PROBE = "xProbex"


class SharedBeginning:
    """The text with which every chat under the operator's own system prompt begins.

    It is what the template makes of that system prompt and no word of anybody else. Only chats
    with exactly this system message begin with it; it is what their users may share in the cache.
    """

    def __init__(self, system_prompt: str) -> None:
        self._system_prompt = system_prompt
        self._texts: dict[bool, str] = {}
        self._template: ChatTemplate | None = None

    def characters(
        self, request: ChatRequest, prompt: Prompt, template: ChatTemplate, *, thinking: bool
    ) -> int:
        """How many first characters of the request's prompt are shared; 0 where none are."""
        first = request.messages[0]
        if first.role is not Role.SYSTEM or first.content != self._system_prompt:
            return 0
        if template is not self._template:
            self._template, self._texts = template, {}
        text = "".join(piece.text for piece in prompt)
        if not self._begins(text, thinking):
            # Not rendered yet, or with a date in it that has passed.
            self._texts[thinking] = self._render(template, thinking=thinking)
        return len(self._texts[thinking]) if self._begins(text, thinking) else 0

    def _begins(self, text: str, thinking: bool) -> bool:
        known = self._texts.get(thinking, "")
        return bool(known) and text.startswith(known)

    def _render(self, template: ChatTemplate, *, thinking: bool) -> str:
        """Up to the end of the system prompt; nothing where the template does not show it whole."""
        messages = [Message(Role.SYSTEM, self._system_prompt), Message(Role.USER, _PROBE)]
        pieces = template.render(messages, thinking=thinking)
        text = "".join(piece.text for piece in pieces)
        shown = self._system_prompt.strip()
        at = text.find(shown) if shown else -1
        end = at + len(shown)
        return text[:end] if at >= 0 and _PROBE not in text[:end] else ""
