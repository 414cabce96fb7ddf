"""What is seen: answers as Markdown while they come, tables, one line of state."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console
from rich.live import Live
from rich.markdown import Markdown
from rich.table import Table

from service.cli.chat.session import Session

_FENCE = re.compile(r"^ {0,3}(```|~~~)", re.MULTILINE)
# What moves the cursor or rewrites the screen has no business in an answer.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_REFRESH_PER_SECOND = 12


class Screen:
    """Writes to a terminal, or plainly to whatever else stdout is."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self.is_terminal = self.console.is_terminal

    def answer(self, pieces: Iterable[str]) -> None:
        """Show an answer as it comes. What is complete stays where it was written; only the last
        paragraph is written anew with each piece."""
        if not self.is_terminal:
            self._plainly(pieces)
            return
        pending = ""
        with Live(console=self.console, refresh_per_second=_REFRESH_PER_SECOND) as live:
            for piece in pieces:
                pending += _CONTROL.sub("", piece)
                done, pending = split_complete(pending)
                if done:
                    live.update("")
                    live.console.print(Markdown(done))
                live.update(Markdown(pending))

    def _plainly(self, pieces: Iterable[str]) -> None:
        for piece in pieces:
            self.console.file.write(piece)
            self.console.file.flush()
        self.console.file.write("\n")

    def say(self, text: str) -> None:
        """A line of the program's own."""
        self.console.print(text, style="dim" if self.is_terminal else None, markup=False)

    def fail(self, sentence: str) -> None:
        self.console.print(sentence, style="red" if self.is_terminal else None, markup=False)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        table = Table(*columns)
        for row in rows:
            table.add_row(*row)
        self.console.print(table)


def split_complete(text: str) -> tuple[str, str]:
    """The paragraphs that nothing to come can change, and the rest. Inside a code block nothing
    is complete until it is closed."""
    at = text.rfind("\n\n")
    while at > 0:
        if len(_FENCE.findall(text[:at])) % 2 == 0 and not _in_list(text[at + 2 :]):
            return text[:at], text[at + 2 :]
        at = text.rfind("\n\n", 0, at)
    return "", text


def _in_list(rest: str) -> bool:
    """Whether what follows may belong to a list that began before: numbered lists would count
    from one again."""
    return bool(re.match(r"\s*$|\s*([-*+]|\d+[.)])(\s|$)| {2,}", rest))


def footer(session: Session) -> str:
    """Model, speed of the last answer, use of the window."""
    parts = [session.model or "no model"]
    told = session.told
    if told.tokens:
        parts.append(f"{told.tokens} tokens")
    if told.tokens_per_second:
        parts.append(f"{told.tokens_per_second:.1f} tokens/s")
    if session.window and told.window_used:
        share = told.window_used / session.window
        parts.append(f"context {told.window_used} of {session.window} ({share:.0%})")
    return " · ".join(parts)


def stoppable(pieces: Iterator[str]) -> Iterator[str]:
    """The pieces until Ctrl-C, which ends the answer and not the program."""
    try:
        yield from pieces
    except KeyboardInterrupt:
        yield " …"
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            close()
