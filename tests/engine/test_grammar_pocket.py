"""Constraints on Pocket, a real model that is far too small to keep to a schema by itself."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher

from service.domain.chat import PromptPiece
from service.domain.constraint import Constraint, ConstraintKind
from service.domain.errors import InvalidRequest
from service.domain.sampling import Sampling
from service.engine.grammar.trial import Trial
from service.engine.llama import LlamaRunner
from service.engine.runner import DeadEnd, DecodeRow, PrefillPart
from tests.engine.yardstick import slowness

pytestmark = pytest.mark.model

SCHEMA = ConstraintKind.JSON_SCHEMA
ROOM = 400


def write(
    runner: LlamaRunner, constraint: Constraint, question: str, sampling: Sampling
) -> tuple[str, bool]:
    """The answer, and whether it came to its end within `ROOM` tokens."""
    prompt = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    token_ids = runner.tokenize((PromptPiece(prompt, trusted=True),))
    sampler = runner.create_sampler(sampling, token_ids, runner.create_matcher(constraint))
    runner.trim(0, 0)
    runner.prefill([PrefillPart(0, 0, token_ids[:-1])])
    answer = bytearray()
    for _ in range(ROOM):
        runner.decode([DecodeRow(0, len(token_ids) - 1, token_ids[-1])])
        token_ids.append(sampler.sample(0))
        if runner.is_end(token_ids[-1]):
            return answer.decode(), True
        answer += runner.piece(token_ids[-1])
    return answer.decode("utf-8", "ignore"), False


def assert_follows(runner: LlamaRunner, schema: Any, seed: int, temperature: float = 1.0) -> None:
    """What is complete satisfies the schema; what was cut is the beginning of something."""
    constraint = Constraint(SCHEMA, json.dumps(schema))
    text, complete = write(
        runner, constraint, "Tell me about cats.", Sampling(temperature=temperature, seed=seed)
    )
    if complete:
        jsonschema.validate(json.loads(text), schema)
    else:
        assert text


SCALARS = st.sampled_from(
    [
        {"type": "string", "maxLength": 12},
        {"type": "integer"},
        {"type": "integer", "minimum": -5, "maximum": 70},
        {"type": "number", "exclusiveMinimum": 0, "maximum": 1.5},
        {"type": "boolean"},
        {"type": "null"},
        {"enum": ["rouge", "grün", "青", 7, None]},
        {"const": 'né\n"quoted"'},
        {"type": "string", "pattern": "^[A-Z][a-z]{2,5}$"},
        {"type": "string", "format": "date"},
        {"type": ["string", "null"], "maxLength": 5},
    ]
)


def _grown(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.lists(
        st.sampled_from(["name", "âge", "naïve key", "x", "値"]),
        min_size=1,
        max_size=3,
        unique=True,
    )
    objects = names.flatmap(
        lambda keys: st.tuples(*(inner for _ in keys)).map(
            lambda values: {
                "type": "object",
                "properties": dict(zip(keys, values, strict=True)),
                "required": keys[:2],
                "additionalProperties": False,
            }
        )
    )
    arrays = st.builds(
        lambda items, least: {"type": "array", "items": items, "minItems": least, "maxItems": 3},
        inner,
        st.integers(0, 2),
    )
    unions = st.lists(inner, min_size=2, max_size=3).map(lambda options: {"anyOf": options})
    return st.one_of(objects, arrays, unions)


@given(schema=st.recursive(SCALARS, _grown, max_leaves=5), seed=st.integers(0, 1000))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_is_written_to_a_schema_satisfies_it(
    pocket: LlamaRunner, schema: Any, seed: int
) -> None:
    assert_follows(pocket, schema, seed)


@pytest.mark.parametrize("temperature", [0.0, 0.7, 2.0])
def test_any_object_is_an_object(pocket: LlamaRunner, temperature: float) -> None:
    assert_follows(pocket, {"type": "object"}, 5, temperature)


def test_schemas_may_refer_to_themselves(pocket: LlamaRunner) -> None:
    tree = {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "value": {"type": "integer"},
                    "children": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2},
                },
                "required": ["value", "children"],
                "additionalProperties": False,
            }
        },
        "$ref": "#/$defs/node",
    }
    for seed in range(3):
        assert_follows(pocket, tree, seed)


@pytest.mark.parametrize(
    ("kind", "source", "pattern"),
    [
        (ConstraintKind.REGEX, r"[0-9]{3}-[0-9]{4}", r"\d{3}-\d{4}"),
        (ConstraintKind.CHOICE, '["positive", "negative", "négatif"]', "positive|negative|négatif"),
        (
            ConstraintKind.GBNF,
            'root ::= "[" digits ("," digits){2} "]"\ndigits ::= [1-9] [0-9]?',
            r"\[[1-9]\d?(,[1-9]\d?){2}\]",
        ),
        (ConstraintKind.LARK, 'start: "<" /[a-f]{4}/ ">"', "<[a-f]{4}>"),
    ],
)
def test_other_kinds_are_kept_to_as_well(
    pocket: LlamaRunner, kind: ConstraintKind, source: str, pattern: str
) -> None:
    for seed in range(3):
        text, complete = write(pocket, Constraint(kind, source), "Number?", Sampling(seed=seed))
        assert complete
        assert re.fullmatch(pattern, text)


def test_a_grammar_can_call_for_the_tokens_of_the_model(pocket: LlamaRunner) -> None:
    grammar = 'start: <tool_call> %json {"const": {"name": "x"}} </tool_call>'
    text, complete = write(
        pocket, Constraint(ConstraintKind.LARK, grammar), "Call!", Sampling(seed=1)
    )
    assert re.fullmatch(r'<tool_call>\{"name":\s*"x"\}</tool_call>', text)
    assert complete


def test_a_bias_against_all_that_is_allowed_does_not_stop_an_answer(pocket: LlamaRunner) -> None:
    digits = [i for i in range(pocket.info.vocabulary_size) if pocket.piece(i).isdigit()]
    sampling = Sampling(seed=1, logit_bias=dict.fromkeys(digits, -100.0))
    text, complete = write(pocket, Constraint(ConstraintKind.REGEX, "[0-9]{4}"), "?", sampling)
    assert (len(text), complete) == (4, True)


def test_too_few_tokens_do_not_keep_a_complete_answer_from_ending(pocket: LlamaRunner) -> None:
    choice = Constraint(ConstraintKind.CHOICE, '["yes"]')
    assert write(pocket, choice, "?", Sampling(seed=1, min_tokens=50)) == ("yes", True)


@pytest.fixture
def trial() -> Iterator[Trial]:
    trial = Trial(seconds=1.0)
    yield trial
    trial.close()


HOSTILE = {
    "patterns that must all hold": {
        "allOf": [{"type": "string", "pattern": f"w{i}"} for i in range(30)]
    },
    "repeated repetition": {"type": "string", "pattern": "^(a{1000}){1000}$"},
    "nested repetition": {"type": "string", "pattern": "^((a+)+)+b$"},
    "a wide object": {"properties": {f"p{i}": {"type": "string"} for i in range(3000)}},
    "a wide intersection": {
        "allOf": [
            {"anyOf": [{"properties": {f"a{i}": {"const": j}}} for j in range(3)]}
            for i in range(16)
        ]
    },
    "references that double": {
        "$defs": {
            f"d{i}": {"properties": {k: {"$ref": f"#/$defs/d{i + 1}"} for k in "ab"}}
            for i in range(40)
        }
        | {"d40": {}},
        "$ref": "#/$defs/d0",
    },
    "a large divisor": {"type": "integer", "multipleOf": 99999989, "minimum": 3, "maximum": 10**16},
    "many items": {
        "type": "array",
        "minItems": 10**6,
        "items": {"type": "array", "minItems": 10**5},
    },
    "a long constant": {"const": "a" * 200_000},
    "a large enumeration": {"enum": [f"e{i:06}" for i in range(12_000)]},
}


@pytest.mark.timing
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_schema_is_refused_or_costs_little(
    pocket: LlamaRunner, trial: Trial, name: str
) -> None:
    """Refused while it is compiled, failed while it is followed, or followed: no step is long."""
    schema = json.dumps(HOSTILE[name])
    second = slowness()
    started = time.thread_time()  # of ours; the trial's is bounded by itself
    with contextlib.suppress(InvalidRequest, DeadEnd):
        trial.check(LLMatcher.grammar_from_json_schema(schema))
        matcher = pocket.create_matcher(Constraint(SCHEMA, schema))
        for _ in range(20):
            started = time.thread_time()
            matcher.consume(int(np.flatnonzero(matcher.allowed())[-1]))
            assert time.thread_time() - started < second
    assert time.thread_time() - started < 4 * second


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        (ConstraintKind.LARK, "start: " + "(" * 100_000),
        (ConstraintKind.REGEX, "(" * 100_000 + "a" + ")" * 100_000),
        (ConstraintKind.GBNF, "root ::= " + "(" * 100_000),
        (SCHEMA, "[" * 100_000),
        (SCHEMA, '{"items":' * 20_000 + "{}" + "}" * 20_000),
    ],
)
def test_deep_nesting_is_refused(pocket: LlamaRunner, kind: ConstraintKind, source: str) -> None:
    with pytest.raises(InvalidRequest):
        pocket.create_matcher(Constraint(kind, source))


def test_a_trial_goes_on_after_one_that_did_not_end(trial: Trial) -> None:
    endless = json.dumps(HOSTILE["patterns that must all hold"])
    with pytest.raises(InvalidRequest, match="takes more than 1 s"):
        trial.check(LLMatcher.grammar_from_json_schema(endless))
    trial._seconds = 60.0  # a slow machine needs some for another child
    trial.check(LLMatcher.grammar_from_regex("a+"))
