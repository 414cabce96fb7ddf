"""How an answer is graded: small predicates on its text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from typing import Any

Grade = Callable[[str], bool]


def has(*needles: str) -> Grade:
    """Any of the needles is in the answer, in whatever case."""
    return lambda s: any(needle.lower() in s.lower() for needle in needles)


def has_all(*needles: str) -> Grade:
    return lambda s: all(needle in s for needle in needles)


def same(text: str) -> Grade:
    return lambda s: s.strip() == text


def is_json(data: Any) -> Grade:
    return lambda s: bool(parsed(s) == data)


def is_json_object() -> Grade:
    return lambda s: isinstance(parsed(s), dict)


def counts(first: int, last: int) -> Grade:
    return same(", ".join(map(str, range(first, last + 1))))


def num_words(low: int, high: int, ending: str = "") -> Grade:
    return lambda s: low <= len(s.split()) <= high and s.endswith(ending)


def num_lines(wanted: int) -> Grade:
    return lambda s: len(s.strip().split("\n")) == wanted


def calls(*wanted: tuple[str, dict[str, str]]) -> Grade:
    """Exactly these tool calls, in this order."""
    expected = [{"name": name, "arguments": arguments} for name, arguments in wanted]
    return lambda s: calls_of(s) == expected


def calls_one_of(shapes: Collection[tuple[str, tuple[str, ...]]]) -> Grade:
    """One call, of a tool and with parameters that are among `shapes`."""

    def grade(s: str) -> bool:
        found = [(c["name"], tuple(c["arguments"])) for c in calls_of(s) if c]
        return len(found) == 1 and found[0] in shapes

    return grade


def bullets(count: int, allowed: Collection[str]) -> Grade:
    """`count` different list items out of `allowed`."""

    def grade(s: str) -> bool:
        rows = [line[2:] for line in s.strip().split("\n") if line.startswith("- ")]
        return len(rows) == len(set(rows)) == count and all(row in allowed for row in rows)

    return grade


def python_function(s: str) -> bool:
    """A fenced block of Python that compiles."""
    found = re.search(r"```python\n(.*?)\n```", s, re.DOTALL)
    try:
        return bool(found) and bool(compile(found[1], "answer", "exec")) if found else False
    except SyntaxError:
        return False


def calls_of(text: str) -> list[Any]:
    """The tool calls in an answer; None for one that is not JSON."""
    blocks = re.findall(r"<tool_call>\s*(.*?)\s*</tool_call>", text, re.DOTALL)
    return [parsed(block) for block in blocks]


def parsed(text: str) -> Any:
    """The JSON value, or None."""
    try:
        return json.loads(text)
    except ValueError:
        return None
