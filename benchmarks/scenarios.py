"""What users do to a server, one after the other, and what a good one does then.

Each scenario asks one server over HTTP and returns samples of one number; what it is to be
compared with is the business of bars.py.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import statistics
import string
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.random_model import END_IDS
from benchmarks.talk import Message, Talk, ask

# Greedy, and never ending before `max_tokens`: no server's choice of samplers matters.
STEADY: dict[str, Any] = {
    "temperature": 0,
    "logit_bias": {str(token_id): -100 for token_id in END_IDS},
}
_UNDISTURBED_SECONDS = 6  # before a stream's median gap is believed
_WORD_TOKENS = 2  # a word of three random letters and its space, about


def words(seed: str, num_tokens: int) -> str:
    """Text of about so many tokens that nobody has read before."""
    source = random.Random(seed)
    letters, count = string.ascii_lowercase, num_tokens // _WORD_TOKENS
    return " ".join("".join(source.choices(letters, k=3)) for _ in range(count))


def user(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


async def gaps_beside_a_long_prompt(port: int, prompt_tokens: int) -> tuple[list[float], float]:
    """Gaps of a running stream while a long prompt is read, and its median gap before, seconds."""
    running = Talk(0.0)
    text = user(words("running", 64))
    stream = asyncio.create_task(ask(port, text, so_far=running, max_tokens=3000, **STEADY))
    await asyncio.sleep(_UNDISTURBED_SECONDS)
    arrived = time.perf_counter()
    long = await ask(port, user(words("long", prompt_tokens)), max_tokens=1, **STEADY)
    read = arrived + long.first_token_seconds
    stream.cancel()
    await asyncio.gather(stream, return_exceptions=True)
    gaps = list(itertools.pairwise(running.times))
    before = [b - a for a, b in gaps if b < arrived]
    beside = [b - a for a, b in gaps if b > arrived and a < read]
    return beside, statistics.median(before)


async def wait_in_a_flood(port: int, flooder: str, other: str) -> tuple[list[float], list[float]]:
    """First-token times of `other`: alone, and while `flooder` has 50 requests under way."""
    alone = [await _first_token(port, f"alone {n}", other) for n in range(3)]
    flood = [
        asyncio.create_task(
            ask(port, user(words(f"flood {n}", 96)), token=flooder, max_tokens=48, **STEADY)
        )
        for n in range(50)
    ]
    await asyncio.sleep(5)
    beside = [await _first_token(port, f"beside {n}", other) for n in range(4)]
    for request in flood:
        request.cancel()
    await asyncio.gather(*flood, return_exceptions=True)
    return alone, beside


async def _first_token(port: int, seed: str, token: str | None) -> float:
    talk = await ask(port, user(words(seed, 120)), token=token, max_tokens=4, **STEADY)
    return talk.first_token_seconds


async def surplus_of_turns(port: int, chats: int, turns: int) -> list[int]:
    """Prompt tokens read beyond the new ones at the last of some turns, for chats at once."""
    return await asyncio.gather(*(_surplus(port, f"chat {n}", turns) for n in range(chats)))


async def _surplus(port: int, seed: str, turns: int) -> int:
    history: list[Message] = []
    before: Talk | None = None
    talk: Talk | None = None
    for turn in range(turns):
        before = talk
        history += user(words(f"{seed} {turn}", 60))
        talk = await ask(port, history, max_tokens=32, **STEADY)
        history.append({"role": "assistant", "content": talk.text})
    if talk is None or before is None:
        raise ValueError("a surplus needs two turns")
    new = talk.prompt_tokens - before.prompt_tokens - before.completion_tokens
    return talk.computed_tokens - new


async def returns_to_conversations(port: int, conversations: int, tokens: int) -> list[float]:
    """First-token times of the second turn of conversations that take turns, more than slots."""
    histories = [user(words(f"conversation {n}", tokens)) for n in range(conversations)]
    for history in histories:
        first = await ask(port, history, max_tokens=8, **STEADY)
        history.extend([{"role": "assistant", "content": first.text}, *user("and what then")])
    return [
        (await ask(port, history, max_tokens=8, **STEADY)).first_token_seconds
        for history in histories
    ]


async def computed_for_a_shared_prefix(
    port: int, tokens: Sequence[str], system: str
) -> tuple[int, int]:
    """Prompt tokens computed for users who come together with the same system prompt: of all of
    them, and how many one user's prompt has."""
    talks = await asyncio.gather(
        *(
            ask(port, _under(system, f"user {n}"), token=token, max_tokens=4, **STEADY)
            for n, token in enumerate(tokens)
        )
    )
    return sum(t.computed_tokens for t in talks), max(t.prompt_tokens for t in talks)


def _under(system: str, seed: str) -> list[Message]:
    return [{"role": "system", "content": system}, *user(words(seed, 24))]


async def rate_together(port: int, streams: int, max_tokens: int, **body: Any) -> float:
    """Tokens per second of streams at once while all of them write."""
    talks = await asyncio.gather(
        *(
            ask(port, user(words(f"rate {n}", 32)), max_tokens=max_tokens, **STEADY, **body)
            for n in range(streams)
        )
    )
    begin, end = max(t.times[0] for t in talks), min(t.times[-1] for t in talks)
    per_frame = sum(t.completion_tokens for t in talks) / sum(len(t.times) for t in talks)
    return per_frame * sum(begin < at <= end for t in talks for at in t.times) / (end - begin)


async def wait_after_a_cancel(port: int, prompt_tokens: int) -> list[float]:
    """By how much a first token comes later when the only slot was reading a long prompt whose
    client has just hung up, than when it was idle. Seconds."""
    samples = []
    for n in range(5):
        idle = await ask(port, user(f"ho {n}"), max_tokens=1, **STEADY)
        reading = asyncio.create_task(
            ask(port, user(words(f"cancelled {n}", prompt_tokens)), max_tokens=1, **STEADY)
        )
        await asyncio.sleep(1.0 + 0.13 * n)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        after = await ask(port, user(f"hi {n}"), max_tokens=1, **STEADY)
        samples.append(after.first_token_seconds - idle.first_token_seconds)
    return samples


async def rate_of_repeating(port: int, number: int) -> float:
    """Tokens per second of writing a text that stands in the prompt, and nothing else."""
    text = words(f"repeated {number}", 400)
    asked = user(f"Repeat: {text}")
    talk = await ask(port, asked, temperature=0, guided_choice=[text])
    return talk.tokens_per_second


async def rate_of_something_new(port: int, number: int) -> float:
    """Tokens per second of text that nothing could have guessed."""
    bias = STEADY["logit_bias"]
    asked = user(words(f"new {number}", 32))
    talk = await ask(port, asked, temperature=1, seed=number, max_tokens=160, logit_bias=bias)
    return talk.tokens_per_second


async def resident_bytes(port: int) -> float:
    """What the engine's process holds of the memory, by its own word."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.sleep(2)  # it is told once a second
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    said = (await reader.read()).decode()
    writer.close()
    found = re.findall(
        r"^parley_process_resident_memory_bytes\{[^}]*engine[^}]*\} (\S+)", said, re.M
    )
    return float(found[0])
