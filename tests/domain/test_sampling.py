"""Sampling options and their bounds."""

from __future__ import annotations

from typing import Any

import pytest

from service.domain.errors import InvalidRequest
from service.domain.sampling import Sampling


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("temperature", 9, "temperature is 9; it must be between 0 and 2."),
        ("temperature", float("nan"), "temperature is nan; it must be between 0 and 2."),
        ("top_p", 1.1, "top_p is 1.1; it must be between 0 and 1."),
        ("top_k", -1, "top_k is -1; it must be between 0 and 1e+06."),
        ("presence_penalty", -3, "presence_penalty is -3; it must be between -2 and 2."),
        ("seed", -1, "seed is -1; it must be between 0 and 2^64 - 1."),
        ("logit_bias", {5: 200}, "logit_bias of token 5 is 200; it must be between -100 and 100."),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(option: str, value: Any, sentence: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Sampling(**{option: value})
    assert (caught.value.param, caught.value.message) == (option, sentence)


def test_temperature_zero_is_greedy() -> None:
    assert Sampling(temperature=0).greedy
    assert not Sampling().greedy
