"""Constraints on the fake model, whose tokens are bytes, through the engine's own loop."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from service.domain.constraint import Constraint, ConstraintKind
from service.domain.errors import InvalidRequest
from service.domain.events import FinishReason
from service.engine.grammar.compiler import MAX_BACKLOG, Compiler
from service.engine.inbox import Inbox, Tokenized
from service.engine.runner import DeadEnd, Matcher
from service.engine.sequence import Job
from tests.fakes.alphabet import END, NAMED
from tests.fakes.loop import Loop, submit
from tests.fakes.runner import GRAMMARS, FakeRunner, says

SCHEMA = ConstraintKind.JSON_SCHEMA
(TOOL_CALL,) = set(NAMED) - {END}


def matcher(kind: ConstraintKind, source: str, after: str = "") -> Matcher:
    return GRAMMARS.create_matcher(Constraint(kind, source, after))


def accepts(kind: ConstraintKind, source: str, text: str) -> bool:
    """Whether `text`, and then the end, may be written."""
    held = matcher(kind, source)
    for token_id in text.encode():
        if not held.validate(token_id):
            return False
        held.consume(token_id)
    return held.validate(END)


def answer(text: str, kind: ConstraintKind, source: str, **options: Any) -> Loop:
    """What comes of a model that wants to say `text` and is held to a constraint."""
    loop = Loop(FakeRunner(following=says(text)))
    loop.ask(1, "question>", constraint=Constraint(kind, source), **options)
    loop.finish()
    return loop


@pytest.mark.parametrize(
    ("kind", "source", "good", "bad"),
    [
        (SCHEMA, '{"type": "object"}', '{"a": {\n  "b": [1, 2.5, null]}}', "[1]"),
        (SCHEMA, "true", "[1]", "1]"),
        (SCHEMA, '{"enum": ["é", 2]}', '"é"', '"e"'),
        (SCHEMA, '{"$schema": "x", "$id": "http://x/y", "type": "null"}', "null", "1"),
        (ConstraintKind.REGEX, r"\d{4}-[a-c]+", "2026-abc", "26-abc"),
        (ConstraintKind.REGEX, "^(ja|nein)$", "nein", "neinn"),
        (ConstraintKind.LARK, 'start: "a" B*\nB: /[0-9]/ "x"', "a1x2x", "a1"),
        (ConstraintKind.GBNF, 'root ::= item+\nitem ::= "- " [^\\n]+ "\\n"', "- é\n- b\n", "-é\n"),
        (ConstraintKind.CHOICE, '["yes", "no \\"way\\"", "日本"]', 'no "way"', "no"),
        (ConstraintKind.CHOICE, '["yes", "no \\"way\\"", "日本"]', "日本", "日"),
    ],
)
def test_each_kind_of_constraint_allows_what_it_says_and_nothing_else(
    kind: ConstraintKind, source: str, good: str, bad: str
) -> None:
    assert accepts(kind, source, good)
    assert not accepts(kind, source, bad)


@pytest.mark.parametrize(
    ("kind", "source", "sentence"),
    [
        (SCHEMA, '{"not": {}}', "The JSON schema uses not, which is not supported."),
        (SCHEMA, '{"items": {"if": {}, "then": {}}}', "uses if, then, which is not supported."),
        (SCHEMA, '{"uniqueItems": true}', "uses uniqueItems, which is not supported."),
        (SCHEMA, '{"x-guidance": {"lenient": true}}', "uses x-guidance, which is not supported."),
        (SCHEMA, '{"type": "string", "format": "tea"}', "can't be followed: Unknown format: tea."),
        (SCHEMA, '{"$ref": "http://127.0.0.1:9/x"}', "is not present in a registry"),
        (SCHEMA, '{"$ref": "#"}', "can't be followed: nothing satisfies it."),
        (SCHEMA, '{"type": "integer", "minimum": 5, "maximum": 3}', "Unsatisfiable schema"),
        (SCHEMA, '{"type": ', "The JSON schema is not JSON: "),
        (SCHEMA, "[1]", "The JSON schema must be an object or true."),
        (SCHEMA, "false", "The JSON schema must be an object or true."),
        (ConstraintKind.REGEX, "a(", "The regular expression can't be followed: unclosed group."),
        (ConstraintKind.REGEX, "(?=a)b", "look-around"),
        (ConstraintKind.LARK, "start: <nope>", 'unknown special token: "<nope>"'),
        (ConstraintKind.GBNF, 'root ::= "a', "The GBNF grammar can't be followed: "),
        (ConstraintKind.CHOICE, "[]", "has 0 entries; it must have 1 to 1024."),
        (ConstraintKind.CHOICE, '[["a"]]', "must be a JSON array of strings."),
    ],
)
def test_what_cannot_be_held_to_is_refused_with_its_reason(
    kind: ConstraintKind, source: str, sentence: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        matcher(kind, source)
    assert sentence in refused.value.message


def test_an_answer_keeps_to_its_constraint_whatever_the_model_wants() -> None:
    loop = answer("nonsense", ConstraintKind.CHOICE, '["yes", "no"]')
    assert loop.text(1) == "no"
    assert loop.done(1).reason is FinishReason.STOP


def test_an_answer_is_over_when_its_grammar_is() -> None:
    loop = answer("12345 and more", ConstraintKind.REGEX, "[0-9]{3}")
    assert loop.text(1) == "123"
    assert loop.done(1).reason is FinishReason.STOP


def test_max_tokens_cuts_an_answer_that_is_not_complete() -> None:
    loop = answer("12345", ConstraintKind.REGEX, "[0-9]{5}", max_tokens=2)
    assert loop.text(1) == "12"
    assert loop.done(1).reason is FinishReason.LENGTH


def test_stop_strings_end_a_constrained_answer_too() -> None:
    loop = answer("12345", ConstraintKind.REGEX, "[0-9]{5}", stop=("34",))
    assert loop.text(1) == "12"
    assert loop.done(1).stop_sequence == "34"


def test_a_constraint_begins_behind_the_thought() -> None:
    runner = FakeRunner(following=says("what if </think>\n\nyes, of course", after="?"))
    loop = Loop(runner)
    held = Constraint(ConstraintKind.CHOICE, '["yes", "no"]', after="</think>")
    loop.ask(1, "question?", constraint=held)
    loop.finish()
    assert loop.text(1) == "what if </think>\n\nyes"


def test_a_thought_cannot_end_the_answer() -> None:
    held = matcher(ConstraintKind.CHOICE, '["yes"]', after="</think>")
    assert not held.validate(END)
    assert not held.allowed()[END]
    assert held.allowed()[: ord("z")].all()


def test_a_grammar_may_ask_for_tokens_that_are_no_text() -> None:
    held = matcher(ConstraintKind.LARK, 'start: /[a-z ]*/ <tool_call> "{}"')
    for token_id in b"let me see ":
        held.consume(token_id)
    assert held.validate(TOOL_CALL)
    assert not held.validate(ord("<"))
    held.consume(TOOL_CALL)
    assert held.forced() == list(b"{}")
    assert held.allowed().nonzero()[0].tolist() == [ord("{")]


def test_a_fork_goes_its_own_way() -> None:
    held = matcher(ConstraintKind.CHOICE, '["ab", "ac"]')
    held.consume(ord("a"))
    other = held.fork()
    held.consume(ord("b"))
    assert other.validate(ord("c"))
    assert held.validate(END)


def test_a_dead_end_fails_one_answer_and_no_other() -> None:
    loop = Loop(FakeRunner(following=says("x" * 20)))
    # No two sentences: what follows the first x can't be told apart in time.
    stuck = Constraint(ConstraintKind.LARK, 'start: ("x" "y"){1000000} | "x"{3} a\na: a "z"')
    loop.ask(1, "question>", constraint=stuck)
    loop.ask(2, "question>", max_tokens=10)
    loop.finish()
    done = loop.done(1)
    assert done.error_code == "generation_failed"
    assert "the constraint can't be followed any further" in done.error_message
    assert loop.text(2) == "x" * 10
    loop.ask(3, "question>", max_tokens=3)
    loop.finish()
    assert loop.text(3) == "xxx"


def test_a_matcher_that_is_used_against_its_word_raises_a_dead_end() -> None:
    held = matcher(ConstraintKind.CHOICE, '["ab"]')
    with pytest.raises(DeadEnd):
        held.consume(ord("z"))


def test_a_schema_that_cannot_be_followed_is_refused_before_the_request_is_accepted() -> None:
    loop = Loop()
    loop.ask(1, "question", constraint=Constraint(SCHEMA, '{"contains": {}}'))
    loop.turn()
    assert loop.refused(1).code == "invalid_request"
    assert "contains" in loop.refused(1).message


def tokenized(constraint: Constraint | None) -> Tokenized:
    return Tokenized(Job(1, submit(1, "hi", constraint=constraint), arrived=0.0), [1])


def test_the_compiler_lets_pass_what_has_no_constraint() -> None:
    inbox = Inbox()
    Compiler(GRAMMARS.create_matcher, inbox).put(tokenized(None))
    command = inbox.get_nowait()
    assert isinstance(command, Tokenized)
    assert (command.matcher, command.error) == (None, None)


def test_the_compiler_survives_what_it_refuses() -> None:
    inbox = Inbox()
    compiler = Compiler(GRAMMARS.create_matcher, inbox)
    compiler.put(tokenized(Constraint(SCHEMA, "{")))
    compiler.put(tokenized(Constraint(SCHEMA, "{}")))
    compiler.stop()
    thread = compiler.start()
    thread.join(timeout=120)
    refused, compiled = inbox.get_nowait(), inbox.get_nowait()
    assert isinstance(refused, Tokenized)
    assert isinstance(compiled, Tokenized)
    assert refused.error is not None
    assert compiled.matcher is not None


def test_only_so_many_grammars_may_wait() -> None:
    inbox, release = Inbox(), threading.Event()
    compiler = Compiler(lambda _: matcher(SCHEMA, "{}"), inbox)
    for _ in range(MAX_BACKLOG + 1):
        compiler.put(tokenized(Constraint(SCHEMA, "{}")))
    release.set()
    command = inbox.get_nowait()
    assert isinstance(command, Tokenized)
    assert command.error is not None
    assert command.error.code == "queue_full"


def test_white_space_in_json_is_bounded() -> None:
    assert accepts(SCHEMA, "{}", json.dumps({"a": [1, {"b": 2}]}, indent=4))
    assert accepts(SCHEMA, "{}", '{"a": 1}')
    assert not accepts(SCHEMA, "{}", '{"a":  1}')
    assert not accepts(SCHEMA, "{}", '{\n\n"a":1}')
