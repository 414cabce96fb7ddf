"""Refusals and their codes."""

from __future__ import annotations

from service.domain.errors import QueueFull, ServiceError, error_codes


def test_every_error_has_a_code_of_its_own() -> None:
    kinds = [ServiceError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    assert len(error_codes()) == len(kinds)
    assert {kind.code: kind for kind in kinds} == error_codes()


def test_an_error_is_its_sentence_and_knows_when_to_try_again() -> None:
    error = QueueFull("64 are waiting.", param="x", retry_after_seconds=2)
    assert str(error) == error.message == "64 are waiting."
    assert (error.param, error.retry_after_seconds) == ("x", 2)
