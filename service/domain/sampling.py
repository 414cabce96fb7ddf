"""How the next token is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from service.domain.errors import InvalidRequest

# Bounds that both vendors' documents and llama.cpp's samplers can live with.
_RANGES: Mapping[str, tuple[float, float]] = {
    "dynatemp_range": (0.0, 2.0),
    "dynatemp_exponent": (0.0, 100.0),
    "top_n_sigma": (-1.0, 1000.0),
    "xtc_probability": (0.0, 1.0),
    "xtc_threshold": (0.0, 1.0),
    "dry_multiplier": (0.0, 100.0),
    "dry_base": (0.0, 100.0),
    "dry_allowed_length": (0, 1_000_000),
    "dry_penalty_last_n": (-1, 1_000_000),
    "mirostat": (0, 2),
    "mirostat_tau": (0.0, 100.0),
    "mirostat_eta": (0.0, 10.0),
    "min_tokens": (0, 1_000_000),
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


MAX_BREAKERS = 16
MAX_BREAKER_BYTES = 40  # llama.cpp's limit


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling options; every default is neutral, so that an absent option changes nothing.

    `temperature` 0 is greedy; with `dynatemp_range` it moves by so much at most, as the entropy
    asks. `top_k` 0, `top_p` 1 and `top_n_sigma` up to 0 do not truncate, `xtc_threshold` beyond
    one half and `dry_multiplier` 0 change nothing, and -1 for a number of last tokens means all.
    `mirostat` 1 or 2 stands in for all truncation and penalties. Before `min_tokens` were written,
    or ever with `ignore_eos`, the model can't end the answer. `seed` None draws a fresh one per
    request. `logit_bias` maps token ids to additive logits. Raises `InvalidRequest` for a value
    out of range, naming the field.
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
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    top_n_sigma: float = -1.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = 64
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    ignore_eos: bool = False
    min_tokens: int = 0
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
        self._check_breakers()
        for token_id, bias in self.logit_bias.items():
            if not -100 <= bias <= 100:
                raise InvalidRequest(
                    f"logit_bias of token {token_id} is {bias}; it must be between -100 and 100.",
                    param="logit_bias",
                )

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0 and self.dynatemp_range == 0.0

    def _check_breakers(self) -> None:
        breakers = self.dry_sequence_breakers
        if len(breakers) > MAX_BREAKERS:
            raise InvalidRequest(
                f"dry_sequence_breakers has {len(breakers)} strings; at most {MAX_BREAKERS} are "
                "accepted.",
                param="dry_sequence_breakers",
            )
        for text in breakers:
            size = len(text.encode("utf-8", "surrogatepass"))
            if not 0 < size <= MAX_BREAKER_BYTES:
                raise InvalidRequest(
                    f"dry_sequence_breakers has a string of {size} bytes; each must have 1 to "
                    f"{MAX_BREAKER_BYTES}.",
                    param="dry_sequence_breakers",
                )
