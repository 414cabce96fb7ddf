"""A conversation is free again when whoever answered in it is killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from service.store.items import HELD_SECONDS
from tests.e2e.parley import Parley, running_parley
from tests.e2e.test_accounts import kill_workers
from tests.faults.streams import MANY_TEXTS
from tests.waiting import until

pytestmark = [pytest.mark.services, pytest.mark.model]


def asked(made: str, **more: Any) -> dict[str, Any]:
    return {"model": "pocket", "input": "Tell me a story.", "conversation": made, **more}


def is_answered(service: Parley, made: str) -> bool:
    """Or else locked."""
    body = asked(made, max_output_tokens=16)
    reply = service.client.post(f"{service.url}/v1/responses", json=body)
    if reply.status_code == 200:
        return True
    assert reply.json()["error"]["code"] == "conversation_locked", reply.text
    return False


def test_a_killed_worker_holds_a_conversation_up_for_some_seconds(tmp_path: Path) -> None:
    with running_parley(tmp_path, "--model", "pocket", "--workers", "2") as service:
        service.wait_healthy()
        made = service.client.post(f"{service.url}/v1/conversations", json={}).json()["id"]
        body, address = asked(made, stream=True, text=MANY_TEXTS), f"{service.url}/v1/responses"
        with httpx.stream("POST", address, json=body, timeout=60) as reply:
            lines = iter(reply.iter_lines())
            next(line for line in lines if "output_text.delta" in line)
            kill_workers(service)
            with pytest.raises(httpx.TransportError):
                list(lines)
        service.wait_healthy()
        until(lambda: is_answered(service, made), seconds=HELD_SECONDS + 60)
