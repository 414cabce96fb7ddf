from __future__ import annotations

import itertools

import pytest
from prometheus_client import Counter

from service import metrics
from service.domain.events import FinishReason
from service.domain.sampling import Sampling
from service.engine.engine import EXIT_BROKEN, EXIT_DRAINED
from service.engine.order.cost import CallCost
from service.engine.runner import RunnerError
from service.ipc.messages import Cancel, Step
from service.settings import EngineSettings
from tests.fakes.loop import Loop, alone
from tests.fakes.runner import FakeRunner, says


def test_a_prompt_is_answered_until_the_model_says_the_end() -> None:
    loop = Loop(FakeRunner(following=says("hello")))
    loop.ask(1, "hi>")
    loop.finish()
    assert loop.text(1) == "hello"
    done = loop.done(1)
    assert done.reason is FinishReason.STOP
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (3, 6)
    assert loop.accepted(1).prompt_tokens == 3


def test_the_first_token_follows_from_the_call_that_ends_the_prompt() -> None:
    loop = Loop(FakeRunner(following=says("a")))
    loop.ask(1, "hi>")
    loop.finish()
    assert loop.runner.calls == [("prefill", 0, 3), ("decode", 0)]


def test_max_tokens_ends_an_answer() -> None:
    loop = Loop()
    loop.ask(1, "hi>", max_tokens=3)
    loop.finish()
    done = loop.done(1)
    assert (done.reason, done.usage.completion_tokens) == (FinishReason.LENGTH, 3)
    assert len(loop.text(1)) == 3


def test_a_full_slot_ends_an_answer() -> None:
    loop = Loop(FakeRunner(slot_length=20))
    loop.ask(1, "hi>", max_tokens=1000)
    loop.finish()
    done = loop.done(1)
    assert (done.reason, done.usage.total_tokens) == (FinishReason.LENGTH, 20)


def test_a_prompt_that_leaves_room_for_one_token_gets_one() -> None:
    loop = Loop(FakeRunner(slot_length=20))
    loop.ask(1, "x" * 19)
    loop.finish()
    assert (loop.done(1).reason, len(loop.text(1))) == (FinishReason.LENGTH, 1)


def test_a_prompt_over_the_context_is_refused_with_the_numbers() -> None:
    loop = Loop(FakeRunner(slot_length=20))
    loop.ask(1, "x" * 20)
    loop.finish()
    refused = loop.refused(1)
    assert refused.code == "context_length_exceeded"
    assert "20 tokens" in refused.message
    assert "at most 19" in refused.message


def test_bad_requests_are_refused_with_the_sentence_of_whoever_noticed() -> None:
    loop = Loop(FakeRunner(max_prompt_bytes=10))
    loop.ask(1, "x" * 11)
    loop.ask(2, "")
    loop.ask(3, "x", sampling=Sampling(logit_bias={1_000_000: 1.0}))
    loop.finish()
    assert {loop.refused(i).code for i in (1, 2, 3)} == {"invalid_request"}
    assert "11 bytes" in loop.refused(1).message


def test_streams_that_run_together_each_say_what_they_say_alone() -> None:
    prompts = ["one>", "one and two>", "three" * 6, "one>", "other" * 5, "x", "yy", "one an"]
    loop = Loop()
    loop.engine.scheduler.max_waiting = 8
    for number, prompt in enumerate(prompts):
        loop.ask(number, prompt, max_tokens=12 + number)
        loop.turn(2)
    loop.finish()
    assert [loop.text(i) for i in range(8)] == [
        alone(prompt, max_tokens=12 + i) for i, prompt in enumerate(prompts)
    ]


def test_all_streams_of_a_step_travel_in_one_frame_per_worker() -> None:
    loop = Loop()
    loop.engine.scheduler.max_waiting = 8
    for number, connection in ((1, 1), (2, 1), (3, 2)):
        loop.ask(number, "hi>" * number, connection, max_tokens=50)
    loop.until(lambda: len(loop.engine.scheduler.generating()) == 3)
    loop.outbox.frames.clear()
    loop.turn()
    steps = [(c, [d.id for d in f.deltas]) for c, f in loop.outbox.frames if isinstance(f, Step)]
    assert sorted(steps) == [(1, [1, 2]), (2, [3])]


