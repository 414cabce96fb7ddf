"""Names of conversations."""

from __future__ import annotations

import pytest

from service.domain.conversation import valid_conversation_id
from service.domain.errors import InvalidRequest
from service.domain.events import Usage


@pytest.mark.parametrize("name", ["default", "a", "conv_abc-123", "x" * 128])
def test_a_plain_name_is_itself(name: str) -> None:
    assert valid_conversation_id(name) == name


@pytest.mark.parametrize("name", ["", "x" * 129, "a b", "a/b", "é", "a\n", "../a"])
def test_any_other_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="session_id must be 1 to 128 characters out of"):
        valid_conversation_id(name)


def test_usage_adds_up_what_was_read_and_written() -> None:
    assert Usage(prompt_tokens=3, cached_tokens=2, completion_tokens=4).total_tokens == 7
