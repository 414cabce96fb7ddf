"""A grammar of text as a grammar of how that text is spelled within a JSON string. Pure.

Models write a tool's text as `{"input": "…"}`, where quotes, backslashes and line breaks are
escaped; a client's grammar describes the text itself. Each literal and expression in it is
rewritten to describe the spelling:

    "a\\n"        becomes   "a\\\\n"
    /[^"]+/       becomes   /([^"\\\\\\x00-\\x1f]|\\\\[\\\\nrtbf])+/
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from service.domain.constraint import Constraint, ConstraintKind
from service.domain.errors import Unsupported

# How JSON spells what can't stand in a string as it is.
_ESCAPES = {'"': '"', "\\": "\\", "\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f"}
_RAW_BUT = r'"\\\x00-\x1f'  # what a class leaves out so that only raw characters are left
_TOKEN = re.compile(
    r'(?P<comment>//[^\n]*|\#[^\n]*)|(?P<string>"(?:[^"\\\n]|\\.)*"i?)'
    r"|(?P<regex>/(?:\\.|[^/\\\n])+/(?P<flags>[imslux]*))|(?P<forbidden>%json|%regex|<[^<>\s]+>)"
)
_IMPORTED = {
    "LF": r"/\n/",
    "NEWLINE": r"/(\r?\n)+/",
    "WS": r"/[ \t\f\r\n]+/",
    "WS_INLINE": r"/[ \t]+/",
    "CR": r"/\r/",
    "ESCAPED_STRING": r'/"([^"\\\n]|\\.)*"/',
}
_IMPORT = re.compile(r"^%import[ \t]+common\.(\w+)(?:[ \t]*->[ \t]*(\w+))?[ \t]*$", re.MULTILINE)
_LITERALS = r'"(?:[^"\\\n]|\\.)*"i?|/(?:\\.|[^/\\\n])+/[imslux]*'
# A rule's body goes on in the lines behind it, up to what is defined next.
_RULE = re.compile(
    r"^[?!]?(?P<name>_?[a-z][a-z0-9_]*)(?:\.\d+)?(?P<extra>[^:\n]*):"
    r"(?P<body>.*(?:\n(?![?!]?_?[A-Za-z][\w]*[^:\n]*:|%).*)*)",
    re.MULTILINE,
)
_ALIAS = re.compile(rf"(?P<kept>{_LITERALS})|->[ \t]*\w+")
_WORD = re.compile(rf"{_LITERALS}|->[ \t]*\w+|\b(?P<name>_?[a-z][a-z0-9_]*)\b")
_OF_SETS = ("&&", "--", "~~", "||")  # which mean other things elsewhere
_SLASH = re.compile(r"\\.|/", re.DOTALL)
_SPACES = " \t\n\r\f"
# Single characters that stand for themselves, or for one other, behind a backslash.
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f"}
_KINDS = {"d": "0-9", "w": r"\w"}


def as_lark(grammar: Constraint) -> str:
    """A tool's grammar as Lark."""
    if grammar.kind is not ConstraintKind.REGEX:
        return grammar.source
    pattern = _SLASH.sub(lambda piece: r"\/" if piece[0] == "/" else piece[0], grammar.source)
    return f"start: /{pattern.replace(chr(10), chr(92) + 'n')}/"


def quoted_lark(source: str) -> str:
    """The Lark grammar of the spellings. Raises `Unsupported` for what can't be rewritten."""
    expanded = _IMPORT.sub(_defined, source)
    return _with_terminals(_TOKEN.sub(_rewritten, expanded))


def _with_terminals(grammar: str) -> str:
    """The same with all rules that can be as terminals.

    A file's name and the line break behind it both begin with a backslash where the break is
    spelled; only within one terminal is it seen in time which of them comes.
    """
    if "%ignore" in grammar:  # which holds between terminals, and not within them
        return grammar
    rules = {rule["name"]: rule for rule in _RULE.finditer(grammar)}
    uses = {name: _used(rule["body"]) & rules.keys() for name, rule in rules.items()}
    below = {name: _below(name, uses) for name in rules}
    others = {name for name in rules if rules[name]["extra"] or name in below[name]}
    plain = {name for name in rules if name not in others and others.isdisjoint(below[name])}

    def renamed(word: re.Match[str]) -> str:
        name = word["name"]
        return f"Q_{name.upper()}" if name in plain else word[0]

    def rewritten(rule: re.Match[str]) -> str:
        body = _WORD.sub(renamed, rule["body"])
        if rule["name"] not in plain:
            return f"{rule['name']}{rule['extra']}:{body}"
        own = f"Q_{rule['name'].upper()}:{_ALIAS.sub(_without_alias, body)}"
        return f"start: Q_START\n{own}" if rule["name"] == "start" else own

    return _RULE.sub(rewritten, grammar)


def _used(body: str) -> set[str]:
    return {word["name"] for word in _WORD.finditer(body) if word["name"]}


def _below(name: str, uses: Mapping[str, set[str]]) -> set[str]:
    """All rules that are needed for this one; itself among them only where it needs itself."""
    found: set[str] = set()
    waiting = set(uses[name])
    while waiting:
        one = waiting.pop()
        found.add(one)
        waiting |= uses[one] - found
    return found