def test_a_running_stream_gets_a_token_between_any_two_bites_of_a_long_prompt() -> None:
    loop = Loop(FakeRunner(max_batch_tokens=16, slot_length=200))
    loop.ask(1, "hi>")
    loop.turn(3)
    loop.runner.calls.clear()
    loop.ask(2, "x" * 100)
    loop.until(lambda: len(loop.engine.scheduler.generating()) == 2)
    kinds = [call[0] for call in loop.runner.calls]
    assert kinds.count("prefill") > 5
    assert not any(a == b == "prefill" for a, b in itertools.pairwise(kinds))


def test_more_requests_than_slots_wait_and_all_are_answered() -> None:
    loop = Loop(FakeRunner(num_slots=2), EngineSettings(max_waiting=10))
    for number in range(6):
        loop.ask(number, f"prompt {number}>", max_tokens=5)
    loop.finish()
    assert [loop.accepted(i).num_waiting for i in range(6)] == [0, 0, 0, 1, 2, 3]
    assert all(loop.done(i).usage.completion_tokens == 5 for i in range(6))


def test_a_request_over_the_queue_is_refused_with_a_time_to_come_back() -> None:
    loop = Loop(FakeRunner(num_slots=1), EngineSettings(max_waiting=1))
    for number in range(3):
        loop.ask(number, "hi>", max_tokens=5)
    loop.finish()
    refused = loop.refused(2)
    assert refused.code == "queue_full"
    assert refused.retry_after_seconds is not None
    assert refused.retry_after_seconds >= 1
    assert all(sampler.closed for sampler in loop.runner.samplers)


# --- the prefix cache ---------------------------------------------------------------------------


def test_a_follow_up_reads_only_what_is_new() -> None:
    loop = Loop()
    loop.ask(1, "first question>", max_tokens=8)
    loop.finish()
    history = "first question>" + loop.text(1)
    loop.runner.calls.clear()
    loop.ask(2, history + "and then?>", max_tokens=8)
    loop.finish()
    # The last token that was sampled was never read by the model.
    assert loop.done(2).usage.cached_tokens == len(history) - 1
    assert loop.runner.calls[0] == ("prefill", 0, 1 + len("and then?>"))
    assert loop.text(2) == alone(history + "and then?>", max_tokens=8)


def test_the_same_prompt_again_is_decoded_at_once() -> None:
    loop = Loop()
    for number in (1, 2):
        loop.ask(number, "same prompt>", max_tokens=4)
        loop.finish()
    assert loop.text(1) == loop.text(2)
    assert loop.done(2).usage.cached_tokens == len("same prompt>") - 1


def test_nothing_is_reused_under_another_cache_key() -> None:
    before = sample(metrics.CROSS_PRINCIPAL_HITS)
    loop = Loop(FakeRunner(num_slots=1))
    for number, key in ((1, "alice"), (2, "bob"), (3, "bob")):
        loop.ask(number, "the same secret prompt>", max_tokens=4, cache_key=key)
        loop.finish()
    assert [loop.done(i).usage.cached_tokens for i in (1, 2, 3)] == [0, 0, 22]
    assert sample(metrics.CROSS_PRINCIPAL_HITS) == before
    assert loop.text(1) == loop.text(2)


def test_a_common_beginning_is_forked_from_a_stream_that_still_runs() -> None:
    loop = Loop()
    loop.ask(1, "a long common system prompt. one>", max_tokens=20)
    loop.turn(4)
    loop.ask(2, "a long common system prompt. two>", max_tokens=10)
    loop.finish()
    common = len("a long common system prompt. ")
    assert ("fork", 0, 1, common) in loop.runner.calls
    assert loop.done(2).usage.cached_tokens == common
    assert loop.text(1) == alone("a long common system prompt. one>", max_tokens=20)
    assert loop.text(2) == alone("a long common system prompt. two>", max_tokens=10)


