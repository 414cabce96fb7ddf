"""Grammars of text, and of its spelling in JSON: what one accepts the other does, and no more."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from service.domain.chat import Tool
from service.domain.constraint import Constraint, ConstraintKind
from service.domain.errors import Unsupported
from service.formats.quoted_grammar import as_lark, quoted_lark, quoted_regex
from service.formats.tool_grammar import to_constraint
from service.formats.tool_syntax import IN_TEXT

# A patch as coding agents write it: rules only, a terminal from the library, names for parts.
PATCH = r"""
start: begin hunk+ end   // all of it
begin: "*** Begin" LF
end: "*** End" LF?
hunk: add
    | remove
add: "*** Add: " path LF line+
remove: "*** Delete: " path LF
path: /(.+)/
line: "+" /(.*)/ LF -> text
%import common.LF
"""
WRITTEN = '*** Begin\n*** Add: a "b".py\n+print("hi\\n")\t\n*** Delete: c\n*** End\n'
NESTED = r"""
start: sum
sum: term ("+" term)*
term: NUM | "(" sum ")" | "\"" /[a-z]/ "\""
NUM: /\d+/
"""


class Bytes:
    """A vocabulary whose tokens are the bytes."""

    eos_token_id = 256
    bos_token_id = None
    tokens: ClassVar[list[bytes]] = [*(bytes([byte]) for byte in range(256)), b"<end>"]

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text if isinstance(text, bytes) else text.encode())


@cache
def tokenizer() -> LLTokenizer:
    return LLTokenizer(TokenizerWrapper(Bytes()))


def accepts(grammar: str, text: str) -> bool:
    matcher = LLMatcher(tokenizer(), LLMatcher.grammar_from_lark(grammar))
    assert not matcher.is_error(), matcher.get_error()
    data = list(text.encode())
    return matcher.try_consume_tokens(data) == len(data) and bool(matcher.is_accepting())


def spelled(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


@pytest.mark.parametrize(
    ("grammar", "text"),
    [
        (PATCH, WRITTEN),
        (PATCH, WRITTEN[:-2]),
        (PATCH, WRITTEN.replace("Begin", "begin")),
        (PATCH, WRITTEN.replace("\n", "\\n")),
        (NESTED, '(1+"a")+22'),
        (NESTED, "(1+2"),
        ('start: "a\\\\b" /"/', 'a\\b"'),
        ('start: A B\nA: "x"\n%import common.ESCAPED_STRING -> B', 'x"y"'),
        ('start: "a" "b"\n%ignore /[ \\n]/', "a \n b"),
    ],
)
def test_a_spelling_is_accepted_as_its_text_is(grammar: str, text: str) -> None:
    assert accepts(quoted_lark(grammar), spelled(text)) == accepts(grammar, text)


@pytest.mark.parametrize(
    "pattern",
    [r".*", r'[^"]+', r"[ -~]+", r"\S+\s\d{1,3}", r'(a|"b")+', r"[\n\\]*x?", r"\W\D\w", r"[^a]"],
)
@given(text=st.text(alphabet='ab"\\\n\t/ 1é\x08', max_size=6))
def test_an_expression_of_spellings(pattern: str, text: str) -> None:
    assert accepts(f"start: /x{quoted_regex(pattern)}/", f"x{spelled(text)}") == bool(
        re.fullmatch(pattern, text)
    )


@pytest.mark.parametrize("pattern", [r"\bx", r"\p{L}", "[[:alpha:]]", r"[\x41]", "[a-z"])
def test_what_cannot_be_rewritten_is_refused_by_name(pattern: str) -> None:
    with pytest.raises(Unsupported, match="custom tool has the expression"):
        quoted_regex(pattern)


@pytest.mark.parametrize("grammar", ["start: <|im_end|>", 'start: %json {"type": "object"}'])
def test_neither_tokens_nor_schemas_stand_in_a_text(grammar: str) -> None:
    with pytest.raises(Unsupported, match="the grammar of a custom tool has"):
        quoted_lark(grammar)


def test_an_expression_may_have_slashes_and_line_breaks() -> None:
    lark = as_lark(Constraint(ConstraintKind.REGEX, "a/b\\/c\nd"))
    assert accepts(lark, "a/b/c\nd")


@pytest.mark.parametrize(("text", "accepted"), [(WRITTEN, True), ("*** Begin\nno patch", False)])
def test_a_call_is_held_to_its_tools_grammar(text: str, accepted: bool) -> None:
    schema = {"type": "object", "properties": {"input": {"type": "string"}}}
    grammar = Constraint(ConstraintKind.LARK, PATCH)
    patch = Tool("patch", "", json.dumps(schema), grammar=grammar)
    held = to_constraint(IN_TEXT, (patch,), (), forced=True, parallel=False)
    assert held is not None
    told = f"patch{IN_TEXT.middle}{json.dumps({'input': text})}{IN_TEXT.end}"
    assert accepts(held.source, told) == accepted
