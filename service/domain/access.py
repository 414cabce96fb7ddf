"""Who is asking."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Principal:
    """Whom a request speaks for. Everything that is kept or cached belongs to one."""

    id: str
    name: str = ""


ANONYMOUS = Principal(id="anonymous", name="anonymous")
