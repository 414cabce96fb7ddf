"""Pages of other sites: kept out, but for those that the operator lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.settings import ApiSettings
from tests.api.running import connected_client, running_app
from tests.fakes.engine import FakeEngine

ASK = {
    "Origin": "https://app.example",
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type",
}


@pytest.mark.parametrize(
    ("origins", "allowed"),
    [
        ("", False),
        ("https://other.example", False),
        ("https://other.example, https://app.example", True),
        ("*", True),
    ],
)
async def test_only_pages_of_listed_sites_may_ask(
    engine: FakeEngine, tmp_path: Path, origins: str, allowed: bool
) -> None:
    settings = ApiSettings(cors_origins=origins)
    async with running_app(engine, tmp_path, api=settings) as app, connected_client(app) as client:
        preflight = await client.options("/v1/chat/completions", headers=ASK)
        assert (preflight.status_code == 200) is allowed
        named = {"Origin": "https://app.example"}
        reply = await client.post("/chat", json={"message": "Hi"}, headers=named)
        assert ("access-control-allow-origin" in reply.headers) is allowed
        assert "access-control-allow-credentials" not in reply.headers
