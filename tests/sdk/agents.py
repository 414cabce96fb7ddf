"""What Codex 0.169 and Claude Code 2.1.197 send, as observed on the wire, in words of ours.

Every field and header is there with its shape; texts are short, so that Pocket holds them.
"""

from __future__ import annotations

from typing import Any

Wire = dict[str, Any]
_SESSION = "019a0000-0000-7000-8000-000000000001"

CODEX_HEADERS = {
    "accept": "text/event-stream",
    "authorization": "Bearer none",
    "originator": "codex_exec",
    "session-id": _SESSION,
    "thread-id": _SESSION,
    "user-agent": "codex_exec/0.169.0 (Linux; x86_64) unknown",
    "x-client-request-id": _SESSION,
    "x-codex-beta-features": "remote_compaction_v2",
    "x-codex-turn-metadata": '{"request_kind": "turn", "sandbox": "seccomp"}',
    "x-codex-window-id": f"{_SESSION}:0",
}
# A patch of one file; the vendor's own grammar has the same parts.
PATCH_GRAMMAR = r"""
start: begin hunk end
begin: "*** Begin Patch" LF
end: "*** End Patch" LF?
hunk: "*** Add File: " filename LF add_line
filename: /[a-z]{1,8}\.py/
add_line: "+" /[a-z"() ]{0,12}/ LF -> line
%import common.LF
"""
PATCH_TOOL: Wire = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Changes files. The patch is text, not JSON.",
    "format": {"type": "grammar", "syntax": "lark", "definition": PATCH_GRAMMAR},
}


def _function(name: str, description: str, required: list[str], **properties: Wire) -> Wire:
    schema = {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
    told = {"name": name, "description": description, "strict": False, "parameters": schema}
    return {"type": "function", **told}


CODEX_TOOLS: list[Wire] = [
    _function(
        "exec_command",
        "Runs a command.",
        ["cmd"],
        cmd={"type": "string", "description": "A shell command."},
        yield_time_ms={"type": "number"},
        sandbox_permissions={"type": "string", "enum": ["use_default", "require_escalated"]},
        prefix_rule={"type": "array", "items": {"type": "string"}},
    ),
    _function("view_image", "Shows a local picture.", ["path"], path={"type": "string"}),
    _function("get_goal", "The goal.", []),
    {
        "type": "namespace",
        "name": "multi_agent_v1",
        "description": "Other agents.",
        "tools": [
            _function("spawn_agent", "Begins one.", ["message"], message={"type": "string"}),
            _function("close_agent", "Ends one.", ["target"], target={"type": "string"}),
        ],
    },
    PATCH_TOOL,
    {"type": "web_search", "external_web_access": False},
]


def said(role: str, text: str) -> Wire:
    part = {"type": "output_text" if role == "assistant" else "input_text", "text": text}
    return {"type": "message", "id": "msg_1", "role": role, "content": [part]}


CODEX_BEGINNING = [
    said("developer", "You are a coding agent in a terminal. Be precise, safe and helpful."),
    said("developer", "<skills_instructions>There are none.</skills_instructions>"),
    said("user", "<environment_context>\n  <cwd>/work</cwd>\n</environment_context>"),
]


def codex(items: list[Wire], **fields: Any) -> Wire:
    """A turn: all that was said, every time, and nothing kept."""
    return {
        "model": "pocket",
        "instructions": "You are Codex. Answer shortly.",
        "stream": True,
        "input": [*CODEX_BEGINNING, *items],
        "tools": CODEX_TOOLS,
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "service_tier": "auto",
        "prompt_cache_key": _SESSION,
        "text": {"verbosity": "low"},
        "client_metadata": {"x-codex-window-id": f"{_SESSION}:0", "turn_id": _SESSION},
        **fields,
    }


CLAUDE_HEADERS = {
    "accept": "application/json",
    "anthropic-beta": (
        "claude-code-20250219,context-1m-2025-08-07,interleaved-thinking-2025-05-14,"
        "thinking-token-count-2026-05-13,context-management-2025-06-27,"
        "prompt-caching-scope-2026-01-05,mid-conversation-system-2026-04-07,effort-2025-11-24"
    ),
    "anthropic-dangerous-direct-browser-access": "true",
    "anthropic-version": "2023-06-01",
    "user-agent": "claude-cli/2.1.197 (external, sdk-cli)",
    "x-api-key": "none",
    "x-app": "cli",
    "x-claude-code-session-id": _SESSION,
    "x-stainless-retry-count": "0",
    "x-stainless-timeout": "600",
}
_EPHEMERAL = {"cache_control": {"type": "ephemeral"}}


def _claude_tool(name: str, description: str, **properties: Wire) -> Wire:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": properties,
        "required": list(properties)[:1],
        "additionalProperties": False,
    }
    return {"name": name, "description": description, "input_schema": schema}


CLAUDE_TOOLS: list[Wire] = [
    _claude_tool("Bash", "Runs a command.", command={"type": "string"}, timeout={"type": "number"}),
    _claude_tool("Read", "Reads a file.", file_path={"type": "string", "minLength": 1}),
    _claude_tool("Deferred", "Rarely needed.", x={"type": "string"}) | {"defer_loading": True},
    _claude_tool("Write", "Writes.", path={"type": "string"}) | {"eager_input_streaming": True},
    {"type": "web_search_20250305", "name": "web_search", "max_uses": 8},
]


def text_block(text: str, **more: Any) -> Wire:
    return {"type": "text", "text": text, **more}


CLAUDE_BEGINNING: list[Wire] = [
    {
        "role": "user",
        "content": [
            text_block("<system-reminder>\nToday is 2026-11-21.\n</system-reminder>\n"),
            text_block("Say hello.", **_EPHEMERAL),
        ],
    },
    {"role": "system", "content": "Available agent types: Explore, Plan."},
]


def claude(messages: list[Wire], billing: str = "1c0", **fields: Any) -> Wire:
    """A turn; `billing` is a number in the preamble that changes from one to the next."""
    preamble = f"x-anthropic-billing-header: cc_version=2.1.197.{billing}; cc_entrypoint=sdk-cli;"
    return {
        "model": "pocket",
        "messages": [*CLAUDE_BEGINNING, *messages],
        "system": [
            text_block(preamble),
            text_block("You are a Claude agent.", **_EPHEMERAL),
            text_block("\nYou help with software.\n", **_EPHEMERAL),
        ],
        "tools": CLAUDE_TOOLS,
        "metadata": {"user_id": '{"device_id": "1", "account_uuid": "", "session_id": "2"}'},
        "max_tokens": 64,
        "thinking": {"type": "adaptive"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "high"},
        "stream": True,
        **fields,
    }
