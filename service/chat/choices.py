"""Several answers to one request, told side by side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Self

from service.chat.generate import Answer, Generation, collect
from service.domain.events import Event, Failed, Finished, OfChoice, QueuePosition, Usage
from service.domain.sampling import Sampling

Start = Callable[[Sampling], Awaitable[Generation]]


class Choices:
    """Generations that are one answer to whoever asked: `per_prompt` in a row share a prompt.

    Iterating yields `OfChoice` as they come, then `Finished` with the usage of all, each prompt
    counted once; or `Failed` as soon as one fails. Leaving `async with` closes all of them.
    """

    def __init__(self, generations: Sequence[Generation], per_prompt: int) -> None:
        self.generations = generations
        self._per_prompt = per_prompt
        self._events: asyncio.Queue[Event | BaseException] = asyncio.Queue()
        self._readers: list[asyncio.Task[None]] = []

    async def __aiter__(self) -> AsyncIterator[Event]:
        self._readers = [
            asyncio.create_task(self._read(choice, generation))
            for choice, generation in enumerate(self.generations)
        ]
        for reader in self._readers:
            reader.add_done_callback(self._has_read)
        ended: dict[int, Finished] = {}
        while len(ended) < len(self.generations):
            event = await self._events.get()
            if isinstance(event, BaseException):
                raise event
            yield event
            if isinstance(event, Failed):
                return
            if isinstance(event, OfChoice) and isinstance(event.event, Finished):
                ended[event.choice] = event.event
        yield self._together([ended[choice] for choice in sorted(ended)])

    async def answers(self) -> list[Answer]:
        """All of them whole, and closed. Raises the error of the first that fails."""
        async with self:
            return list(await asyncio.gather(*map(collect, self.generations)))

    def usage(self, ends: Sequence[Finished]) -> Usage:
        """Of all together, given how each ended."""
        prompts = ends[:: self._per_prompt]
        return Usage(
            prompt_tokens=sum(end.usage.prompt_tokens for end in prompts),
            cached_tokens=sum(end.usage.cached_tokens for end in prompts),
            completion_tokens=sum(end.usage.completion_tokens for end in ends),
            reasoning_tokens=sum(end.usage.reasoning_tokens for end in ends),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        for generation in self.generations:
            await generation.aclose()

    async def _read(self, choice: int, generation: Generation) -> None:
        """One generation's events into the common queue; where it waits is told of the first."""
        async for event in generation:
            if isinstance(event, QueuePosition):
                if not choice:
                    self._events.put_nowait(event)
            elif isinstance(event, Failed):
                self._events.put_nowait(event)
            elif not isinstance(event, OfChoice):
                self._events.put_nowait(OfChoice(choice, event))

    def _has_read(self, reader: asyncio.Task[None]) -> None:
        """A bug in one must not leave the others waiting for it."""
        if not reader.cancelled() and (bug := reader.exception()) is not None:
            self._events.put_nowait(bug)

    def _together(self, ends: Sequence[Finished]) -> Finished:
        return replace(ends[0], usage=self.usage(ends))


async def start_choices(starts: Sequence[Start], sampling: Sampling, num: int) -> Choices:
    """`num` generations of each prompt that `starts` start, all accepted.

    The first of each prompt has the request's own seed, the others those that follow. Where one is
    refused all are closed, and its refusal is raised.
    """
    generations: list[Generation] = []
    async with AsyncExitStack() as closing:
        for start in starts:
            for number in range(num):
                generation = await start(_seeded(sampling, number))
                closing.push_async_callback(generation.aclose)
                generations.append(generation)
        closing.pop_all()
    return Choices(generations, num)


def _seeded(sampling: Sampling, number: int) -> Sampling:
    if sampling.seed is None or not number:
        return sampling
    return replace(sampling, seed=(sampling.seed + number) % 2**64)
