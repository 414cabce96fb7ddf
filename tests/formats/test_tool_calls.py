"""Tool calls of well-known models: found by probing, read wherever the text breaks, and written
to the grammar that follows from the same syntax."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer

from service.domain.chat import ChatRequest, Message, Role, Tool, ToolCall, ToolChoice, ToolMode
from service.domain.constraint import Constraint, ConstraintKind
from service.domain.errors import Unsupported
from service.domain.events import TextDelta
from service.formats.call_parser import CallParser
from service.formats.prepared import prepare
from service.formats.template import ChatTemplate
from service.formats.tool_grammar import to_constraint
from service.formats.tool_syntax import IN_TEXT, ToolSyntax
from tests.formats.families import FAMILIES, Family

LOOK = Tool(
    "look",
    "Look at a city",
    '{"type": "object", "properties": {"city": {"type": "string"}, "n": {"type": "integer"}}}',
)
TOOLS = (LOOK, Tool("ping"))
CALLED = [("look", {"city": "Róma 😀", "n": 7}), ("ping", {})]
Read = list[str | tuple[str, str]]
each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


@cache
def template_of(family: Family) -> ChatTemplate:
    return ChatTemplate(family.model)


def syntax_of(family: Family) -> ToolSyntax:
    return template_of(family).abilities.syntax


def read(syntax: ToolSyntax, chunks: list[str], max_calls: int | None = None) -> Read:
    """Texts, and names with arguments, in the order in which they came."""
    parser = CallParser(syntax, TOOLS, max_calls, new_id=lambda: "id")
    told: Read = []
    for delta in [d for chunk in chunks for d in parser.feed(chunk)] + parser.finish():
        if isinstance(delta, TextDelta):
            if told and isinstance(told[-1], str):
                told[-1] += delta.text
            else:
                told.append(delta.text)
        elif delta.name is not None:
            assert delta.id == "id"
            told.append((delta.name, delta.arguments))
        else:
            last = told[-1]
            assert isinstance(last, tuple)
            assert delta.id is None
            told[-1] = (last[0], last[1] + delta.arguments)
    return told


def parsed(told: Read) -> list[object]:
    return [t if isinstance(t, str) else (t[0], json.loads(t[1])) for t in told]


@each_family
def test_the_templates_own_calls_are_read_wherever_they_are_cut(family: Family) -> None:
    text, expected = f"Let me see.\n\n{family.written}", ["Let me see.", *CALLED]
    if family.one_only:  # a bare object is a call only where an answer begins
        text, expected = family.written, [*CALLED[:1]]
    whole = read(syntax_of(family), [text])
    assert parsed(whole) == expected
    assert read(syntax_of(family), list(text)) == whole
    for cut in range(len(text) + 1):
        assert read(syntax_of(family), [text[:cut], text[cut:]]) == whole


@each_family
@given(
    before=st.sampled_from(["", "Sure. ", "{", "< [ ", "\n\n"]),
    behind=st.sampled_from(["", "\n", " Done.", "<", "}", "]", ", "]),
    cuts=st.lists(st.integers(0, 400), max_size=12),
    length=st.integers(0, 400),
)
@settings(deadline=None, max_examples=40)
def test_any_beginning_of_them_reads_alike_in_any_chunks(
    family: Family, before: str, behind: str, cuts: list[int], length: int
) -> None:
    text = (before + family.written + behind)[: length or None]
    places = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    chunks = [text[a:b] for a, b in pairwise(places)]
    assert read(syntax_of(family), chunks) == read(syntax_of(family), [text])


@each_family
def test_the_grammar_of_free_answers_takes_them(family: Family) -> None:
    constraint = to_constraint(syntax_of(family), TOOLS, (), forced=False, parallel=True)
    if family.one_only:
        assert constraint is None  # until its end, a bare object can't be told from an answer
        return
    assert constraint is not None
    assert accepts(constraint.source, f"Let me see.\n{family.written}")
    assert accepts(constraint.source, family.written)
    assert accepts(constraint.source, "No call at all. <b>")
    assert not accepts(constraint.source, family.written.replace("look", "hook"))
    assert not accepts(constraint.source, family.written.replace("city", "town"))


@each_family
def test_the_grammar_of_a_forced_call_goes_on_where_the_prompt_ends(family: Family) -> None:
    chat = template_of(family)
    choice = ToolChoice(ToolMode.REQUIRED, ("look",))
    request = ChatRequest((Message(Role.USER, "Hi"),), tools=TOOLS, tool_choice=choice)
    prepared = prepare(chat, request, thinking=True)
    syntax = chat.abilities.syntax
    assert prepared.prompt[-1].text == prepared.begun
    # The first call, without its beginning, and with the end that then comes at once.
    first = family.written.partition("7}" if syntax.tags is None else "7")
    end = (syntax.tags.end if syntax.tags else "") + syntax.end
    rest = (first[0] + first[1])[len(syntax.begin) + 8 * syntax.begin.count("\0") :] + end
    rest = rest.replace("\0", "abcdefgh1")
    assert prepared.constraint is not None
    forced = to_constraint(syntax, TOOLS[:1], (), forced=True, parallel=False)
    assert forced is not None
    assert accepts(forced.source, rest)
    parser = prepared.create_parser()
    deltas = [*parser.feed(rest), *parser.finish()]
    assert parser.num_calls == 1
    assert not [delta for delta in deltas if isinstance(delta, TextDelta)]


def accepts(source: str, text: str) -> bool:
    matcher = LLMatcher(_bytes_as_tokens(), f"%llguidance {{}}\n{source}", log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    data = list(text.encode())
    return matcher.try_consume_tokens(data) == len(data) and matcher.is_accepting()


@cache
def _bytes_as_tokens() -> LLTokenizer:
    return LLTokenizer("byte")


@each_family
def test_calls_and_answers_of_a_history_are_told_by_the_template(family: Family) -> None:
    call = ToolCall("call_0123456789abcdef01234567", "look", '{"city": "Rome", "n": 1}')
    told = [
        Message(Role.USER, "Hi"),
        Message(Role.ASSISTANT, "", tool_calls=(call,)),
        Message(Role.TOOL, "Sunny", tool_call_id=call.id),
    ]
    prompt = "".join(piece.text for piece in template_of(family).render(told, TOOLS))
    said = prompt.partition("<|im_start|>assistant\n")[2]
    begin = syntax_of(family).begin.partition("\0")[0]
    assert said.startswith(begin)
    assert "Rome" in said
    assert "Sunny" in said
    assert "You can call" not in prompt


JSON_CALL = '{"name": "look", "arguments": {"city": "x"}}'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello", ["Hello"]),
        (" \n ", [" \n "]),
        ("", []),
        (JSON_CALL, [("look", '{"city": "x"}')]),
        (f"[{JSON_CALL}, {JSON_CALL}]", [("look", '{"city": "x"}')] * 2),
        ('<tool_call>{"arguments": {"n": 1}, "name": "look"}', [("look", '{"n": 1}')]),
        ('<tool_call>{"name": "ping"}</tool_call>', [("ping", "{}")]),
        ('<tool_call>{"name": "ping", "arguments": null}</tool_call>', [("ping", "{}")]),
        ('<tool_call>{"name": "ping", "arguments": "{\\"a\\": 1}"}', [("ping", '{"a": 1}')]),
        ('<tool_call>{"name": "p\\u0069ng", "arguments": {}}', [("ping", "{}")]),
        (
            '<tool_call>{"name": "look", "arguments": {"city": "a } \\" ] b"}}</tool_call>',
            [("look", '{"city": "a } \\" ] b"}')],
        ),
        (f"a<tool_call>{JSON_CALL}</tool_call> b ", ["a", ("look", '{"city": "x"}'), "b "]),
        ('<tool_call>{"name": "hook", "arguments": {}}</tool_call>',) * 2,
        ('{"name": "hook", "arguments": {}}',) * 2,
        ('{"title": "Look", "name": "look"}',) * 2,
        ("a  <tool_call>b",) * 2,
        ("[not a call](http://a.b) <tool_ca",) * 2,
        ('<tool_call>\n{"name": "lo',) * 2,
        ('<tool_call>{"name": "look", "arguments": {"city": "Ro', [("look", '{"city": "Ro')]),
        (f"<tool_call>{JSON_CALL}</tool_", [("look", '{"city": "x"}')]),
        (f"<tool_call> <tool_call>{JSON_CALL}", ["<tool_call>", ("look", '{"city": "x"}')]),
    ],
)
def test_what_is_a_call_and_what_is_not(text: str, expected: str | Read) -> None:
    told = [expected] if isinstance(expected, str) else expected
    for cut in range(len(text) + 1):
        for end in range(cut, len(text) + 1, 5):
            assert read(IN_TEXT, [text[:cut], text[cut:end], text[end:]]) == told


@given(st.text(alphabet='<>{}[]"\\ntool_c/:, amerguslk\n😀', max_size=60), st.data())
@settings(deadline=None)
def test_any_text_reads_alike_in_any_chunks(text: str, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=8))
    places = sorted({0, len(text), *cuts})
    chunks = [text[a:b] for a, b in pairwise(places)]
    assert read(IN_TEXT, chunks) == read(IN_TEXT, [text])


def test_calls_beyond_the_limit_are_dropped() -> None:
    text = f"<tool_call>{JSON_CALL}</tool_call>" * 3
    assert read(IN_TEXT, [text], max_calls=1) == [("look", '{"city": "x"}')]
    assert read(IN_TEXT, [text], max_calls=2) == [("look", '{"city": "x"}')] * 2


def test_what_the_user_says_behind_a_result_is_told_with_it_where_turns_are_strict() -> None:
    strict = FAMILIES[0].model
    source = (strict.chat_template or "").replace(
        "{%- for message in messages %}",
        "{%- for message in messages %}{%- if message.role == 'user' and not loop.first and "
        "messages[loop.index0 - 1].role == 'tool' %}{{ raise_exception('no turn') }}{% endif %}",
    )
    call = ToolCall("call_1", "look", "{}")
    told = [
        Message(Role.USER, "Hi"),
        Message(Role.ASSISTANT, "", tool_calls=(call,)),
        Message(Role.TOOL, "Sunny", tool_call_id="call_1"),
        Message(Role.USER, "And now?"),
    ]
    prompt = ChatTemplate(replace(strict, chat_template=source)).render(told, TOOLS)
    assert "<|im_start|>tool\nSunny\n\nAnd now?<|im_end|>" in "".join(p.text for p in prompt)
    prompt = template_of(FAMILIES[0]).render(told, TOOLS)
    assert "<|im_start|>user\nAnd now?<|im_end|>" in "".join(p.text for p in prompt)


ODD_SCHEMAS: list[dict[str, object]] = [
    {"properties": {"a": {"type": "string", "pattern": "^(?!a)b"}}},
    {"properties": {"a": {"type": "string", "format": "of-my-own"}}},
    {"properties": {"a": {"not": {"type": "string"}}}},
    {"properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"type": "string"}}},
    {"properties": {"a": {"$ref": "#"}}},
    {"if": {"properties": {"a": {"const": 1}}}, "then": {"required": ["b"]}},
    {"$schema": "http://json-schema.org/draft-07/schema#", "properties": {}},
    {"type": ["object", "null"], "properties": {"a": True, "b": False}},
    {"patternProperties": {"^x": {"type": "string"}}, "propertyNames": {"minLength": 1}},
    {"properties": {"a": {"enum": ["a", 1, None], "nullable": True}}},
    {},
]


@each_family
@pytest.mark.parametrize("schema", ODD_SCHEMAS, ids=str)
def test_schemas_of_the_wild_are_held_to_as_far_as_that_goes(
    family: Family, schema: dict[str, object]
) -> None:
    tool = Tool("look", parameters=json.dumps(schema))
    constraint = to_constraint(syntax_of(family), [tool], (), forced=True, parallel=True)
    assert constraint is not None
    source = f"%llguidance {{}}\n{constraint.source}"
    matcher = LLMatcher(_bytes_as_tokens(), source, log_level=0)
    assert not matcher.is_error(), matcher.get_error()


@each_family
@pytest.mark.parametrize("broken", [{"properties": [1], "required": 5}, {"properties": None}])
def test_a_schema_that_is_none_is_for_the_engine_to_refuse(
    family: Family, broken: dict[str, object]
) -> None:
    tool = Tool("look", parameters=json.dumps(broken))
    assert to_constraint(syntax_of(family), [tool], (), forced=True, parallel=True) is not None
    read(syntax_of(family), [family.written])


def test_an_object_has_what_its_schema_names_and_nothing_else() -> None:
    constraint = to_constraint(IN_TEXT, [LOOK], (), forced=True, parallel=False)
    assert constraint is not None
    written = 'look", "arguments": {{{}}}}}\n</tool_call>'
    assert accepts(constraint.source, written.format('"n": 1'))
    assert not accepts(constraint.source, written.format('"m": 1'))


@each_family
def test_an_answer_is_a_call_or_what_its_schema_says(family: Family) -> None:
    schema = '{"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}'
    if family.one_only:  # both are objects: there is no telling them apart
        form = Constraint(ConstraintKind.JSON_SCHEMA, schema)
        request = ChatRequest((Message(Role.USER, "Hi"),), tools=TOOLS, constraint=form)
        with pytest.raises(Unsupported, match="not with every model"):
            prepare(template_of(family), request, thinking=False)
        return
    constraint = to_constraint(
        syntax_of(family), TOOLS, (), forced=False, parallel=True, schema=schema
    )
    assert constraint is not None
    answer = '{"name": "Bob"}'
    assert accepts(constraint.source, family.written)
    assert accepts(constraint.source, answer)
    assert accepts(constraint.source, f"\n\n{answer}")
    assert not accepts(constraint.source, "Sure.")
    assert not accepts(constraint.source, '{"title": "Bob"}')
    assert read(syntax_of(family), [answer]) == [answer]