def _without_alias(match: re.Match[str]) -> str:
    return match["kept"] or ""


def _defined(imported: re.Match[str]) -> str:
    """Terminals of the library that have to be spelled otherwise; the rest stay imported."""
    name, alias = imported[1], imported[2] or imported[1]
    return f"{alias}: {_IMPORTED[name]}" if name in _IMPORTED else imported[0]


def _rewritten(token: re.Match[str]) -> str:
    if token["comment"] is not None:
        return ""
    if token["forbidden"] is not None:
        raise Unsupported(
            f"the grammar of a custom tool has {token[0][:40]!r}, which this model's calls can't "
            "be held to."
        )
    if token["string"] is not None:
        body, _, flag = token["string"].rpartition('"')
        return f"{_quoted_string(body + chr(34))}{flag}"
    body = token["regex"][1 : len(token["regex"]) - 1 - len(token["flags"])]
    return f"/{quoted_regex(body, dot_all='s' in token['flags'])}/{token['flags']}"


def _quoted_string(literal: str) -> str:
    try:
        text = json.loads(literal, strict=False)
    except ValueError:
        raise Unsupported(
            f"the grammar of a custom tool has the literal {literal[:40]!r}, which can't be read."
        ) from None
    return json.dumps(json.dumps(text, ensure_ascii=False)[1:-1], ensure_ascii=False)


def quoted_regex(pattern: str, *, dot_all: bool = False) -> str:
    """The expression of the spellings. Raises `Unsupported` for what can't be rewritten."""
    reader = _Regex(pattern, dot_all=dot_all)
    pieces = []
    while reader.at < len(pattern):
        pieces.append(reader.piece())
    return "".join(pieces)


class _Regex:
    """An expression, read from left to right: what is no character stays as it is."""

    def __init__(self, pattern: str, *, dot_all: bool) -> None:
        self._pattern = pattern
        self._dot = "" if dot_all else "\n"
        self.at = 0

    def piece(self) -> str:
        char = self._next()
        if char == "\\":
            return self._escape(self._next())
        if char == "[":
            return self._class()
        if char == ".":
            return _any_but("", self._dot)
        if char == "{":  # a count
            end = self._pattern.find("}", self.at) + 1
            count = self._pattern[self.at - 1 : end]
            self.at = max(end, self.at)
            return count
        return _spelled(char) if char in _ESCAPES else char

    def _next(self) -> str:
        if self.at >= len(self._pattern):
            raise self._refusal()
        char = self._pattern[self.at]
        self.at += 1
        return char

    def _refusal(self) -> Unsupported:
        return Unsupported(
            f"the grammar of a custom tool has the expression {self._pattern[:60]!r}, which this "
            "model's calls can't be held to."
        )

    def _escape(self, char: str) -> str:
        if char in _CONTROLS:
            return _spelled(_CONTROLS[char])
        if char in "sS":
            return _any_of(" ", "\t\n\r\f") if char == "s" else _any_but(" ", _SPACES)
        if char in "DW":
            return _any_but(_KINDS[char.lower()], "")
        if char in "dw":
            return f"\\{char}"
        if char.isalnum():
            raise self._refusal()
        return _spelled(char) if char in _ESCAPES else f"\\{char}"

    def _class(self) -> str:
        start = self.at
        negated = self._pattern[self.at : self.at + 1] == "^"
        self.at += negated
        while (char := self._next()) != "]" or self.at == start + negated + 1:
            if char == "\\" and (inner := self._next()).isalnum() and inner not in "nrtfdws":
                raise self._refusal()
            if char == "[" or self._pattern[self.at - 1 : self.at + 1] in _OF_SETS:
                raise self._refusal()
        return self._split_class(self._pattern[start - 1 : self.at], negated=negated)

    def _split_class(self, text: str, *, negated: bool) -> str:
        """What of the class stands as it is, and what is escaped."""
        try:
            members = re.compile(text)
        except re.error:
            raise self._refusal() from None
        spelled = "".join(char for char in _ESCAPES if members.fullmatch(char))
        inner = text[2:-1] if negated else text[1:-1]
        if negated:
            return _alternatives(f"[^{inner}{_RAW_BUT}]", spelled)
        return _alternatives(f"[{text}&&[^{_RAW_BUT}]]", spelled)


def _spelled(char: str) -> str:
    return rf"\\{re.escape(_ESCAPES[char])}"


def _any_but(inner: str, missing: str) -> str:
    """Any character but those in the class `inner` and those `missing`."""
    return _alternatives(f"[^{inner}{_RAW_BUT}]", "".join(c for c in _ESCAPES if c not in missing))


def _any_of(inner: str, spelled: str) -> str:
    return _alternatives(f"[{inner}]", spelled)


def _alternatives(raw: str, spelled: str) -> str:
    letters = "".join(re.escape(_ESCAPES[char]) for char in spelled)
    return rf"({raw}|\\[{letters}])" if letters else raw
