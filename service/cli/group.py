"""How the commands of a group are listed in its help."""

from __future__ import annotations

import click

_LONGEST_SENTENCE = 1000


class CommandGroup(click.Group):
    """Lists each command with its whole first sentence; click cuts it where the line ends."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                rows.append((name, command.get_short_help_str(_LONGEST_SENTENCE)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)
