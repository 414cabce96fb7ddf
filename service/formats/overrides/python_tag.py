"""Llama 3 may put its token for calls before one, which its template never shows:

<|python_tag|>{"name": "get_weather", "parameters": {"city": "Rome"}}
"""

from __future__ import annotations

from dataclasses import replace

from service.formats.tool_syntax import ToolSyntax

TAG = "<|python_tag|>"


def with_python_tag(syntax: ToolSyntax, control_tokens: tuple[str, ...]) -> ToolSyntax:
    """The syntax with the tag, for models that have it and write bare JSON."""
    if TAG not in control_tokens or not syntax.is_bare:
        return syntax
    return replace(syntax, aliases=(TAG,))