def test_equal_prompts_that_come_together_are_read_once() -> None:
    loop = Loop()
    for number in range(4):
        loop.ask(number, f"a long common system prompt. {number}>", max_tokens=6)
    loop.finish()
    read = sum(int(str(call[2])) for call in loop.runner.calls if call[0] == "prefill")
    assert read == len("a long common system prompt. 0>") + 3 * len("0>")
    for number in range(4):
        assert loop.text(number) == alone(f"a long common system prompt. {number}>", max_tokens=6)


def test_holes_are_padded_and_the_conversation_there_survives() -> None:
    loop = Loop(FakeRunner(slot_length=100))
    loop.engine.cost.decode = cheap_rows()
    for number in (1, 2, 3):
        loop.ask(number, f"{number} prompt>", max_tokens=30 if number != 2 else 5)
    loop.until(lambda: bool(loop.dones(2)))
    loop.engine.cost.decode = cheap_rows()
    held = list(loop.runner.slots[1])
    loop.runner.calls.clear()
    loop.turn()
    assert loop.runner.calls == [("decode", 0, 1, 2)]
    assert loop.runner.slots[1] == held
    loop.finish()
    assert loop.text(3) == alone("3 prompt>", max_tokens=30)


# --- stop strings and text ----------------------------------------------------------------------


def test_a_stop_string_ends_an_answer_and_is_not_part_of_it() -> None:
    loop = Loop(FakeRunner(following=says("one two STOP three")))
    loop.ask(1, "hi>", stop=("STOP",))
    loop.finish()
    done = loop.done(1)
    assert (loop.text(1), done.reason, done.stop_sequence) == (
        "one two ",
        FinishReason.STOP,
        "STOP",
    )


def test_text_held_back_for_a_stop_string_comes_out_at_the_end() -> None:
    loop = Loop(FakeRunner(following=says("one STO")))
    loop.ask(1, "hi>", stop=("STOP",))
    loop.finish()
    assert (loop.text(1), loop.done(1).stop_sequence) == ("one STO", None)


def test_characters_of_several_tokens_arrive_whole() -> None:
    loop = Loop(FakeRunner(following=says("é漢👍!")))
    loop.ask(1, "hi>")
    loop.finish()
    deltas = [(d.text, d.num_tokens) for d in loop.deltas(1)]
    assert deltas == [("é", 2), ("漢", 3), ("👍", 4), ("!", 1)]


# --- cancelling ---------------------------------------------------------------------------------


def test_cancelling_in_the_queue_lets_the_others_move_up() -> None:
    before = sample(metrics.REQUESTS_CANCELLED, stage="queued")
    loop = Loop(FakeRunner(num_slots=1))
    for number in (1, 2, 3):
        loop.ask(number, "hi>", max_tokens=5)
    loop.turn()
    loop.cancel(2)
    loop.finish()
    assert loop.done(2).reason is FinishReason.CANCELLED
    assert loop.done(3).reason is FinishReason.LENGTH
    assert sample(metrics.REQUESTS_CANCELLED, stage="queued") == before + 1
    assert all(sampler.closed for sampler in loop.runner.samplers)


def test_cancelling_while_a_prompt_is_read_cuts_the_call_short_and_keeps_what_was_read() -> None:
    before = sample(metrics.REQUESTS_CANCELLED, stage="prefill")
    loop = Loop()
    prompt = "a prompt of more than sixteen tokens>"
    loop.runner.during_prefill = lambda: loop.intake.received(1, Cancel(1))
    loop.ask(1, prompt)
    loop.finish()
    assert loop.runner.calls == [("prefill", 0, 16)]
    assert loop.done(1).reason is FinishReason.CANCELLED
    assert sample(metrics.REQUESTS_CANCELLED, stage="prefill") == before + 1
    assert len(loop.runner.slots[0]) == 1  # as far as the call came
    loop.runner.during_prefill = lambda: None
    loop.ask(2, prompt, max_tokens=5)
    loop.finish()
    assert loop.done(2).usage.cached_tokens == 1
    assert loop.text(2) == alone(prompt, max_tokens=5)


