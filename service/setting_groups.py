"""The groups of settings: what there is to set, within which bounds, and at which default.

`settings.Settings` is the table of them, and says where values come from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo

SECRET: JsonDict = {"secret": True}  # nobody may see its value, and it may lie in a file


def is_secret(field: FieldInfo) -> bool:
    """Whether nobody may see its value."""
    return field.json_schema_extra == SECRET


class Group(BaseModel):
    """A narrow part of the table; unknown names are mistakes."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ApiSettings(Group):
    """How HTTP is served."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="TCP port to listen on.")
    unix_socket: Path | None = Field(
        None, description="Listen on this unix socket instead, behind a proxy."
    )
    workers: int = Field(2, ge=1, le=64, description="Number of HTTP worker processes.")
    max_body_bytes: int = Field(
        4 * 1024 * 1024, ge=1024, description="Largest request body that is read."
    )
    cors_origins: str = Field(
        "",
        description="Other sites whose pages may ask, as https://a.example https://b.example; "
        "* lets all. Such pages need an access token wherever others do.",
    )
    allowed_hosts: str = Field(
        "",
        description="Names, beside localhost, by which a service on a loopback address may be "
        "called while it has no access token, as `chat.lan box.lan`; * lets all.",
    )
    keepalive_comment_seconds: float = Field(
        10.0, gt=0, description="Silence on a stream after which a comment is sent."
    )


class ModelSettings(Group):
    """Which model is served."""

    name: str = Field(
        "qwen2.5-0.5b-instruct",
        description="A catalogue name, REPO:FILE on the model hub, or a path to a GGUF file.",
    )
    served_name: str | None = Field(
        None,
        # Counted by the pattern, 200 times all the world's letters would be 8 MB in every process.
        pattern=r"^[\w.:/-]+$",
        max_length=200,
        description="What clients see the model called; unset means its own name.",
    )
    stand_in: str | None = Field(
        None, description="A model to serve while the configured one is being fetched."
    )
    mmproj: Path | None = Field(
        None,
        description="The model's projector file, for pictures; unset: an mmproj*.gguf beside it.",
    )
    directory: Path | None = Field(
        None, description="Where model files are kept; unset: models/ in the state directory."
    )
    unload_after_seconds: float = Field(
        0,
        ge=0,
        description="Idle time after which a model leaves memory; the next request loads it "
        "again. 0: never.",
    )
    offline: bool = Field(False, description="Never contact the model hub.")
    hub_token: str | None = Field(
        None,
        description="What opens gated models on the hub; unset: as in HF_TOKEN.",
        json_schema_extra=SECRET,
        repr=False,
    )
    switch_grace_seconds: float = Field(
        600,
        ge=0,
        description="How long answers of a model may go on after another one has taken over.",
    )


class EngineSettings(Group):
    """How the model runs."""

    slots: int = Field(8, ge=1, le=256, description="Conversations that can generate at once.")
    context_length: int = Field(
        4096, ge=256, description="Tokens per conversation, bounded by what the model allows."
    )
    batch_tokens: int = Field(512, ge=32, le=65536, description="Most tokens read in one call.")
    threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="Compute threads; 0: all usable cores, or one for a model under 64 MB.",
    )
    gpu_layers: int = Field(-1, ge=-1, description="Layers on the GPU; -1 takes all that fit.")
    gpu_split: Literal["none", "layer", "row"] = Field(
        "layer", description="How several GPUs share a model: one alone, by layers, or by rows."
    )
    main_gpu: int = Field(
        0, ge=0, description="The GPU for a model that is not shared, counted from 0."
    )
    gpu_sampling: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Find the likeliest tokens where the model is computed; auto: on GPUs only.",
    )
    gpu_padding: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Fill batches up to 1, 2, 4, 8, … rows, so that their graphs are used again; "
        "auto: on GPUs only.",
    )
    speculation: bool = Field(
        True, description="Guess what comes next and check it at once, where that is quicker."
    )
    draft_model: str | None = Field(
        None,
        description="A small model of the same vocabulary that goes ahead of the model, where that "
        "is quicker: a catalogue name, REPO:FILE, or a path; unset: none.",
    )
    park_after_seconds: float = Field(
        120,
        ge=0,
        description="Conversations that nobody has gone on with for so long are copied to disk, so "
        "that a crash loses little; 0: only what has to make room, and at the end.",
    )
    blas: Literal["auto", "on", "off"] = Field(
        "auto", description="OpenBLAS for long prompts: measured at start-up, or forced."
    )
    max_waiting: int = Field(64, ge=0, description="Requests that may wait for a slot.")
    max_prompt_bytes: int = Field(
        1024 * 1024, ge=1024, description="Longest prompt text that is tokenized."
    )
    inter_token_target_seconds: float = Field(
        0.25, gt=0, description="Gap between tokens that a prompt being read may cause."
    )
    parked_bytes: int | None = Field(
        None, ge=0, description="Memory for parked conversations; unset: a quarter of what is free."
    )
    archived_bytes: int = Field(
        2 * 1024**3, ge=0, description="Disk, in the state directory, for parked conversations."
    )
    load_timeout_seconds: float = Field(
        900, gt=0, description="A model that takes longer than this to load has failed."
    )
    stall_seconds: float = Field(
        60, gt=0, description="A decode step that takes longer than this is a hang."
    )


class VectorSettings(Group):
    """How a model runs that reads whole inputs at once."""

    model: str | None = Field(
        None, description="A catalogue name, REPO:FILE on the model hub, or a path; unset: none."
    )
    context_length: int = Field(
        2048,
        ge=16,
        le=65536,
        description="Tokens of the longest input, bounded by what the model allows.",
    )
    batch_tokens: int = Field(
        512, ge=16, le=65536, description="Inputs are read together up to so many tokens."
    )
    max_waiting: int = Field(64, ge=0, description="Requests that may wait for the model.")
    max_inputs: int = Field(2048, ge=1, description="Most inputs or documents in one request.")


class EmbedSettings(VectorSettings):
    """The model that turns texts into vectors."""

    pooling: Literal["auto", "mean", "cls", "last"] = Field(
        "auto", description="How a text becomes one vector; auto: as the model says."
    )


class RerankSettings(VectorSettings):
    """The model that judges documents."""


class ChatSettings(Group):
    """What a chat is, where the client does not say."""

    system_prompt: str = Field(
        "You are a helpful assistant. Provide clear, concise, and accurate answers.",
        description="System prompt of the native routes.",
    )
    thinking: bool = Field(False, description="Let a reasoning model think unless told not to.")
    aliases: str = Field(
        "",
        description="Other names for the served model, with wildcards: `gpt-*, claude-*`.",
    )
    max_messages: int = Field(4096, ge=1, description="Most messages in one request.")
    max_choices: int = Field(
        8, ge=1, le=64, description="Most answers to one request (`n`) that a client may ask for."
    )
    max_tokens: int = Field(
        0, ge=0, description="Most tokens of any answer; 0: as many as the context holds."
    )
    max_seconds: float = Field(
        0,
        ge=0,
        description="An answer that has taken longer, waiting included, ends with what there is; "
        "0: none does.",
    )
    max_exchanges: int = Field(
        50, ge=0, description="Most exchanges that the /api/v1 routes tell the model again."
    )


class PictureSettings(Group):
    """What may be shown to a model that sees."""

    max_count: int = Field(16, ge=1, le=256, description="Most pictures in one request.")
    max_bytes: int = Field(
        8 * 1024 * 1024, ge=1024, le=32 * 1024 * 1024, description="Largest file of a picture."
    )
    max_pixels: int = Field(
        16 * 1024 * 1024, ge=1024, description="Most pixels of a picture, once unpacked."
    )
    domains: str = Field(
        "*",
        description="Hosts that pictures are fetched from, with wildcards: `*.example.org`; "
        "empty: only pictures that requests bring along.",
    )
    fetch_seconds: float = Field(
        10, gt=0, le=120, description="How long fetching a picture may take."
    )


class StoreSettings(Group):
    """Where conversations are kept."""

    url: str | None = Field(
        None,
        description="SQLAlchemy URL; unset means parley.sqlite in the state directory.",
        json_schema_extra=SECRET,
        repr=False,
    )
    keep_days: float = Field(
        0, ge=0, description="Conversations unused for longer are forgotten; 0 keeps all."
    )


class AuthSettings(Group):
    """Who is let in."""

    allow_anonymous: bool = Field(
        False,
        description="Answer everybody who can connect, from anywhere, as long as there is no "
        "access token.",
    )
    anonymous_requests_per_minute: int = Field(
        0, ge=0, description="Of each address, where no access token is needed; 0: no limit."
    )
    anonymous_tokens_per_minute: int = Field(
        0, ge=0, description="Of all who come without an access token together; 0: no limit."
    )
    anonymous_streams: int = Field(
        0, ge=0, description="Answers at once for all without an access token; 0: no limit."
    )


class LogSettings(Group):
    """What is logged, and how it looks."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level.")
    format: Literal["auto", "json", "console"] = Field(
        "auto", description="auto: readable on a terminal, JSON elsewhere."
    )
