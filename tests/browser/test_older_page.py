"""The page of an earlier system, unchanged, talks to this service."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, Page, expect

from tests.fakes.engine import FakeEngine

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

OLDER_PAGE = (Path(__file__).parent / "older_page.html").read_text()


async def open_page(context: BrowserContext, address: str) -> Page:
    page = await context.new_page()
    await page.route(
        "**/older", lambda route: route.fulfill(body=OLDER_PAGE, content_type="text/html")
    )
    await page.goto(f"{address}/older")
    return page


async def ask(page: Page, text: str) -> None:
    await page.fill("#userInput", text)
    await page.click("#sendBtn")


async def test_the_older_page_shows_the_answer_and_goes_on_with_its_history(
    context: BrowserContext, address: str, engine: FakeEngine
) -> None:
    page = await open_page(context, address)
    engine.answers("Hello Ada.", "Your name is Ada.")
    await ask(page, "My name is Ada.")
    await expect(page.locator("#log")).to_contain_text("Hello Ada.")
    await ask(page, "What is my name?")
    await expect(page.locator("#log")).to_contain_text("Your name is Ada.")
    assert "My name is Ada." in "".join(piece.text for piece in engine.jobs[1].prompt)


async def test_the_older_page_loses_nothing_around_line_breaks(
    context: BrowserContext, address: str, engine: FakeEngine
) -> None:
    page = await open_page(context, address)
    engine.answers("One\n\ntwo\n\n\nthree [END] four\nfive")
    await ask(page, "Write lines")
    last = page.locator("#log .msg").last
    await expect(last).to_contain_text("five")
    assert (await last.inner_text()).split()[-6:] == [
        "One",
        "two",
        "three",
        "[END]",
        "four",
        "five",
    ]
