"""What the documents tell people to type is there: commands, options, settings, targets, places."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from service.cli.main import parley

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "service/models/POCKET.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
IDS = [str(document.relative_to(ROOT)) for document in DOCUMENTS]
# What the set-up and its tests read, not the service; and how a setting's name is spelled.
NOT_SETTINGS = {"PARLEY_CACHE_DIR", "PARLEY_TEST_NGINX", "PARLEY_TEST_WHEELS", "PARLEY_GROUP__NAME"}

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=IDS)


def code_of(document: Path) -> list[str]:
    """Lines of its code blocks, and what stands between backticks in its sentences."""
    blocks = re.split(r"^```.*$", document.read_text(), flags=re.MULTILINE)
    lines = [line.removeprefix("$ ") for block in blocks[1::2] for line in block.splitlines()]
    return lines + [span for block in blocks[::2] for span in re.findall(r"`([^`\n]+)`", block)]


def commands_of(document: Path) -> list[list[str]]:
    """The words after each `parley` that begins a command, up to a pipe or the next command."""
    found = []
    for code in code_of(document):
        for part in re.split(r"\|\||&&|[|;]", code):
            words = _words(part)
            while words and re.fullmatch(r"sudo|exec|-\w|[A-Z_]+=\S*", words[0]):
                words.pop(0)
            if len(words) > 1 and Path(words[0]).name == "parley" and words[1] != "…":
                found.append(words[1:])
    return found


def _words(part: str) -> list[str]:
    try:
        return shlex.split(part, comments=True)
    except ValueError:  # half of a quotation: no command of ours
        return []


def unknown_in(words: list[str]) -> str | None:
    """The first of a command's words that the command line does not know."""
    command: click.Command = parley
    context = click.Context(command)
    for word in words:
        if word.startswith("--"):
            known = {name for option in command.params for name in option.opts}
            known |= {name for option in command.params for name in option.secondary_opts}
            if word.split("=")[0] not in known | {"--help"}:
                return word
        elif isinstance(command, click.Group):
            inner = command.get_command(context, word)
            if inner is None:
                return word
            command = inner
    return None


@every_document
def test_every_command_and_option_is_there(document: Path) -> None:
    commands = commands_of(document)
    assert {" ".join(words): unknown for words in commands if (unknown := unknown_in(words))} == {}


def test_commands_are_found_and_wrong_ones_would_be_noticed() -> None:
    assert len(commands_of(ROOT / "README.md")) > 5
    assert unknown_in(["serve", "--model", "x", "--fast"]) == "--fast"
    assert unknown_in(["token", "make"]) == "make"


@every_document
def test_every_setting_is_there(document: Path) -> None:
    example = (ROOT / "deploy/systemd/parley.env.example").read_text()
    every = set(re.findall(r"^#?(PARLEY_[A-Z_]+)=", example, re.MULTILINE))
    every |= {name.rpartition("__")[0] for name in every}  # `PARLEY_API__…` is all of a group
    named = set(re.findall(r"PARLEY_[A-Z_]+[A-Z]", document.read_text()))
    assert {n for n in named if n.removesuffix("_FILE") not in every} <= NOT_SETTINGS


@every_document
def test_every_make_target_is_there(document: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = {m for code in code_of(document) for m in re.findall(r"(?:^|\s)make ([a-z-]+)", code)}
    assert {name for name in named if not re.search(rf"^{name}:", makefile, re.MULTILINE)} == set()


@every_document
def test_every_place_that_is_linked_is_there(document: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", document.read_text())
    assert [link for link in links if not _leads_somewhere(document, link)] == []


def _leads_somewhere(document: Path, link: str) -> bool:
    if "://" in link:
        return True
    path, _, anchor = link.partition("#")
    target = (document.parent / path).resolve() if path else document
    if not target.exists():
        return False
    headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE) if anchor else []
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return not anchor or anchor in slugs
