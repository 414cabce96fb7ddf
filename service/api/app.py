"""The application: its parts, its routes, and what surrounds every request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from service import __version__, log
from service.api import admin, conversation_items, docs, health, login, models
from service.api import conversations as conversation_routes
from service.api.access import Access
from service.api.deps import Parts
from service.api.dialects import anthropic, legacy, llama_server, native, openai, responses
from service.api.errors import ErrorReplies, install_error_replies
from service.api.middleware import (
    BodyDeadline,
    BodyLimit,
    InternalErrors,
    Requests,
    SecurityHeaders,
)
from service.api.patience import Patience
from service.api.terms import StatedTerms
from service.auth.door import Door, is_reachable_by_others
from service.auth.limits import RequestLimits
from service.auth.names import OwnNames
from service.auth.spending import Spending
from service.auth.throttle import FailureThrottle
from service.auth.tokens import AccessTokens
from service.chat.accounting import Accounts
from service.chat.archive import Archive
from service.chat.conversations import Conversations
from service.chat.embed import Vectors
from service.chat.generate import Chat
from service.chat.items import Items
from service.chat.keeper import ConversationStore
from service.chat.preferences import Preferences
from service.chat.responses import Responses
from service.chat.switching import Switching
from service.domain.access import ANONYMOUS, Limits, Principal
from service.domain.errors import ConfigurationError
from service.ipc.client import Engines, connect_engines
from service.metrics import BUILD_INFO
from service.pictures.album import Album
from service.settings import AuthSettings, Settings, load_settings
from service.store.access_tokens import SqlAccessTokens
from service.store.admissions import SqlAdmissions
from service.store.archive import SqlArchive
from service.store.conversations import SqlConversations
from service.store.database import Database, open_database
from service.store.failures import SqlFailures
from service.store.items import SqlItems
from service.store.preferences import SqlPreferences
from service.store.responses import SqlResponses
from service.store.spending import SqlSpending

# How slowly a body may arrive; as nginx has it, which lets nobody be slow at our expense.
SILENCE_SECONDS = 15.0
SLOWEST_SECONDS = 30.0
LEAST_BYTES_PER_SECOND = 16 * 1024

# The first prefix that a path carries decides, so narrower ones come first, the empty one last.
DIALECTS = (anthropic, responses, openai, legacy, native)
ROUTERS = (
    health.router,
    login.router,
    docs.router,
    admin.router,
    conversation_routes.router,
    conversation_items.router,
    models.router,
    llama_server.router,
    llama_server.infill_router,
    openai.completions_router,
    openai.embeddings_router,
    openai.prompts_router,
    *(dialect.router for dialect in DIALECTS),
)


def create_app(
    settings: Settings | None = None,
    engines: Engines | None = None,
    store: ConversationStore | None = None,
) -> FastAPI:
    """The ASGI application of one worker.

    What is not given is made when the application starts: settings from the environment, engines
    as the supervisor announces them, conversations in the store that the settings name. Access
    tokens are always there. Raises `ConfigurationError`.
    """
    if settings is None:
        settings = load_settings()
        log.configure(settings.log, "worker")
    replies = ErrorReplies(
        [
            *((path, llama_server.to_error) for path in llama_server.PATHS),
            (openai.TEMPLATE_PATH, openai.to_error),
            *((dialect.PREFIX, dialect.to_error) for dialect in DIALECTS),
        ]
    )
    app = FastAPI(
        title="Parley",
        version=__version__,
        description="A self-hosted chat service on a local model.",
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan(settings, engines, store),
        middleware=_middleware(settings, replies),
        # As they are: `include_router` would have the first request build each of them once more.
        routes=[route for router in ROUTERS for route in router.routes],
    )
    app.mount("/static", Static(directory=native.STATIC, check_dir=False), name="static")
    install_error_replies(app, replies)
    return app


def _middleware(settings: Settings, replies: ErrorReplies) -> list[Middleware]:
    dialects = {path: dialect.NAME for dialect in DIALECTS for path in dialect.CHAT_PATHS}
    return [
        Middleware(Requests, dialects=dialects),
        Middleware(InternalErrors, replies=replies),
        Middleware(SecurityHeaders),
        *_cors(settings.api.cors_origins.replace(",", " ").split()),
        Middleware(Access, replies=replies),
        Middleware(BodyLimit, max_bytes=settings.api.max_body_bytes),
        Middleware(
            BodyDeadline,
            silence_seconds=SILENCE_SECONDS,
            most_seconds=SLOWEST_SECONDS + settings.api.max_body_bytes / LEAST_BYTES_PER_SECOND,
        ),
        Middleware(Patience, paths=dialects, seconds=settings.api.keepalive_comment_seconds),
        Middleware(StatedTerms, replies=replies),
    ]


def _cors(origins: list[str]) -> list[Middleware]:
    """Lets pages of these sites read replies; never with the page's own cookie."""
    if not origins:
        return []
    allowed = Middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["*"],
        expose_headers=["*"],
        max_age=3600,
    )
    return [allowed]


