"""Conversations that leave their slots, and come back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import Counter

from service import metrics
from service.domain.chat import Prompt, PromptPiece
from service.engine.kv.prefix import Prefix
from service.engine.kv.slots import Placement
from service.engine.kv.tier import Tier
from service.engine.runner import State
from service.settings import EngineSettings
from tests.fakes.loop import Loop, alone
from tests.fakes.runner import END_SPELLING, FakeRunner

LONG = 400
MORE = EngineSettings(max_waiting=50, parked_bytes=1_000_000)
NONE = EngineSettings(max_waiting=50, parked_bytes=0)


def loop_of(num_slots: int = 1, settings: EngineSettings = MORE, *, can_cut: bool = True) -> Loop:
    runner = FakeRunner(
        num_slots, LONG, max_batch_tokens=64, max_prompt_bytes=LONG, can_cut=can_cut
    )
    loop = Loop(runner, settings)

    def takes_time() -> None:
        loop.clock.now += 1.0

    runner.during_prefill = takes_time
    return loop


def history(name: str) -> str:
    return f"{name}: " + "long ago in a land far away " * 6 + ">"


def counted(counter: Counter, *labels: str) -> float:
    child = counter.labels(*labels) if labels else counter
    return next(s.value for metric in child.collect() for s in metric.samples)


def ask(loop: Loop, number: int, text: str, **options: Any) -> int:
    """Ask, to the end; returns how many tokens of the prompt were not read."""
    loop.ask(number, text, max_tokens=4, **options)
    loop.finish()
    return loop.done(number).usage.cached_tokens


def test_a_conversation_that_lost_its_slot_comes_back_whole() -> None:
    loop = loop_of()
    ask(loop, 1, history("a"))
    turn = history("a") + loop.text(1)
    ask(loop, 2, history("b"))
    assert ask(loop, 3, turn + " and then>") == len(turn) - 1
    assert loop.text(3) == alone(turn + " and then>", long_runner(), max_tokens=4)
    assert ("restore", 0, len(turn) - 1) in loop.runner.calls


def test_what_was_parked_is_cut_to_what_the_prompt_shares() -> None:
    loop = loop_of()
    ask(loop, 1, history("a"))
    ask(loop, 2, history("b"))
    other = history("a")[:120] + " something else>"
    assert ask(loop, 3, other) == 120
    assert loop.text(3) == alone(other, long_runner(), max_tokens=4)


def test_twelve_conversations_on_four_slots_are_each_read_once() -> None:
    loop = loop_of(num_slots=4)
    said = {n: history(f"conversation {n}") for n in range(12)}
    for turn in range(3):
        for n, text in said.items():
            number = 100 * turn + n
            cached = ask(loop, number, text)
            new = len(text) if not turn else len(" go on>") + 1
            assert len(text) - cached <= new
            assert loop.text(number) == alone(text, long_runner(), max_tokens=4)
            said[n] = text + loop.text(number) + " go on>"


def test_without_a_budget_nothing_is_parked() -> None:
    loop = loop_of(settings=NONE)
    ask(loop, 1, history("a"))
    ask(loop, 2, history("b"))
    assert ask(loop, 3, history("a")) == 0
    assert not [call for call in loop.runner.calls if call[0] in ("save", "restore")]


def test_a_short_conversation_is_not_worth_parking() -> None:
    loop = loop_of()
    for number, name in enumerate("abc"):
        ask(loop, number, name * 40)
    assert not [call for call in loop.runner.calls if call[0] == "save"]


def test_the_next_turn_of_a_conversation_parks_nothing() -> None:
    loop = loop_of()
    ask(loop, 1, history("a"))
    ask(loop, 2, history("a") + "quite another answer than it was>")
    assert not [call for call in loop.runner.calls if call[0] == "save"]


def test_nothing_is_parked_that_would_hold_up_a_running_stream_for_too_long() -> None:
    loop = loop_of(num_slots=2, settings=EngineSettings(max_waiting=50, parked_bytes=10**6))
    slow_to_copy(loop, seconds=1.0)
    ask(loop, 1, history("a"))
    ask(loop, 2, history("b"))
    loop.ask(3, "a stream>", max_tokens=100)
    loop.turn(3)
    assert [call for call in loop.runner.calls if call[0] == "save"]  # nobody was waiting then
    loop.runner.calls.clear()
    ask(loop, 4, history("c"))
    assert not [call for call in loop.runner.calls if call[0] == "save"]


def test_a_state_that_makes_no_sense_is_given_up_and_the_prompt_is_read() -> None:
    loop = loop_of()
    ask(loop, 1, history("a"))
    ask(loop, 2, history("b"))
    found = loop.engine.cache.parking.best_for(prefix(history("a") + "!"))
    assert found is not None
    found[0].state = found[0].state[:-1]
    assert ask(loop, 3, history("a")) == 0
    assert loop.text(3) == loop.text(1)


def test_a_continued_conversation_is_parked_once() -> None:
    loop = loop_of()
    text = history("a")
    for number in range(0, 6, 2):
        ask(loop, number, text)
        text += loop.text(number) + " go on>"
        ask(loop, number + 1, history("b"))
    assert len(loop.engine.cache.parking._tier) == 2


@pytest.mark.parametrize("can_cut", [True, False])
def test_parking_is_counted(can_cut: bool) -> None:
    before = counted(metrics.PREFIX_CACHE_HITS, "memory")
    loop = loop_of(can_cut=can_cut)
    ask(loop, 1, history("a"))
    ask(loop, 2, history("b"))
    assert metrics.PARKED_CONVERSATIONS.labels("memory")._value.get() == 1
    assert metrics.PARKED_BYTES.labels("memory")._value.get() > len(history("a"))
    ask(loop, 3, history("a") + loop.text(1) + "!")
    assert counted(metrics.PREFIX_CACHE_HITS, "memory") == before + 1


# --- models that cannot be cut --------------------------------------------------------------------


def test_a_model_that_cannot_be_cut_returns_to_where_the_last_message_ended() -> None:
    loop = loop_of(can_cut=False)
    first = "system" + END_SPELLING + history("user") + END_SPELLING
    ask(loop, 1, first + "assistant: <think></think>")
    again = first + "assistant: " + loop.text(1) + END_SPELLING + "user: and now?"
    assert ask(loop, 2, again) == len(loop.runner.tokenize(prompt(first)))
    assert loop.text(2) == alone(again, long_runner(), max_tokens=4)


def test_a_model_that_cannot_be_cut_goes_on_from_the_very_end() -> None:
    loop = loop_of(can_cut=False)
    ask(loop, 1, history("a"))
    turn = history("a") + loop.text(1)
    assert ask(loop, 2, turn + "!") == len(turn) - 1


def test_anchors_are_parked_with_a_conversation() -> None:
    loop = loop_of(can_cut=False)
    first = history("user") + END_SPELLING
    ask(loop, 1, first + "assistant: <think></think>")
    ask(loop, 2, history("b"))
    again = first + "assistant: " + loop.text(1) + END_SPELLING + "user: and now?"
    assert ask(loop, 3, again) == len(loop.runner.tokenize(prompt(first)))
    assert loop.text(3) == alone(again, long_runner(), max_tokens=4)


# --- what is whose --------------------------------------------------------------------------------


def test_a_parked_conversation_is_nobody_elses() -> None:
    loop = loop_of()
    ask(loop, 1, history("a"), cache_key="alice")
    ask(loop, 2, history("b"), cache_key="bob")
    assert ask(loop, 3, history("a"), cache_key="bob") == 0
    assert ask(loop, 4, history("a"), cache_key="alice") == len(history("a")) - 1


SYSTEM = "the operator's system prompt, which is the same for everybody. "


def test_a_declared_beginning_is_read_once_for_everybody() -> None:
    loop = loop_of(num_slots=8)
    for number in range(8):
        loop.ask(
            number,
            f"{SYSTEM}{number} asks>",
            max_tokens=4,
            cache_key=f"user {number}",
            shared_characters=len(SYSTEM),
        )
    loop.finish()
    assert [loop.done(n).usage.cached_tokens for n in range(8)].count(len(SYSTEM)) == 7
    for number in range(8):
        assert loop.text(number) == alone(f"{SYSTEM}{number} asks>", long_runner(), max_tokens=4)


def test_of_another_user_not_one_token_more_than_the_declared_is_reused() -> None:
    loop = loop_of(num_slots=4)
    same = f"{SYSTEM}the same secret>"
    shared = {"shared_characters": len(SYSTEM)}
    assert ask(loop, 1, same, cache_key="alice", **shared) == 0
    assert ask(loop, 2, same, cache_key="bob", **shared) == len(SYSTEM)
    assert ask(loop, 3, same, cache_key="bob", **shared) == len(same) - 1
    assert ask(loop, 4, same, cache_key="carol") == 0
    longer = {"shared_characters": len(SYSTEM) + 5}
    assert ask(loop, 5, same, cache_key="dave", **longer) == 0


def test_part_of_a_declared_beginning_is_not_shared() -> None:
    loop = loop_of(num_slots=2)
    ask(loop, 1, f"{SYSTEM}one>", cache_key="alice", shared_characters=len(SYSTEM))
    other = SYSTEM[:40] + "!" + SYSTEM[41:]
    assert ask(loop, 2, f"{other}two>", cache_key="bob", shared_characters=len(other)) == 0


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_token_of_another_user_is_ever_reused(data: st.DataObject) -> None:
    """Every order of users, prompts with much in common, turns in between, and cancellations.

    The fake's words depend on each token that its slot holds, so a wrong one would show; and what
    each user's requests found must lie within what that user, or a declared beginning, brought.
    """
    before = counted(metrics.CROSS_PRINCIPAL_HITS)
    loop = loop_of(num_slots=data.draw(st.integers(1, 3)))
    brought: dict[str, list[str]] = {"alice": [], "bob": [], "carol": []}
    asked: dict[int, tuple[str, str, int]] = {}
    for number in range(data.draw(st.integers(2, 8))):
        user = data.draw(st.sampled_from(sorted(brought)))
        body = data.draw(st.sampled_from(["x" * 70, "x" * 90 + "y" * 30, "y" * 100, user * 20]))
        shared = data.draw(st.sampled_from([0, len(SYSTEM)]))
        asked[number] = (user, SYSTEM + body + ">", shared)
        loop.ask(
            number, SYSTEM + body + ">", max_tokens=4, cache_key=user, shared_characters=shared
        )
        for _ in range(data.draw(st.integers(0, 6))):
            if not (loop.engine.inbox.empty() and loop.engine.scheduler.idle):
                loop.turn()
        if data.draw(st.integers(0, 5)) == 0:
            loop.cancel(number)
    loop.finish()
    for number, (user, text, shared) in asked.items():
        done = loop.done(number)
        own = [t for n, (u, t, _) in asked.items() if u == user and n != number]
        most = max((common(text, t) for t in own), default=0)
        assert done.usage.cached_tokens <= max(most, shared)
        assert alone(text, long_runner(), max_tokens=4).startswith(loop.text(number))
    assert counted(metrics.CROSS_PRINCIPAL_HITS) == before


def test_a_reuse_that_must_not_be_is_caught_when_it_is_about_to_happen_and_counted() -> None:
    before = counted(metrics.CROSS_PRINCIPAL_HITS)
    loop = loop_of(num_slots=2)
    ask(loop, 1, history("a"), cache_key="alice")
    loop.ask(2, history("a"), cache_key="bob", max_tokens=4)
    loop.turn()
    (sequence,) = loop.engine.scheduler.running
    wrong = Placement(sequence.lane, loop.engine.slots[0], 100)
    assert wrong.source.cache_key == "alice"
    loop.engine._residency.prepare(wrong, sequence)
    assert sequence.lane.num_tokens == 0
    assert counted(metrics.CROSS_PRINCIPAL_HITS) == before + 100
    assert ("fork", 0, 1, 100) not in loop.runner.calls


def common(one: str, other: str) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))


# --- budgets --------------------------------------------------------------------------------------


class Thing:
    def __init__(self, size: int, seconds: float) -> None:
        self.size, self.seconds, self.rank = size, seconds, 0.0


def test_what_was_not_used_for_longest_goes_first() -> None:
    tier: Tier[Thing] = Tier(3)
    one, two, three, four = (Thing(1, 1.0) for _ in range(4))
    for thing in (one, two, three):
        assert tier.add(thing) == []
    assert tier.add(four) == [one]
    tier.use(two)
    assert tier.add(Thing(1, 1.0)) == [three]


def test_what_saves_more_for_its_size_stays_longer() -> None:
    tier: Tier[Thing] = Tier(3)
    dear = Thing(1, 5.0)
    tier.add(dear)
    for _ in range(5):
        tier.add(Thing(1, 1.0))
    assert any(thing is dear for thing in tier)


def test_what_is_larger_than_the_budget_is_not_kept() -> None:
    tier: Tier[Thing] = Tier(3)
    large = Thing(4, 100.0)
    assert tier.add(large) == [large]
    assert (len(tier), tier.size) == (0, 0)


# --- inside ---------------------------------------------------------------------------------------


def long_runner() -> FakeRunner:
    return FakeRunner(1, LONG, max_batch_tokens=64, max_prompt_bytes=LONG)


def prompt(text: str) -> Prompt:
    return (PromptPiece(text, trusted=True),)


def prefix(text: str) -> Prefix:
    return Prefix(np.frombuffer(text.encode(), np.uint8).astype(np.int32), "")


def slow_to_copy(loop: Loop, seconds: float) -> None:
    """From the first copy on, each takes that long."""
    save = loop.runner.save

    def slow(slot: int) -> State:
        loop.clock.now += seconds
        return save(slot)

    loop.runner.save = slow  # type: ignore[method-assign]
