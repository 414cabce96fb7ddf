"""The command itself: read a line, answer it, until there is no more."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from pathlib import Path

import click
from prompt_toolkit import PromptSession
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.history import FileHistory, InMemoryHistory

from service.cli.chat.client import Client, Refused
from service.cli.chat.commands import Commands, Leave
from service.cli.chat.screen import Screen, footer, stoppable
from service.cli.chat.session import Session
from service.settings import load_settings

EXIT_REFUSED = 1


@click.command()
@click.argument("message", nargs=-1)
@click.option(
    "--url",
    default="http://127.0.0.1:8000",
    show_default=True,
    envvar="PARLEY_URL",
    help="Where the service is; also in PARLEY_URL.",
)
@click.option(
    "--token", envvar="PARLEY_TOKEN", metavar="SECRET", help="Access token; also in PARLEY_TOKEN."
)
@click.option("--system", metavar="TEXT", help="System prompt instead of the service's.")
@click.option("--conversation", metavar="ID", help="Go on with this conversation.")
def chat(
    message: tuple[str, ...],
    url: str,
    token: str | None,
    system: str | None,
    conversation: str | None,
) -> None:
    """Chat in the terminal, or answer MESSAGE and what is piped in.

    \b
    Examples:
      parley chat
      parley chat --url https://chat.example.org --token parley_…
      parley chat "What is the capital of France?"
      cat notes.txt | parley chat "Summarise this:"

    /help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves.
    """
    client = Client(url, token)
    session = Session(client, system_prompt=system)
    screen = Screen()
    try:
        session.refresh()
        if conversation:
            session.open(conversation)
        if message or not sys.stdin.isatty():
            _answer_once(session, screen, _script(" ".join(message)))
        else:
            _converse(session, screen)
    except Refused as error:
        click.echo(f"parley: error: {error.message}", err=True)
        sys.exit(EXIT_REFUSED)
    finally:
        client.close()


def _script(message: str) -> list[str]:
    """The lines to be answered where nobody types: MESSAGE and what is piped in are one message;
    what is piped in is a line at a time only where it begins with a command."""
    piped = "" if sys.stdin.isatty() else sys.stdin.read()
    if not message and piped.startswith("/"):
        return [line for line in piped.splitlines() if line.strip()]
    whole = "\n\n".join(part for part in (message, piped.strip()) if part)
    return [whole] if whole else []


def _answer_once(session: Session, screen: Screen, lines: Iterable[str]) -> None:
    """Answer each, and fail at the first that cannot be answered."""
    commands = Commands(session, screen)
    for line in lines:
        try:
            _take(line, commands, screen)
        except Leave:
            return


def _converse(session: Session, screen: Screen) -> None:
    commands = Commands(session, screen)
    screen.say("Welcome to Parley. /help lists the commands, Ctrl-D leaves.")
    screen.say(f"Current model: {session.model or 'none yet'}")
    prompt = _create_prompt(commands, session)
    while True:
        try:
            line = prompt.prompt("You: ", in_thread=_in_event_loop())
            if line.strip():
                _take(line, commands, screen)
        except Refused as error:
            screen.fail(error.message)
        except KeyboardInterrupt:
            continue
        except (EOFError, Leave):
            screen.say("Goodbye!")
            return


def _take(line: str, commands: Commands, screen: Screen) -> None:
    if line.lstrip().startswith("/"):
        commands.obey(line)
        return
    if screen.is_terminal:
        screen.console.print("Assistant:", style="bold")
    screen.answer(stoppable(commands.session.answer(line)))
    if screen.is_terminal:
        screen.say(footer(commands.session))


def _create_prompt(commands: Commands, session: Session) -> PromptSession[str]:
    words = WordCompleter(list(commands.by_name), sentence=True)
    return PromptSession(
        completer=words,
        complete_while_typing=False,
        auto_suggest=AutoSuggestFromHistory(),
        history=_history(),
        bottom_toolbar=lambda: footer(session),
    )


def _history() -> FileHistory | InMemoryHistory:
    """What was typed before, in a file that only its owner can read."""
    path = Path(load_settings().state_dir) / "chat-history"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
    except OSError:
        return InMemoryHistory()  # nothing to write to is no reason not to chat
    return FileHistory(str(path))


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
