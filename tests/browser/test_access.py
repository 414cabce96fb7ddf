"""The page, where an access token is needed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, expect

from service.auth.secrets import new_secret
from service.auth.tokens import AccessTokens
from service.domain.access import Scope
from service.settings import Settings
from service.store.access_tokens import SqlAccessTokens
from service.store.database import open_database
from tests.browser.conftest import visit
from tests.fakes.engine import FakeEngine

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


@pytest_asyncio.fixture(loop_scope="session")
async def tokens(tmp_path: Path) -> AsyncIterator[AccessTokens]:
    database = await open_database(Settings(state_dir=tmp_path))
    yield AccessTokens(SqlAccessTokens(database))
    await database.aclose()


async def test_a_token_is_pasted_once_and_kept_where_no_script_can_read_it(
    context: BrowserContext, address: str, engine: FakeEngine, tokens: AccessTokens
) -> None:
    _, secret = await tokens.create("laptop", frozenset({Scope.CHAT}), None)
    visitor = await visit(context, address)
    page = visitor.page
    await expect(page.locator("#composer")).to_be_hidden()
    await page.get_by_label("access token").fill(new_secret())
    await page.get_by_role("button", name="Enter").click()
    await expect(page.get_by_role("alert")).to_contain_text("is unknown")
    await page.get_by_label("access token").fill(f" {secret}")
    await page.keyboard.press("Enter")
    await expect(page.locator("#door")).to_be_hidden()
    engine.answers("Welcome.")
    await visitor.ask("Hello")
    await expect(visitor.prose).to_have_text("Welcome.")
    kept = await context.cookies(address)
    assert [(c["name"], c["httpOnly"], c["sameSite"]) for c in kept] == [
        ("parley_access", True, "Strict")
    ]
    readable = "document.cookie + JSON.stringify(localStorage) + document.body.innerHTML"
    assert secret not in await page.evaluate(readable)
    await page.reload()
    await expect(page.locator("#composer")).to_be_visible()
    assert visitor.complaints == []


async def test_a_token_that_ends_while_the_page_is_open_is_asked_for_again(
    context: BrowserContext, address: str, engine: FakeEngine, tokens: AccessTokens
) -> None:
    visitor = await visit(context, address)
    await expect(visitor.page.locator("#door")).to_be_hidden()
    _, secret = await tokens.create("laptop", frozenset({Scope.CHAT}), None)
    await visitor.ask("Hello")
    await expect(visitor.page.locator(".failure")).to_contain_text("needs an access token")
    await visitor.page.get_by_label("access token").fill(secret)
    await visitor.page.keyboard.press("Enter")
    await expect(visitor.page.locator("#composer")).to_be_visible()
    engine.answers("Welcome back.")
    await visitor.page.get_by_role("button", name="Try again").click()
    await expect(visitor.prose).to_have_text("Welcome back.")
    assert visitor.complaints == []
