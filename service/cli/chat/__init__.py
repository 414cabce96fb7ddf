"""`parley chat`: a conversation in the terminal, over the same HTTP as every other client."""

from __future__ import annotations

from service.cli.chat.command import chat

__all__ = ["chat"]