def test_cancelling_one_stream_leaves_the_others_as_they_were() -> None:
    before = sample(metrics.REQUESTS_CANCELLED, stage="decode")
    loop = Loop()
    for number in (1, 2):
        loop.ask(number, f"hi {number}>", max_tokens=20)
    loop.until(lambda: len(loop.text(2)) > 4)
    loop.cancel(1)
    loop.finish()
    done = loop.done(1)
    assert done.reason is FinishReason.CANCELLED
    assert 0 < done.usage.completion_tokens < 20
    assert sample(metrics.REQUESTS_CANCELLED, stage="decode") == before + 1
    assert loop.text(2) == alone("hi 2>", max_tokens=20)


def test_a_cancelled_stream_leaves_its_tokens_as_cache() -> None:
    loop = Loop()
    loop.ask(1, "hello there>")
    loop.until(lambda: len(loop.text(1)) == 6)
    loop.cancel(1)
    loop.ask(2, "hello there>" + loop.text(1)[:5] + "!", max_tokens=4)
    loop.finish()
    assert loop.done(2).usage.cached_tokens == len("hello there>") + 5


def test_cancelling_while_the_prompt_is_with_the_tokenizer_works() -> None:
    before = sample(metrics.REQUESTS_CANCELLED, stage="tokenizing")
    loop = Loop()
    loop.ask(2, "hi>", max_tokens=3)  # keeps the loop from waiting
    job = loop.arrive(1, "hello>")
    loop.cancel(1)
    loop.turn()
    assert job.cancelled
    assert loop.done(1).reason is FinishReason.CANCELLED
    loop.tokenized(job)
    loop.finish()
    assert len(loop.dones(1)) == 1
    assert sample(metrics.REQUESTS_CANCELLED, stage="tokenizing") == before + 1
    assert len(loop.runner.samplers) == 1


def test_an_abort_that_comes_too_late_harms_nobody() -> None:
    loop = Loop()
    for number in (1, 2):
        loop.ask(number, f"hi {number}>", max_tokens=9)
    loop.until(lambda: len(loop.engine.scheduler.generating()) == 2)
    loop.runner.during_decode = loop.runner.abort
    loop.turn()
    loop.runner.during_decode = lambda: None
    loop.finish()
    assert [loop.text(i) for i in (1, 2)] == [alone(f"hi {i}>", max_tokens=9) for i in (1, 2)]


def test_a_worker_that_goes_away_takes_all_its_requests_with_it() -> None:
    loop = Loop(FakeRunner(num_slots=2), EngineSettings(max_waiting=8))
    for number in (1, 2, 3):
        loop.ask(number, "hi>")
    loop.ask(4, "hello>", connection=2, max_tokens=5)
    loop.turn(3)
    loop.intake.disconnected(1)
    loop.finish()
    assert [loop.done(i).reason for i in (1, 2, 3)] == [FinishReason.CANCELLED] * 3
    assert loop.done(4, connection=2).reason is FinishReason.LENGTH
    assert loop.engine.slots.num_free == 2


# --- what breaks --------------------------------------------------------------------------------


def test_a_refused_batch_fails_its_own_sequences_only() -> None:
    loop = Loop(FakeRunner(num_slots=2))
    for number in (1, 2):
        loop.ask(number, f"hi {number}>", max_tokens=5)
    loop.ask(3, "later>", max_tokens=5)
    loop.until(lambda: len(loop.engine.scheduler.generating()) == 2)
    loop.runner.broken = RunnerError("no room")
    loop.finish()
    assert [loop.done(i).error_code for i in (1, 2, 3)] == ["generation_failed"] * 2 + [None]
    assert loop.text(3) == alone("later>", max_tokens=5)


def test_slots_of_a_refused_batch_are_not_trusted_again() -> None:
    loop = Loop()
    loop.ask(1, "hello there>")
    loop.turn(4)
    loop.runner.broken = RunnerError("no room")
    loop.finish()
    loop.ask(2, "hello there>", max_tokens=5)
    loop.finish()
    assert loop.done(2).usage.cached_tokens == 0


