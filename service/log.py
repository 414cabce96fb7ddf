"""Structured logs: an event in the past tense, facts as keys, one line each, on stderr.

Message contents and access tokens are never logged. The request id travels in a context
variable, and over the wire in `Submit`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol


@contextmanager
def _absent(name: str) -> Iterator[None]:
    """Meanwhile `import name` fails, as if it were not installed."""
    known = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]  # what the import system looks for
    try:
        yield
    finally:
        del sys.modules[name]
        if known is not None:
            sys.modules[name] = known


# For tracebacks that ours are not drawn with, it would take 5 MB of every process.
with _absent("rich"):
    import structlog

Logger = structlog.stdlib.BoundLogger


class LogChoices(Protocol):
    """What this needs from the table of settings, which stands beside it and not below."""

    @property
    def level(self) -> str: ...

    @property
    def format(self) -> str: ...


def configure(settings: LogChoices, role: str) -> None:
    """Route structlog and the standard library's logging into one stream; `role` is the process."""
    readable = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _with_role(role),
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if readable else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    for noisy in ("uvicorn.access", "httpx", "huggingface_hub"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def get_logger(name: str) -> Logger:
    logger: Logger = structlog.stdlib.get_logger(name)
    return logger


def _with_role(role: str) -> structlog.typing.Processor:
    def add_role(
        _logger: Any, _method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        event["role"] = role
        return event

    return add_role
