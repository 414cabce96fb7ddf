"""How the next token is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from service.domain.errors import InvalidRequest

# Bounds that both vendors' documents and llama.cpp's samplers can live with.
_RANGES: Mapping[str, tuple[float, float]] = {
    "temperature": (0.0, 2.0),
    "top_k": (0, 1_000_000),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "typical_p": (0.0, 1.0),
    "repeat_penalty": (0.01, 10.0),
    "repeat_last_n": (-1, 1_000_000),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
}


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling options; every default is neutral, so that an absent option changes nothing.

    `temperature` 0 is greedy. `top_k` 0 and `top_p` 1 do not truncate. `seed` None draws a fresh
    one per request. `logit_bias` maps token ids to additive logits. Raises `InvalidRequest` for a
    value out of range, naming the field.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (f.name for f in fields(self) if f.name in _RANGES):
            low, high = _RANGES[name]
            value = getattr(self, name)
            if not low <= value <= high:  # also refuses NaN
                raise InvalidRequest(
                    f"{name} is {value}; it must be between {low:g} and {high:g}.", param=name
                )
        if self.seed is not None and not 0 <= self.seed < 2**64:
            raise InvalidRequest(
                f"seed is {self.seed}; it must be between 0 and 2^64 - 1.", param="seed"
            )
        for token_id, bias in self.logit_bias.items():
            if not -100 <= bias <= 100:
                raise InvalidRequest(
                    f"logit_bias of token {token_id} is {bias}; it must be between -100 and 100.",
                    param="logit_bias",
                )

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0
