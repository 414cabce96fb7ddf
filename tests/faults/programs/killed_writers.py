"""`killed_writers.py DATABASE COUNT SEED`: kill -9 COUNT writers of one database at random moments.

Each writer is a fork of this process, so that a kill costs no start of an interpreter. It keeps
turns, lets answers grow, renames, forks and forgets, and says each write when it is done. After
each kill the next writer's first act is to look for everything that was said to be done.
"""

from __future__ import annotations

import asyncio
import os
import random
import select
import signal
import sqlite3
import sys
from pathlib import Path

from service.domain.chat import Message, Role
from service.domain.conversation import AnswerState
from service.settings import load_settings
from service.store.archive import SqlArchive
from service.store.conversations import SqlConversations
from service.store.database import open_database

LONGEST_LIFE_SECONDS = 0.08


async def write_forever(path: str, told: int, writer: int) -> None:
    """Write until killed; each line on `told` is a text that is in the database for good."""
    database = await open_database(load_settings({"store": {"url": f"sqlite:///{path}"}}))
    store, archive = SqlConversations(database), SqlArchive(database)
    for n in range(10**6):
        name = f"chat-{writer}-{n % 7}"
        question, answer = f"question {writer} {n}", f"answer {writer} {n} " + "word " * (n % 50)
        key = await store.add_turn("me", name, question)
        os.write(told, f"{question}\n".encode())
        half = Message(Role.ASSISTANT, answer[: len(answer) // 2])
        await store.write_answer(key, half, AnswerState.WRITING)
        await store.write_answer(key, Message(Role.ASSISTANT, answer), AnswerState.COMPLETE)
        os.write(told, f"{answer.strip()}\n".encode())
        await archive.rename("me", name, f"title {n}")
        if n % 5 == 0:
            copy = f"copy-{writer}-{n}"
            await archive.fork("me", name, copy, None)
            await store.delete("me", copy)


def life(path: str, writer: int, seconds: float) -> list[str]:
    """Fork a writer, kill it after `seconds` of writing; what it said was done."""
    reading, told = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        asyncio.run(write_forever(path, told, writer))
    os.close(told)
    said = os.read(reading, 1)  # it writes: now its time runs
    select.select([], [], [], seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while piece := os.read(reading, 1 << 16):
        said += piece
    os.close(reading)
    # A line whose end is missing was not said.
    return [line.strip() for line in said.decode().split("\n")[:-1]]


def missing(path: str, said: list[str]) -> list[str]:
    """What was said to be done and is not there, and what the file itself complains of."""
    with sqlite3.connect(path) as connection:
        kept = {text.strip() for (text,) in connection.execute("SELECT content FROM messages")}
        verdict = [row[0] for row in connection.execute("PRAGMA integrity_check")]
        index = connection.execute(
            "SELECT count(*) FROM messages WHERE state <> 'writing' AND content <> '' "
            "AND key NOT IN (SELECT rowid FROM messages_text)"
        ).fetchone()[0]
    connection.close()
    faults = [f"lost: {text}" for text in said if text not in kept]
    faults += [f"the file: {word}" for word in verdict if word != "ok"]
    return faults + ([f"{index} messages cannot be found by search"] if index else [])


def main(path: str, count: int, seed: int) -> int:
    moments = random.Random(seed)
    said: list[str] = []
    for writer in range(count):
        said += life(path, writer, moments.uniform(0, LONGEST_LIFE_SECONDS))
        if writer % 10 == 9 or writer == count - 1:
            faults = missing(path, said)
            if faults:
                sys.stdout.write(
                    f"seed {seed}, after {writer + 1} kills:\n" + "\n".join(faults[:9])
                )
                return 1
    sys.stdout.write(f"{count} kills, {len(said)} writes acknowledged, none lost\n")
    return 0


if __name__ == "__main__":
    Path(sys.argv[1]).parent.mkdir(parents=True, exist_ok=True)
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
