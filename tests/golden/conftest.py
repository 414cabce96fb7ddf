"""The vendor's published schema, for replies that claim to follow it."""

from tests.sdk.published import published

__all__ = ["published"]