@pytest.mark.parametrize(
    "broken", [RunnerError("lost the device", fatal=True), ZeroDivisionError()]
)
def test_a_broken_engine_tells_everybody_and_ends(broken: RunnerError) -> None:
    loop = Loop(FakeRunner(num_slots=1))
    loop.ask(1, "hi>")
    loop.ask(2, "hi>")
    loop.arrive(3, "hi>")
    loop.turn(2)
    loop.runner.broken = broken
    assert loop.engine.run() == EXIT_BROKEN
    assert [loop.done(i).error_code for i in (1, 2)] == ["generation_failed"] * 2
    assert loop.refused(3).code == "generation_failed"


# --- going down ---------------------------------------------------------------------------------


def test_a_drained_engine_has_finished_what_it_had_and_refuses_the_rest() -> None:
    loop = Loop(FakeRunner(num_slots=1))
    for number in (1, 2):
        loop.ask(number, "hi>", max_tokens=5)
    loop.intake.drain(deadline=loop.clock() + 27)
    assert loop.engine.run() == EXIT_DRAINED
    assert [loop.done(i).reason for i in (1, 2)] == [FinishReason.LENGTH] * 2
    loop.intake.received(1, loop.submit(3, "hi>"))
    assert loop.refused(3).code == "engine_unavailable"


def test_at_the_deadline_what_still_runs_is_ended_with_all_its_text() -> None:
    loop = Loop(FakeRunner(num_slots=1, following=says("0123456789" * 9)))
    loop.ask(1, "hi>", stop=("34!",))
    loop.ask(2, "hi>")
    loop.until(lambda: loop.text(1) == "012")
    loop.intake.drain(deadline=loop.clock() + 27)
    loop.turn()
    loop.clock.now += 27
    assert loop.engine.run() == EXIT_DRAINED
    assert loop.text(1) == "0123"
    assert [loop.done(i).reason for i in (1, 2)] == [FinishReason.SHUTDOWN] * 2


# --- what is counted ----------------------------------------------------------------------------


def test_the_time_of_a_request_is_told_in_its_parts() -> None:
    loop = Loop(FakeRunner(num_slots=1))

    def second() -> None:
        loop.clock.now += 1

    loop.runner.during_decode = loop.runner.during_prefill = second
    loop.ask(1, "hi>", max_tokens=4)
    loop.ask(2, "ho>", max_tokens=3)
    loop.finish()
    first, other = loop.done(1).timings, loop.done(2).timings
    assert (first.queue_seconds, first.prefill_seconds, first.decode_seconds) == (0, 1, 3)
    assert (other.queue_seconds, other.prefill_seconds, other.decode_seconds) == (4, 1, 2)


def test_tokens_are_counted_where_dashboards_look() -> None:
    def counts() -> list[float]:
        return [
            sample(metrics.GENERATED_TOKENS, model="fake"),
            sample(metrics.LLAMACPP_TOKENS_PREDICTED),
            sample(metrics.PROMPT_TOKENS, model="fake", cached="false"),
            sample(metrics.PROMPT_TOKENS, model="fake", cached="true"),
            sample(metrics.REQUESTS_FINISHED, model="fake", reason="length"),
        ]

    before = counts()
    loop = Loop()
    for number in (1, 2):
        loop.ask(number, "hello>", max_tokens=4)
        loop.finish()
    assert [a - b for a, b in zip(counts(), before, strict=True)] == [8, 8, 7, 5, 2]


def test_the_rate_of_tokens_falls_to_nothing_when_nothing_happens() -> None:
    loop = Loop()
    loop.ask(1, "hello>", max_tokens=20)
    loop.finish()
    gauge = metrics.TOKENS_PER_SECOND.labels("fake")
    loop.engine.gauges.tick(loop.clock.now + 1)
    assert gauge._value.get() == 2.0
    loop.engine.gauges.tick(loop.clock.now + 11)
    assert gauge._value.get() == 0.0


def cheap_rows() -> CallCost:
    """A machine on which calls cost much and rows little."""
    cost = CallCost()
    for rows in (1, 2, 3, 4):
        cost.observe(rows, 1 + rows / 1000)
    return cost


def sample(counter: Counter, **labels: str) -> float:
    """The value of a counter that has these labels."""
    (family,) = counter.collect()
    return sum(s.value for s in family.samples if s.name.endswith("_total") and s.labels == labels)
