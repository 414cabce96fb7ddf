"""`python -m service.chat.trial --socket PATH --model-name NAME`: a model proves itself.

Before a model gets its first request it answers its golden prompts, by the way that requests go.
The supervisor runs this, in a process of its own, and is told the outcome as one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sys
import unicodedata
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

from service.chat.generate import Answer, Chat, collect
from service.domain.access import Principal
from service.domain.chat import ChatRequest, Message, Role
from service.domain.errors import GenerationFailed, ServiceError
from service.domain.sampling import Sampling
from service.ipc.one_engine import OneEngine
from service.models.registry import known
from service.models.source import Golden, ModelSource
from service.settings import load_settings

# What every model that can be talked to can do: say something.
USUAL_PROMPTS = (Golden("Say hello.", r"\S"), Golden("What is the capital of France?", r"\S"))
# A model that is slower than this is of no use to anybody who waits for it.
USUAL_TOKENS_PER_SECOND = 0.2
MAX_TOKENS = 48
MAX_SHOWN = 80

# Its own, so that none of it is ever found in the cache of anybody who chats.
_PRINCIPAL = Principal("golden-prompts", "golden prompts")


async def try_model(chat: Chat, source: ModelSource) -> float:
    """Have the model that `chat` finds answer all its golden prompts; its tokens per second.

    Raises `GenerationFailed` with a sentence that says what was wrong with which answer, or
    whatever refused a prompt.
    """
    num_tokens, seconds = 0, 0.0
    for golden in source.golden or USUAL_PROMPTS:
        answer = await _ask(chat, golden.prompt)
        fault = fault_of(answer, golden)
        if fault is not None:
            raise GenerationFailed(
                f"{source.name} failed the golden prompt {golden.prompt!r}: {fault}."
            )
        num_tokens += answer.finished.usage.completion_tokens
        seconds += answer.finished.timings.decode_seconds
    rate = num_tokens / seconds if seconds > 0 else float("inf")
    floor = source.min_tokens_per_second or USUAL_TOKENS_PER_SECOND
    if rate < floor:
        raise GenerationFailed(
            f"{source.name} writes {rate:.2g} tokens per second, and {floor:g} are demanded of it."
        )
    return rate


def fault_of(answer: Answer, golden: Golden) -> str | None:
    """What is wrong with an answer; None where nothing is."""
    text = answer.text or answer.reasoning
    if not text.strip():
        return "the answer is empty"
    strange = next((c for c in text if unicodedata.category(c) == "Cc" and c not in "\n\r\t"), None)
    if strange is not None:
        return f"the answer holds the control character {strange!r}"
    if re.search(golden.pattern, text) is None:
        shown = text.strip()[:MAX_SHOWN]
        return f"the answer should match {golden.pattern!r}, and is {shown!r}"
    return None


async def _ask(chat: Chat, prompt: str) -> Answer:
    request = ChatRequest(
        messages=(Message(Role.USER, prompt),),
        sampling=Sampling(temperature=0.0),
        max_tokens=MAX_TOKENS,
    )
    return await collect(await chat.start(request, _PRINCIPAL))


async def try_engine(socket: Path, source: ModelSource) -> float:
    """As `try_model`, of the engine behind `socket`."""
    async with aclosing(await OneEngine.connect(socket)) as engines:
        return await try_model(Chat(engines, load_settings().chat), source)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m service.chat.trial", description=__doc__)
    parser.add_argument("--models-dir", type=Path, required=True, help="where models have names")
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--model-name", required=True)
    parser.add_argument("--status-fd", type=int, default=1, help="where the JSON line goes")
    chosen = parser.parse_args(arguments)
    try:
        name = chosen.model_name
        source = known(chosen.models_dir).get(name, ModelSource(name))
        rate = asyncio.run(try_engine(chosen.socket, source))
        facts = {"event": "passed", "tokens_per_second": round(min(rate, 1e9), 2)}
    except ServiceError as error:
        facts = {"event": "failed", "reason": error.message}
    os.write(chosen.status_fd, (json.dumps(facts) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
