"""`parley`: one group of commands, and the one place where a refusal becomes an exit code."""

from __future__ import annotations

import sys

import click

from service import __version__
from service.cli.calibrate import calibrate
from service.cli.config import config
from service.cli.conversation import backup, conversation
from service.cli.health import health
from service.cli.serve import serve
from service.cli.token import token
from service.domain.errors import ServiceError

EXIT_REFUSED = 2


@click.group(
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


parley.add_command(serve)
parley.add_command(config)
parley.add_command(calibrate)
parley.add_command(health)
parley.add_command(token)
parley.add_command(conversation)
parley.add_command(backup)


def main() -> None:
    """The console script. A refusal is one sentence on stderr and exit code 2, no traceback."""
    try:
        parley()
    except ServiceError as error:
        click.echo(f"parley: error: {error.message}", err=True)
        sys.exit(EXIT_REFUSED)
