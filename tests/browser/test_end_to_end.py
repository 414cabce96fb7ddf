"""A browser, `parley serve` and the built-in model: nothing is made up."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.async_api import BrowserContext, expect

from tests.browser.conftest import visit
from tests.e2e.parley import Parley, running_parley

pytestmark = [
    pytest.mark.browser,
    pytest.mark.model,
    pytest.mark.asyncio(loop_scope="session"),
]


@pytest.fixture(scope="module")
def parley(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parley]:
    with running_parley(tmp_path_factory.mktemp("parley"), "--model", "pocket") as service:
        service.wait_healthy()
        yield service


async def test_a_person_asks_follows_up_and_starts_anew(
    context: BrowserContext, parley: Parley
) -> None:
    visitor = await visit(context, parley.url)
    page = visitor.page
    await expect(page.locator("#status")).to_have_text("pocket")
    await visitor.ask("What is the capital of France?")
    await expect(visitor.prose).to_contain_text("Paris")
    facts = page.locator(".facts")
    await expect(facts).to_have_text(re.compile(r"^\d+ tokens · [\d.]+ tokens/s$"))
    await visitor.ask("And of Japan?")
    await expect(facts).to_have_count(2)
    await page.get_by_role("button", name="New chat").click()
    await expect(visitor.answers).to_have_count(0)
    assert visitor.complaints == []
