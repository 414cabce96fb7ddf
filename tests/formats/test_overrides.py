"""What probing a template can't find out: channels, recipients and a token that is never shown."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.chat import ChatRequest, Message, Role, Tool, ToolChoice, ToolMode
from service.domain.constraint import Constraint, ConstraintKind
from service.domain.events import ReasoningDelta, TextDelta, ToolCallDelta
from service.formats.call_parser import CallParser
from service.formats.overrides import functionary, harmony, with_python_tag
from service.formats.prepared import Prepared, prepare
from service.formats.segments import SegmentGrammar, SegmentParser
from service.formats.template import ChatTemplate
from service.formats.tool_syntax import Kind, ToolSyntax
from tests.fakes.engine import FAKE_MODEL

TOOL = Tool("look", parameters='{"type": "object", "properties": {"city": {"type": "string"}}}')
HARMONY, FUNCTIONARY = harmony.OVERRIDE.segments, functionary.OVERRIDE.segments
CONTROL = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|call|>", "<|constrain|>")
SAYS = """{%- for m in messages %}{{ '<|start|>' + m.role + '<|channel|>final<|message|>' }}
{{- (m.content or '') + '<|end|>' }}
{%- if m.tool_calls %}analysis {{ m.tool_calls[0].function.name }}
{{- m.tool_calls[0].function.arguments | tojson }}{% endif %}{% endfor %}
{%- if tools %}{{ tools | tojson }}{% endif %}<|start|>assistant"""


def read(grammar: SegmentGrammar, chunks: list[str], max_calls: int | None = None) -> list[object]:
    """Neighbouring deltas of a kind as one: a thought, a text, or a name with its arguments."""
    parser = SegmentParser(grammar, [TOOL], max_calls, new_id=lambda: "id")
    told: list[tuple[str, str]] = []
    for delta in [d for chunk in chunks for d in parser.feed(chunk)] + parser.finish():
        kind = {ReasoningDelta: "thought", TextDelta: "text"}.get(type(delta), "call")
        if isinstance(delta, ToolCallDelta):
            kind = delta.name or told[-1][0]
            text = delta.arguments
        else:
            text = delta.text
        starts = isinstance(delta, ToolCallDelta) and delta.name is not None
        if told and told[-1][0] == kind and not starts:
            told[-1] = (kind, told[-1][1] + text)
        else:
            told.append((kind, text))
    return [*told]


ANSWERS = [
    (
        HARMONY,
        "<|channel|>analysis<|message|>Weather.<|end|><|start|>assistant<|channel|>commentary "
        'to=functions.look <|constrain|>json<|message|>{"city": "Róma 😀"}<|call|>',
        [("thought", "Weather."), ("look", '{"city": "Róma 😀"}')],
    ),
    (
        HARMONY,
        ' to=functions.look<|channel|>commentary json<|message|>{"city": "x"}',
        [("look", '{"city": "x"}')],
    ),
    (
        HARMONY,
        "<|channel|>analysis<|message|>a < b <|x<|end|><|start|>assistant<|channel|>final"
        "<|message|>Hello <b>!<|return|>",
        [("thought", "a < b <|x"), ("text", "Hello <b>!")],
    ),
    (
        HARMONY,
        "<|channel|>commentary<|message|>Let me see.<|end|><|start|>assistant<|channel|>commentary"
        " to=functions.hook<|message|>{}<|call|>",
        [("text", "Let me see.{}")],
    ),
    (HARMONY, "<|channel|>analysis<|message|>cut sh", [("thought", "cut sh")]),
    (HARMONY, "<|channel|>final<|message|>a<|end|><|start|>assist", [("text", "a")]),
    (HARMONY, "no channel", [("text", "no channel")]),
    (FUNCTIONARY, "all\nHello!", [("text", "Hello!")]),
    (
        FUNCTIONARY,
        'all\nI look.>>>look\n{"city": "x"}>>>look\n{}',
        [("text", "I look."), ("look", '{"city": "x"}'), ("look", "{}")],
    ),
    (
        FUNCTIONARY,
        'all\nType\n>>> print(1)\n1\n>>>look\n{"city": ">>>"}',
        [("text", "Type\n>>> print(1)\n1\n"), ("look", '{"city": ">>>"}')],
    ),
]


@pytest.mark.parametrize(("grammar", "text", "expected"), ANSWERS)
def test_segments_are_told_apart_wherever_they_are_cut(
    grammar: SegmentGrammar, text: str, expected: list[object]
) -> None:
    assert read(grammar, list(text)) == expected
    for cut in range(len(text) + 1):
        assert read(grammar, [text[:cut], text[cut:]]) == expected


@pytest.mark.parametrize("grammar", [HARMONY, FUNCTIONARY], ids=["harmony", "functionary"])
@given(
    parts=st.lists(st.sampled_from([*CONTROL, ">>>", "\n", "all", "look", "analysis", "{}", " "])),
    data=st.data(),
)
@settings(deadline=None, max_examples=60)
def test_any_segments_read_alike_in_any_chunks(
    grammar: SegmentGrammar, parts: list[str], data: st.DataObject
) -> None:
    text = "".join(parts)
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=8))
    places = sorted({0, len(text), *cuts})
    chunks = [text[a:b] for a, b in pairwise(places)]
    assert read(grammar, chunks) == read(grammar, [text])


def test_calls_beyond_the_limit_are_dropped() -> None:
    assert read(FUNCTIONARY, ["look\n{}>>>look\n{}"], max_calls=1) == [("look", "{}")]


def prepared(**changes: object) -> Prepared:
    model = replace(FAKE_MODEL, chat_template=SAYS, control_tokens=CONTROL)
    request = ChatRequest((Message(Role.USER, "Hi"),), tools=(TOOL,))
    return prepare(ChatTemplate(model), replace(request, **changes), thinking=False)  # type: ignore[arg-type]


def test_a_model_with_channels_is_forced_within_one() -> None:
    forced = prepared(tool_choice=ToolChoice(ToolMode.REQUIRED))
    assert forced.prompt[-1].text == "<|channel|>commentary to=functions."
    assert set(forced.shown_tokens) >= {"<|channel|>", "<|message|>"}
    assert forced.constraint is not None
    assert '"look " <|constrain|> "json" <|message|>' in forced.constraint.source
    parser = forced.create_parser()
    deltas = [*parser.feed('look <|constrain|>json<|message|>{"city": "x"}'), *parser.finish()]
    assert parser.num_calls == 1
    assert deltas[-1] == ToolCallDelta(0, arguments='{"city": "x"}')


def test_a_model_with_channels_is_held_to_a_form_in_its_last_one() -> None:
    form = Constraint(ConstraintKind.JSON_SCHEMA, "{}")
    held = prepared(tools=(), constraint=form)
    assert held.constraint == replace(form, after="<|channel|>final<|message|>")
    assert prepared().constraint is None


def test_a_tag_that_llama_puts_before_a_call_is_none_of_the_answer() -> None:
    bare = ToolSyntax(Kind.JSON, '{"name": "', '", "parameters": ', None, "}")
    assert with_python_tag(bare, ("<|eot_id|>",)) == bare
    tagged = with_python_tag(bare, ("<|python_tag|>",))
    text = '<|python_tag|>{"name": "look", "parameters": {"city": "x"}}'
    for cut in range(len(text) + 1):
        parser = CallParser(tagged, [TOOL], new_id=lambda: "id")
        deltas = [*parser.feed(text[:cut]), *parser.feed(text[cut:]), *parser.finish()]
        told = [delta for delta in deltas if isinstance(delta, ToolCallDelta)]
        assert told == deltas
        assert "".join(delta.arguments for delta in told) == '{"city": "x"}'
