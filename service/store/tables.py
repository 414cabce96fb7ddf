"""The tables, as the newest migration leaves them."""

from __future__ import annotations

from sqlalchemy import (
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    column,
    table,
    text,
)

metadata = MetaData()

conversations = Table(
    "conversations",
    metadata,
    Column("key", Integer, primary_key=True),
    Column("principal_id", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("title", Text, nullable=False, server_default=text("''")),
    Column("metadata", Text, nullable=False, server_default=text("'{}'")),
    Column("held_by", Text),
    Column("held_until", Float, nullable=False, server_default=text("0")),
    UniqueConstraint("principal_id", "id"),
    Index("conversations_by_recency", "principal_id", "updated_at"),
    Index("conversations_by_age", "updated_at"),
)

messages = Table(
    "messages",
    metadata,
    Column("key", Integer, primary_key=True),
    Column(
        "conversation_key",
        Integer,
        ForeignKey("conversations.key", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("turn", Integer, nullable=False),
    Column("role", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("reasoning", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("stop_wanted", Integer, nullable=False, server_default=text("0")),
    Column("items", Text),
    UniqueConstraint("conversation_key", "turn", "role"),
    Index("messages_being_written", "updated_at", sqlite_where=text("state = 'writing'")),
)

# Made by its migration, since it is sqlite's own kind of table; `rowid` is a message's key.
messages_text = table("messages_text", column("rowid"), column("principal"), column("content"))

access_tokens = Table(
    "access_tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("prefix", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("issued_at", Float, nullable=False),
    Column("expires_at", Float),
    Column("last_used_at", Float),
    Column("revoked_at", Float),
    Column("requests_per_minute", Integer),
    Column("limits", Text, nullable=False, server_default=text("'{}'")),
    UniqueConstraint("digest"),
)

admissions = Table(
    "admissions",
    metadata,
    Column("key", Integer, primary_key=True),
    Column("principal_id", Text, nullable=False),
    Column("at", Float, nullable=False),
    Index("admissions_by_time", "principal_id", "at"),
)

answers = Table(
    "answers",
    metadata,
    Column("key", Integer, primary_key=True),
    Column("principal_id", Text, nullable=False),
    Column("tokens", Integer, nullable=False),
    Column("began_at", Float, nullable=False),
    Column("ended_at", Float),
    Column("leased_until", Float, nullable=False),
    Column("model", Text, nullable=False, server_default=text("''")),
    Column("prompt_tokens", Integer, nullable=False, server_default=text("0")),
    Index("answers_by_end", "principal_id", "ended_at", "tokens"),
)

usage = Table(
    "usage",
    metadata,
    Column("principal_id", Text, primary_key=True),
    Column("day", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("answers", Integer, nullable=False),
    Column("prompt_tokens", Integer, nullable=False),
    Column("cached_tokens", Integer, nullable=False),
    Column("completion_tokens", Integer, nullable=False),
)

failures = Table(
    "failures",
    metadata,
    Column("network", Text, primary_key=True),
    Column("paid_until", Float, nullable=False),
    Index("failures_by_time", "paid_until"),
)

audit = Table(
    "audit",
    metadata,
    Column("key", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("actor", Text, nullable=False),
    Column("act", Text, nullable=False),
    Column("about", Text, nullable=False),
)

responses = Table(
    "responses",
    metadata,
    Column("key", Integer, primary_key=True),
    Column("principal_id", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("previous_id", Text),
    Column("created_at", Float, nullable=False),
    Column("input", Text, nullable=False),
    Column("reply", Text, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'ended'")),
    Column("updated_at", Float, nullable=False, server_default=text("0")),
    UniqueConstraint("principal_id", "id"),
    Index("responses_by_age", "created_at"),
)

response_events = Table(
    "response_events",
    metadata,
    Column("key", Integer, primary_key=True),
    Column(
        "response_key",
        Integer,
        ForeignKey("responses.key", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("first_number", Integer, nullable=False),
    Column("events", LargeBinary, nullable=False),
    UniqueConstraint("response_key", "first_number"),
)

preferences = Table(
    "preferences",
    metadata,
    Column("principal_id", Text, primary_key=True),
    Column("conversation_id", Text, primary_key=True),
    Column("model", Text, nullable=False),
)
