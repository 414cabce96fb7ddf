"""Facts about a model that is being served."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Mode(StrEnum):
    """What an engine does with its model: write, turn texts into vectors, or judge documents."""

    CHAT = "chat"
    EMBED = "embed"
    RERANK = "rerank"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What the workers need to know of the model that an engine has loaded.

    `context_length` is what one conversation may use (a slot), `trained_context_length` what the
    model was made for. `control_tokens` are the spellings that must never be read as tokens from
    untrusted text; `markup_tokens` (`<think>`, `<tool_call>`) are tokens that the model itself may
    also write as text. `chat_template` is Jinja source from the GGUF, or None. `created` is the
    file's modification time in Unix seconds. With `mode` other than chat, `context_length` is the
    longest input, and `vector_length` how many numbers become of one. `infill_tokens` are the
    spellings that stand before what is before a gap, before what is after it, and before what
    fills it. `sees` says that it can be shown pictures.
    """

    name: str
    description: str
    context_length: int
    trained_context_length: int
    num_slots: int
    vocabulary_size: int
    num_parameters: int
    size_bytes: int
    created: int
    chat_template: str | None = None
    bos_token: str = ""
    eos_token: str = ""
    adds_bos: bool = False
    control_tokens: tuple[str, ...] = ()
    markup_tokens: tuple[str, ...] = ()
    mode: Mode = Mode.CHAT
    vector_length: int = 0
    infill_tokens: tuple[str, str, str] | None = None
    sees: bool = False
