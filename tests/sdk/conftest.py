"""The vendor's published schema, for replies that claim to follow it, and its client on the one
service that all tests share."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from tests.e2e.parley import Parley
from tests.sdk.published import published

__all__ = ["published"]


@pytest.fixture
def client(parley: Parley) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{parley.url}/v1", api_key="none", max_retries=0) as made:
        yield made
