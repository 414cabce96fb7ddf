"""How tokens are chosen: the vendor's options, and llama.cpp's under llama-server's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Protocol

from pydantic import BaseModel, BeforeValidator, Field

from service.api.fields import Text
from service.domain.chat import Priority
from service.domain.errors import InvalidRequest
from service.domain.sampling import Sampling

_MAX_STOP_STRINGS = 4
MAX_TOKEN_ID = 2**31 - 1
_TIERS = (None, "auto", "default", "flex", "priority", "scale")


def _to_strings(stop: object) -> object:
    return [stop] if isinstance(stop, str) else stop


class SamplingOptions(BaseModel):
    """Options that every kind of completion has."""

    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    seed: int | None = Field(None, description="-1, like none, draws a fresh one.")
    stop: Annotated[
        list[Text] | None,
        BeforeValidator(_to_strings, json_schema_input_type=str | list[str] | None),
    ] = None
    n: int | None = Field(None, description="So many answers, whose seeds follow one another.")
    # llama.cpp's
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    top_n_sigma: float | None = None
    xtc_probability: float | None = None
    xtc_threshold: float | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = None
    dry_penalty_last_n: int | None = None
    dry_sequence_breakers: list[Text] | None = None
    dynatemp_range: float | None = None
    dynatemp_exponent: float | None = None
    mirostat: int | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    ignore_eos: bool | None = None
    min_tokens: int | None = Field(None, description="The answer doesn't end before that.")
    n_predict: int | None = Field(None, description="Another name of max_tokens; -1: no limit.")
    cache_prompt: bool | None = Field(None, description="Ignored: prompts always are.")


_SAME_NAME = (
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "min_p",
    "typical_p",
    "top_n_sigma",
    "xtc_probability",
    "xtc_threshold",
    "repeat_penalty",
    "repeat_last_n",
    "dry_multiplier",
    "dry_base",
    "dry_allowed_length",
    "dry_penalty_last_n",
    "dynatemp_range",
    "dynatemp_exponent",
    "mirostat",
    "mirostat_tau",
    "mirostat_eta",
    "ignore_eos",
    "min_tokens",
)


def to_sampling(body: SamplingOptions) -> Sampling:
    """The vendor's defaults (temperature 1, top_p 1) are the neutral ones. Raises
    `InvalidRequest`, naming the field."""
    options: dict[str, Any] = {
        name: value for name in _SAME_NAME if (value := getattr(body, name)) is not None
    }
    if body.dry_sequence_breakers is not None:
        options["dry_sequence_breakers"] = tuple(body.dry_sequence_breakers)
    if body.top_k is not None:
        options["top_k"] = 0 if body.top_k == -1 else body.top_k
    return Sampling(**options, seed=_to_seed(body.seed), logit_bias=_to_bias(body.logit_bias or {}))


def to_max_tokens(body: SamplingOptions, *names: str) -> int | None:
    """The first of `names` that is there, else llama-server's name for it."""
    for name in (*names, "n_predict"):
        value: int | None = getattr(body, name)
        if value is None or (name == "n_predict" and value == -1):
            continue
        if value < 1:
            raise InvalidRequest(f"{name} is {value}; it must be at least 1.", param=name)
        return min(value, MAX_TOKEN_ID)
    return None


def to_stop(stop: list[str] | None) -> tuple[str, ...]:
    if stop is not None and len(stop) > _MAX_STOP_STRINGS:
        raise InvalidRequest(
            f"stop has {len(stop)} strings; at most {_MAX_STOP_STRINGS} are accepted.", param="stop"
        )
    return tuple(stop or ())


def to_num_choices(body: SamplingOptions, limit: int) -> int:
    """How many answers to each prompt."""
    num = 1 if body.n is None else body.n
    if not 1 <= num <= limit:
        raise InvalidRequest(f"n is {num}; it must be between 1 and {limit}.", param="n")
    return num


def _to_seed(seed: int | None) -> int | None:
    """The vendor's seeds are signed."""
    if seed is None or seed == -1:
        return None
    if not -(2**63) <= seed < 2**64:
        raise InvalidRequest("seed must be a 64-bit integer.", param="seed")
    return seed % 2**64


def _to_bias(biases: Mapping[str, float]) -> dict[int, float]:
    known: dict[int, float] = {}
    for key, bias in biases.items():
        if not (key.isascii() and key.isdigit() and int(key[:11]) <= MAX_TOKEN_ID):
            raise InvalidRequest(
                f"logit_bias has the key {key[:40]!r}; keys are token ids.", param="logit_bias"
            )
        known[int(key)] = bias
    return known


class Urgency(Protocol):
    """What a body says of how urgent it is."""

    @property
    def service_tier(self) -> str | None: ...

    @property
    def priority(self) -> int | None: ...


def to_priority(body: Urgency) -> Priority:
    """Raises `InvalidRequest` for a tier that the vendor does not have."""
    if body.service_tier not in _TIERS:
        tiers = ", ".join(tier for tier in _TIERS if tier)
        raise InvalidRequest(
            f"service_tier is {str(body.service_tier)[:40]!r}; it must be one of {tiers}.",
            param="service_tier",
        )
    waits = body.service_tier == "flex" or (body.priority or 0) > 0
    return Priority.BATCH if waits else Priority.INTERACTIVE
