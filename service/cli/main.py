"""`parley`: one group of commands, and the one place where a refusal becomes an exit code."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module

import click

from service import __version__
from service.cli.group import CommandGroup
from service.core_files import forbid_core_files
from service.domain.errors import ServiceError
from service.settings import read_dotenv

EXIT_REFUSED = 2

# Where each command is; what the others need is not imported for it.
COMMANDS: Mapping[str, str] = {
    "backup": "service.cli.conversation",
    "calibrate": "service.cli.calibrate",
    "chat": "service.cli.chat",
    "config": "service.cli.config",
    "conversation": "service.cli.conversation",
    "doctor": "service.cli.doctor",
    "health": "service.cli.health",
    "model": "service.cli.model",
    "serve": "service.cli.serve",
    "token": "service.cli.token",
}


class Commands(CommandGroup):
    """Imports a command when it is wanted."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(COMMANDS[cmd_name]), cmd_name)
        return command


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 failed, 2 something to correct in what was given.",
)
@click.version_option(__version__, "--version", prog_name="parley", message="%(prog)s %(version)s")
def parley() -> None:
    """Parley, a private chat service on a model of your own.

    \b
    Example:
      parley serve --model pocket
      curl http://127.0.0.1:8000/chat --json '{"message": "Hello!"}'
    """


def main() -> None:
    """The console script. A refusal is one sentence on stderr and exit code 2, no traceback."""
    forbid_core_files()
    read_dotenv()
    try:
        parley()
    except ServiceError as error:
        click.echo(f"parley: error: {error.message}", err=True)
        sys.exit(EXIT_REFUSED)
