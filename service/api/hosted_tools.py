"""Tools that the vendors' own servers run, and this one can't: what becomes of requests with them.

Beside tools that can be called they are an extra, which is left out, and that is told in a header.
Where nothing else is offered, or one of them is demanded, the request is refused by name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from service.domain.errors import Unsupported
from service.log import get_logger

_log = get_logger(__name__)

HEADER = "X-Tools-Left-Out"


@dataclass(frozen=True, slots=True)
class Hosted:
    """A tool of the vendor's: its type, and what the request calls its place."""

    type: str
    where: str


def hosted_among(
    types: Iterable[str | None], run_by_clients: Collection[str | None]
) -> tuple[Hosted, ...]:
    """Those of a request's `tools`, told by their types, that no client runs."""
    return tuple(
        Hosted(kind or "", f"tools[{index}]")
        for index, kind in enumerate(types)
        if kind not in run_by_clients
    )


def refuse_or_leave_out(
    hosted: Sequence[Hosted], *, alone: bool, accepted: str, demanded: str | None = None
) -> None:
    """Leave them out, unless they are all that may be called (`alone`), or `demanded` is the type
    of one. Raises `Unsupported`."""
    for tool in hosted:
        if alone or tool.type == demanded:
            raise Unsupported(
                f"{tool.where}.type is {tool.type[:40]!r}, which nobody runs here; only "
                f"{accepted} are supported.",
                param=f"{tool.where}.type",
            )
        _log.info("tool_left_out", type=tool.type[:40])


def disclosed(hosted: Sequence[Hosted]) -> dict[str, str]:
    """The header that names what was left out, if anything was."""
    names = dict.fromkeys(tool.type[:40].encode("ascii", "replace").decode() for tool in hosted)
    return {HEADER: ", ".join(names)} if names else {}
