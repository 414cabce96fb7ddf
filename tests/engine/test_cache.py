"""The prefix cache with real models: what is reused is right, and whose it is."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from service.domain.chat import Prompt, PromptPiece
from service.domain.sampling import Sampling
from service.engine.llama import LlamaRunner, create_runner
from service.engine.runner import DecodeRow, PrefillPart
from service.ipc.messages import Submit
from service.settings import EngineSettings
from tests.engine.gguf_file import WINDOW, RandomModel
from tests.engine.process import SECONDS, Client, Engine, prompt_of, running_engine
from tests.questions import QUESTIONS

pytestmark = pytest.mark.model

FREE = Sampling(temperature=1.0)
SYSTEM = "You answer for the museum of clocks, politely and in a few words. " * 60


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("cache")
    with running_engine(
        folder,
        PARLEY_STATE_DIR=str(folder),
        PARLEY_ENGINE__SLOTS="4",
        PARLEY_ENGINE__MAX_WAITING="64",
    ) as process:
        process.next_event("ready")
        yield process


def plain(*turns: str, system: str = "") -> Prompt:
    """A chat as most templates put it: what was said stays as it was."""
    text = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    for number, said in enumerate(turns):
        role = "assistant" if number % 2 else "user"
        text += f"<|im_start|>{role}\n{said}<|im_end|>\n"
    return (PromptPiece(text + "<|im_start|>assistant\n", trusted=True),)


def computed(client: Client, number: int) -> int:
    usage = client.dones[number].usage
    return usage.prompt_tokens - usage.cached_tokens


def test_at_turn_five_of_four_chats_at_once_only_what_is_new_is_computed(engine: Engine) -> None:
    client = engine.connect()
    chats: dict[int, list[str]] = {n: [] for n in range(4)}
    for turn in range(5):
        for n, said in chats.items():
            said.append(QUESTIONS[(2 * n + turn) % len(QUESTIONS)])
            client.send(
                Submit(
                    10 * turn + n,
                    f"turn {turn} of {n}",
                    plain(*said),
                    FREE,
                    max_tokens=40,
                    cache_key=f"chat {n}",
                )
            )
        client.wait(*(10 * turn + n for n in chats))
        for n, said in chats.items():
            said.append(client.texts.get(10 * turn + n, ""))
            before = client.dones[10 * turn + n - 10].usage.total_tokens if turn else 0
            new = client.dones[10 * turn + n].usage.prompt_tokens - before
            assert computed(client, 10 * turn + n) <= new + 8


def test_eight_users_with_the_operators_prompt_together_read_it_once(engine: Engine) -> None:
    client = engine.connect()
    for n, question in enumerate(QUESTIONS[:8]):
        prompt = plain(question, system=SYSTEM)
        shared = prompt[0].text.index(SYSTEM) + len(SYSTEM)
        client.send(
            Submit(
                100 + n,
                f"user {n}",
                prompt,
                Sampling(temperature=0),
                max_tokens=8,
                cache_key=f"user {n} of the museum",
                shared_characters=shared,
            )
        )
    client.wait(*range(100, 108))
    users = range(100, 108)
    one = max(client.dones[n].usage.prompt_tokens for n in users)
    assert sum(computed(client, n) for n in users) <= 1.2 * one
    assert sum(computed(client, n) >= one // 2 for n in users) == 1


def test_a_canary_of_one_user_is_never_reused_for_another(engine: Engine) -> None:
    """Two users ask the same, in every order, over many more chats than there are slots."""
    client = engine.connect()
    source = random.Random(0)
    history: dict[str, set[str]] = {"alice": set(), "bob": set()}
    for number in range(200, 240):
        user = source.choice(sorted(history))
        canary = f"The canary is number {source.randrange(6)}. " * 12
        client.send(Submit(number, "canary", plain(canary), FREE, max_tokens=2, cache_key=user))
        client.wait(number)
        common = len("<|im_start|>user\nThe canary is number ")
        if canary not in history[user]:
            assert client.dones[number].usage.cached_tokens < common
        history[user].add(canary)


def test_after_a_restart_a_chat_goes_on_from_disk(tmp_path: Path) -> None:
    said = [SYSTEM[: len(SYSTEM) // 8], "Yes.", "Again."]
    with running_engine(tmp_path, PARLEY_STATE_DIR=str(tmp_path)) as first:
        first.next_event("ready")
        client = first.connect()
        client.send(Submit(1, "before", plain(*said), FREE, max_tokens=20, cache_key="me"))
        client.wait(1)
        first.process.terminate()
        assert first.process.wait(SECONDS) == 0
    said += [client.texts[1], "And now?"]
    (tmp_path / "engine.sock").unlink(missing_ok=True)
    with running_engine(tmp_path, PARLEY_STATE_DIR=str(tmp_path)) as second:
        second.next_event("ready")
        again = second.connect()
        again.send(Submit(1, "after", plain(*said), FREE, max_tokens=4, cache_key="me"))
        again.wait(1)
        before = client.dones[1].usage
        assert again.dones[1].usage.cached_tokens >= before.total_tokens - 1
        again.send(Submit(2, "other", plain(*said), FREE, max_tokens=4, cache_key="you"))
        again.wait(2)
        assert again.dones[2].usage.cached_tokens == 0


# --- states ---------------------------------------------------------------------------------------


def follow(runner: LlamaRunner, slot: int, last: int, steps: int = 12) -> list[int]:
    """What the model says, greedily, behind what the slot holds and `last`."""
    sampler = runner.create_sampler(Sampling(temperature=0), [])
    said = []
    for _ in range(steps):
        runner.decode([DecodeRow(slot, runner.resident(slot), last)])
        said.append(last := sampler.sample(0))
    sampler.close()
    return said


def fill(runner: LlamaRunner, slot: int, ids: list[int]) -> None:
    at = runner.resident(slot)
    for start in range(0, len(ids), 64):
        runner.prefill([PrefillPart(slot, at + start, ids[start : start + 64])])


def test_a_restored_slot_goes_on_as_if_nothing_had_happened(pocket: LlamaRunner) -> None:
    ids = pocket.tokenize(prompt_of("What is the capital of France?"))
    fill(pocket, 0, ids[:-1])
    state = pocket.save(0)
    assert state.nbytes == pocket.state_size(0)
    expected = follow(pocket, 0, ids[-1])
    fill(pocket, 3, [5] * 20)
    assert pocket.restore(3, state) == len(ids) - 1
    assert follow(pocket, 3, ids[-1]) == expected


@pytest.mark.parametrize("damage", ["short", "empty", "noise", "head"])
def test_a_state_that_is_no_state_empties_the_slot(pocket: LlamaRunner, damage: str) -> None:
    fill(pocket, 0, [5] * 20)
    state = pocket.save(0)
    broken = {
        "short": state[: len(state) // 2],
        "empty": state[:0],
        "noise": np.random.default_rng(0).integers(0, 256, 5000, np.uint8),
        "head": np.concatenate([np.full(8, 255, np.uint8), state[8:]]),
    }[damage]
    assert pocket.restore(1, broken) == 0
    assert pocket.resident(1) == 0
    assert pocket.restore(1, state) == 20


KINDS = {
    "recurrent": RandomModel(recurrent=True),
    "hybrid": RandomModel(hybrid=True),
}


@pytest.fixture(scope="module", params=sorted(KINDS))
def uncut(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LlamaRunner]:
    """A model whose memory cannot be cut."""
    path = KINDS[request.param].write(tmp_path_factory.mktemp("models") / "model.gguf")
    runner = create_runner(EngineSettings(slots=3, context_length=512), path, "m", lambda _: None)
    runner.warm_up()
    yield runner
    runner.close()


def test_what_cannot_be_cut_goes_back_to_an_anchor(uncut: LlamaRunner) -> None:
    assert not uncut.can_cut
    for slot in range(3):
        uncut.trim(slot, 0)
    ids = list(range(20, 60))
    fill(uncut, 0, ids)
    uncut.anchor(0)
    fill(uncut, 0, list(range(60, 80)))
    assert uncut.trim(0, 50) == 40
    fill(uncut, 1, ids)
    assert follow(uncut, 0, 7) == follow(uncut, 1, 7)
    assert uncut.trim(0, 39) == 0


def test_anchors_go_where_their_slot_goes(uncut: LlamaRunner) -> None:
    for slot in range(3):
        uncut.trim(slot, 0)
    ids = list(range(20, 60))
    fill(uncut, 0, ids)
    uncut.anchor(0)
    fill(uncut, 0, list(range(60, 80)))
    state = uncut.save(0)
    assert uncut.fork(0, 1, 45) == 40
    expected = follow(uncut, 1, 7)
    assert uncut.restore(2, state) == 60
    assert uncut.trim(2, 41) == 40
    assert follow(uncut, 2, 7) == expected
    assert uncut.resident(0) == 60


def test_a_model_with_windows_is_cut_anywhere_but_once_restored_only_at_anchors(
    tmp_path: Path,
) -> None:
    """Its cache is kept whole, so that what has left the window is there to return to; but a state
    has only the window."""
    path = RandomModel(windowed=True).write(tmp_path / "model.gguf")
    runner = create_runner(EngineSettings(slots=3, context_length=512), path, "m", lambda _: None)
    try:
        runner.warm_up()
        ids = list(range(20, 120))
        fill(runner, 0, ids[: 3 * WINDOW])
        runner.anchor(0)
        fill(runner, 0, ids[3 * WINDOW :])
        state = runner.save(0)
        assert runner.fork(0, 1, 3 * WINDOW + 5) == 3 * WINDOW + 5
        assert runner.trim(1, 3 * WINDOW) == 3 * WINDOW
        assert runner.restore(2, state) == 100
        assert runner.trim(2, 99) == 3 * WINDOW
        runner.trim(0, 0)
        fill(runner, 0, ids[: 3 * WINDOW])
        expected = follow(runner, 0, 7)
        assert follow(runner, 1, 7) == expected
        assert follow(runner, 2, 7) == expected
        assert runner.restore(2, state) == 100
        assert runner.trim(2, 3 * WINDOW - 1) == 0
    finally:
        runner.close()
