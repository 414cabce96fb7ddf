"""A real Chromium, and the real application on a real port, with a fake engine behind it.

Server, engine and browser share one event loop, so a test lets the engine write a token and looks
at the page, without sleeping.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from service.api.app import create_app
from service.settings import Settings
from service.store.database import open_store
from tests.fakes.engine import FakeEngine
from tests.serving import served

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# The page is all that may be loaded: no updates, no components, no other protocols.
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

# What has to come comes; how soon is a matter of what else the machine has to do.
_SECONDS = 60
expect.set_options(timeout=1000 * _SECONDS)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        bundled = playwright.chromium.executable_path
        program = next(filter(None, map(shutil.which, (*_PROGRAMS, bundled))), None)
        if program is None:
            pytest.skip("no Chromium here; install the system's `chromium` package")
        browser = await playwright.chromium.launch(executable_path=program, args=list(_FLAGS))
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def engine() -> FakeEngine:
    return FakeEngine()


@pytest_asyncio.fixture(loop_scope="session")
async def address(engine: FakeEngine, tmp_path: Path) -> AsyncIterator[str]:
    """Where the application answers, as `http://127.0.0.1:PORT`."""
    async with application(engine, tmp_path) as url:
        yield url


@asynccontextmanager
async def application(engine: FakeEngine, folder: Path) -> AsyncIterator[str]:
    settings = Settings(state_dir=folder)
    store = await open_store(settings)
    app = create_app(settings, engine, store)
    async with served(app, timeout_graceful_shutdown=1) as url:
        yield url
    await store.aclose()


@dataclass
class Visitor:
    """Somebody with the page open. `complaints` holds every error the browser reported."""

    page: Page
    complaints: list[str]

    async def ask(self, text: str) -> None:
        """As soon as nothing is being answered: before, Enter sends nothing."""
        await expect(self.page.get_by_role("button", name="Send")).to_be_visible()
        await self.page.get_by_label("Message", exact=True).fill(text)
        await self.page.keyboard.press("Enter")

    @property
    def answers(self) -> Any:
        return self.page.locator(".answer")

    @property
    def prose(self) -> Any:
        return self.page.locator(".answer .prose").last


@pytest_asyncio.fixture(loop_scope="session")
async def context(chromium: Browser) -> AsyncIterator[BrowserContext]:
    async with await chromium.new_context() as made:
        made.set_default_timeout(1000 * _SECONDS)
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def visitor(context: BrowserContext, address: str) -> AsyncIterator[Visitor]:
    """A visitor on the page; fails the test if the browser complained about anything."""
    made = await visit(context, address)
    yield made
    assert made.complaints == []


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def workbench(
    chromium: Browser, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Page]:
    """One page for all tests that only call its modules."""
    folder = tmp_path_factory.mktemp("workbench")
    async with application(FakeEngine(), folder) as url, await chromium.new_context() as context:
        visitor = await visit(context, url)
        yield visitor.page
        assert visitor.complaints == []


async def visit(context: BrowserContext, address: str) -> Visitor:
    page = await context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(f"uncaught: {error}"))
    page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
    page.on("console", lambda said: complaints.append(said.text) if _is_fault(said) else None)
    await page.goto(address)
    await page.wait_for_selector("html[data-ready]")
    return Visitor(page, complaints)


def _is_fault(message: Any) -> bool:
    """Errors and violations of the security policy; a refused request is no fault of the page."""
    refused = message.text.startswith("Failed to load resource")
    expected = refused and any(status in message.text for status in ("503", "401"))
    return message.type == "error" and not expected
