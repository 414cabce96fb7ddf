"""What several dialects refuse in the same words."""

from __future__ import annotations

from collections.abc import Iterable

from service.domain.errors import InvalidRequest, Unsupported

_TRUNCATIONS = (None, "auto", "disabled")


def refuse_fields(body: object, names: Iterable[str]) -> None:
    """Refuse those of the body's fields that ask for something (neither absent nor empty), where
    silence would change what is answered. Raises `Unsupported`."""
    for name in names:
        if getattr(body, name):
            raise Unsupported(f"{name} is not supported; leave it out.", param=name)


def wants_truncation(truncation: str | None) -> bool:
    """Whether what is too long is to be made shorter. Raises `InvalidRequest`."""
    if truncation not in _TRUNCATIONS:
        raise InvalidRequest(
            f"truncation is {str(truncation)[:40]!r}; it must be 'auto' or 'disabled'.",
            param="truncation",
        )
    return truncation == "auto"
