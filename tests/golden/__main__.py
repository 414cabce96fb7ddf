"""Write every recorded reply anew."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.api.running import connected_client, running_app
from tests.fakes.engine import FakeEngine
from tests.golden.pairs import OPENAPI, REQUESTS, ask, reply_of, to_text


async def record(folder: Path) -> None:
    engine = FakeEngine()
    async with running_app(engine, folder) as app, connected_client(app) as client:
        for request in REQUESTS:
            reply = await ask(client, engine, request)
            reply_of(request, reply).write_text(to_text(reply))
        OPENAPI.write_text(json.dumps(app.openapi(), indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        asyncio.run(record(Path(folder)))