def _lifespan(settings: Settings, engines: Engines | None, store: ConversationStore | None) -> Any:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        BUILD_INFO.labels(__version__).set(1)
        used_engines = engines or _connect(settings)
        database = await open_database(settings)
        await used_engines.settled()  # a worker that says it is there can answer
        parts = _assemble(settings, used_engines, database, store)
        app.state.parts = parts
        forgetting = _forgetting(parts.archive, settings.store.keep_days)
        tidying = asyncio.create_task(parts.conversations.tidy())
        try:
            yield
        finally:
            if forgetting is not None:
                forgetting.cancel()
            tidying.cancel()
            await parts.conversations.settle()
            await parts.responses.aclose()
            if engines is None:
                await used_engines.aclose()
            await parts.spending.aclose()
            await database.aclose()

    return lifespan


def _assemble(
    settings: Settings, engines: Engines, database: Database, store: ConversationStore | None
) -> Parts:
    """Who works with whom; conversations are kept in `store`, or with all else in `database`."""
    tokens = AccessTokens(SqlAccessTokens(database))
    names = OwnNames(settings.api.allowed_hosts)
    spending = Spending(SqlSpending(database))
    accounts = Accounts(spending, settings.chat.max_seconds)
    chat = Chat(engines, settings.chat, accounts, Album(settings.pictures))
    switching = Switching(engines, settings, tokens)
    preferences = Preferences(SqlPreferences(database), engines, switching.bring)
    archive = Archive(SqlArchive(database))
    items = Items(archive, SqlItems(database))
    return Parts(
        settings=settings,
        engines=engines,
        chat=chat,
        switching=switching,
        preferences=preferences,
        vectors=Vectors(engines, settings.embed, settings.rerank, spending),
        conversations=Conversations(
            chat, store or SqlConversations(database), preferences=preferences
        ),
        archive=archive,
        door=_door(settings, tokens, FailureThrottle(SqlFailures(database)), names),
        names=names,
        limits=RequestLimits(SqlAdmissions(database)),
        spending=spending,
        access_tokens=tokens,
        responses=Responses(SqlResponses(database)),
        items=items,
    )


def _forgetting(archive: Archive, days: float) -> asyncio.Task[None] | None:
    """What forgets old conversations in the background, where the operator wants that."""
    return asyncio.create_task(archive.forget_unused(days)) if days else None


def to_stranger(auth: AuthSettings) -> Principal:
    """Whom those without an access token speak for, where none is needed."""
    limits = Limits(
        tokens_per_minute=auth.anonymous_tokens_per_minute or None,
        streams=auth.anonymous_streams or None,
    )
    return replace(
        ANONYMOUS,
        requests_per_minute=auth.anonymous_requests_per_minute or None,
        limits=limits,
    )


def _door(
    settings: Settings, tokens: AccessTokens, throttle: FailureThrottle, names: OwnNames
) -> Door:
    api, allowed = settings.api, settings.auth.allow_anonymous
    others = is_reachable_by_others(api.host, api.unix_socket)
    return Door(
        tokens,
        throttle,
        # Guests that the operator lets in come by names that we can't know.
        OwnNames("*") if others or allowed else names,
        may_stand_open=allowed or not others,
        stranger=to_stranger(settings.auth),
    )


def _connect(settings: Settings) -> Engines:
    if settings.runtime_dir is None:
        raise ConfigurationError(
            "PARLEY_RUNTIME_DIR is not set; start the service with `parley serve`."
        )
    return connect_engines(settings.runtime_dir / "status.sock")


class Static(StaticFiles):
    """The page's files; browsers ask each time whether theirs is still the right one."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response
