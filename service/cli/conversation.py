"""`parley conversation` and `parley backup`: what is kept, in the operator's hand."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, TypeVar

import click

from service.chat.archive import MAX_PAGE, Archive, to_markdown
from service.chat.documents import from_document, to_document
from service.cli.database import with_database
from service.cli.group import CommandGroup
from service.domain.access import ANONYMOUS, Principal
from service.domain.errors import ConfigurationError, ConversationNotFound, InvalidRequest
from service.settings import load_settings
from service.store.archive import SqlArchive
from service.store.conversations import SqlConversations
from service.store.database import store_url

T = TypeVar("T")

principal_option = click.option(
    "--principal",
    default=ANONYMOUS.id,
    show_default=True,
    metavar="ID",
    help="Whose: an access token's id, as `parley token list --json` tells it.",
)


@click.group(cls=CommandGroup)
def conversation() -> None:
    """Conversations: look through, take along, bring back, forget. Works while the service runs.

    \b
    Examples:
      parley conversation list
      parley conversation export conv_0123 --format markdown > talk.md
      parley conversation search flour
    """


@conversation.command("list")
@principal_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_conversations(principal: str, as_json: bool) -> None:
    """List the latest conversations, the last used first.

    \b
    Example:
      parley conversation list --json
    """
    found = _with_archive(lambda archive: archive.summaries(Principal(principal), MAX_PAGE))
    if as_json:
        facts = [{"id": s.id, "title": s.title, "num_turns": s.num_turns} for s in found]
        click.echo(json.dumps(facts, indent=1, ensure_ascii=False))
        return
    for summary in found:
        day = datetime.fromtimestamp(summary.updated_at, UTC).strftime("%Y-%m-%d %H:%M")
        click.echo(f"{day}  {summary.id}  {summary.num_turns:>4}  {summary.title}")


@conversation.command()
@click.argument("words", nargs=-1, required=True)
@principal_option
def search(words: tuple[str, ...], principal: str) -> None:
    """Find messages that have all WORDS, the newest first.

    \b
    Example:
      parley conversation search flour yeast
    """
    for hit in _with_archive(lambda a: a.search(Principal(principal), " ".join(words), 50)):
        click.echo(f"{hit.conversation_id}  turn {hit.turn}  {hit.role.value}: {hit.snippet}")


@conversation.command()
@click.argument("conversation_id")
@click.option("--format", "kind", type=click.Choice(["json", "markdown"]), default="json")
@principal_option
def export(conversation_id: str, kind: str, principal: str) -> None:
    """Write one conversation to the standard output.

    \b
    Example:
      parley conversation export conv_0123 > talk.json
    """
    exported = _with_archive(lambda a: a.export(Principal(principal), conversation_id))
    if kind == "markdown":
        click.echo(to_markdown(exported), nl=False)
    else:
        click.echo(json.dumps(to_document(exported), indent=1, ensure_ascii=False))


@conversation.command("import")
@click.argument("file", type=click.File("rb"))
@principal_option
def bring(file: BinaryIO, principal: str) -> None:
    """Keep a conversation that `export` wrote, under a new id, which is printed.

    \b
    Example:
      parley conversation import talk.json
    """
    try:
        document = json.load(file)
    except ValueError as error:
        raise InvalidRequest(f"{file.name} is not JSON: {error}.") from error
    title, said = from_document(document)
    click.echo(_with_archive(lambda a: a.bring(Principal(principal), title, said)))


@conversation.command()
@click.argument("conversation_id")
@click.argument("title")
@principal_option
def rename(conversation_id: str, title: str, principal: str) -> None:
    """Give a conversation another TITLE.

    \b
    Example:
      parley conversation rename conv_0123 "Bread, at last"
    """
    _with_archive(lambda a: a.rename(Principal(principal), conversation_id, title))


@conversation.command()
@click.argument("conversation_id")
@click.option("--last-turn", type=click.IntRange(min=0), help="Leave out what came after it.")
@principal_option
def fork(conversation_id: str, last_turn: int | None, principal: str) -> None:
    """Copy a conversation under a new id, which is printed.

    \b
    Example:
      parley conversation fork conv_0123 --last-turn 3
    """
    whose = Principal(principal)
    click.echo(_with_archive(lambda a: a.fork(whose, conversation_id, last_turn)).id)


@conversation.command()
@click.argument("conversation_id")
@principal_option
def delete(conversation_id: str, principal: str) -> None:
    """Forget one conversation.

    \b
    Example:
      parley conversation delete conv_0123
    """
    if not with_database(lambda d: SqlConversations(d).delete(principal, conversation_id)):
        raise ConversationNotFound.named(conversation_id)


@conversation.command()
@principal_option
@click.option("--yes", is_flag=True, help="Don't ask.")
def erase(principal: str, yes: bool) -> None:
    """Forget all conversations of one principal.

    \b
    Example:
      parley conversation erase --principal tok_0123
    """
    if not yes:
        click.confirm(f"Forget all conversations of {principal}?", abort=True, err=True)
    num = _with_archive(lambda archive: archive.erase(Principal(principal)))
    click.echo(f"{num} conversations are forgotten.")


@click.command()
@click.argument("target", type=click.Path(path_type=Path))
@click.option(
    "--keep",
    default=7,
    show_default=True,
    type=click.IntRange(1),
    help="How many copies to keep, where TARGET is a folder.",
)
def backup(target: Path, keep: int) -> None:
    """Copy the database, conversations and access tokens, to TARGET while the service runs.

    \b
    Examples:
      parley backup monday.sqlite
      parley backup /var/backups/parley/

    In a folder the copy is named after the day, and the oldest copies are deleted. To restore: stop
    the service, put the file in place of parley.sqlite, start it.
    """
    source = Path(store_url(load_settings()).database or "")
    if not source.is_file():
        raise ConfigurationError(f"There is no database {source} to back up yet.")
    file = target
    if target.is_dir():
        file = target / f"parley-{datetime.now(UTC):%Y-%m-%d}.sqlite"
    if file.exists() and file.samefile(source):
        raise ConfigurationError(f"{file} is the database itself; name another file.")
    unfinished = file.with_name(file.name + ".part")
    try:
        _copy(source, unfinished)
        unfinished.replace(file)
        if target.is_dir():
            for old in sorted(target.glob("parley-????-??-??.sqlite"))[:-keep]:
                old.unlink()
    except (OSError, sqlite3.Error) as error:
        unfinished.unlink(missing_ok=True)
        raise ConfigurationError(f"{file} could not be written: {error}.") from error
    click.echo(f"{file}: {file.stat().st_size} bytes.", err=not sys.stdout.isatty())


def _copy(source: Path, target: Path) -> None:
    """sqlite's online copy: consistent, and nobody has to wait. Its result is checked."""
    target.touch(mode=0o600)
    with (
        closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as ours,
        closing(sqlite3.connect(target)) as copy,
    ):
        ours.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")
        verdict = copy.execute("PRAGMA integrity_check").fetchone()[0]
    if verdict != "ok":
        raise sqlite3.DatabaseError(f"the copy is not sound: {verdict}")


def _with_archive(work: Callable[[Archive], Awaitable[T]]) -> T:
    return with_database(lambda database: work(Archive(SqlArchive(database))))
