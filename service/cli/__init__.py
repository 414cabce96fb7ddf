"""The operator's hand. Does nothing that an endpoint or another root does not."""

from service.cli.main import main

__all__ = ["main"]
