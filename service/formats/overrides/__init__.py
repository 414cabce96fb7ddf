"""What probing a template can't find out. One file each, with the raw text that it is about."""

from __future__ import annotations

from service.formats.overrides import functionary, harmony
from service.formats.overrides.override import Override
from service.formats.overrides.python_tag import with_python_tag

__all__ = ["Override", "find_override", "with_python_tag"]


def find_override(source: str) -> Override | None:
    """The one that the template's source calls for, if any does."""
    overrides = (harmony.OVERRIDE, functionary.OVERRIDE)
    return next((o for o in overrides if all(mark in source for mark in o.marks)), None)
