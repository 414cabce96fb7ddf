"""The conversations that are kept, and the models that there are, as a person sees them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from playwright.async_api import BrowserContext, Page, expect

from service.domain.errors import SwitchFailed
from service.ipc.status import SwitchPhase, SwitchStatus
from tests.browser.conftest import Visitor, visit
from tests.fakes.engine import FakeEngine

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


async def told(visitor: Visitor, engine: FakeEngine, *pairs: tuple[str, str]) -> None:
    """Conversations of one exchange each; the page is on a new chat afterwards."""
    for asked, answer in pairs:
        engine.answers(answer)
        await visitor.ask(asked)
        await expect(visitor.prose).to_have_text(answer)
        await expect(visitor.answers.last).to_have_attribute("aria-busy", "false")
        await visitor.page.get_by_role("button", name="New chat").click()


async def open_shelf(page: Page) -> None:
    await page.get_by_role("button", name="Conversations").click()
    await expect(page.get_by_role("dialog", name="Conversations")).to_be_visible()


async def test_conversations_are_listed_found_and_opened(
    visitor: Visitor, engine: FakeEngine
) -> None:
    page = visitor.page
    await told(visitor, engine, ("Bread, please.", "Flour and water."), ("My boat", "It floats."))
    await open_shelf(page)
    rows = page.locator("#shelf-list li")
    await expect(rows.locator(".title")).to_have_text(["My boat", "Bread, please."])
    await page.get_by_role("searchbox").fill("flour")
    await expect(rows.locator(".title")).to_have_text(["Bread, please."])
    await expect(rows.locator(".when")).to_have_text("Flour and water.")
    await page.get_by_role("searchbox").fill("submarine")
    await expect(page.locator("#shelf-empty")).to_have_text("Nobody said that here.")
    await page.get_by_role("searchbox").fill("flour")
    await rows.get_by_role("button").first.click()
    await expect(page.locator("#shelf")).to_be_hidden()
    await expect(page.locator(".question p")).to_have_text("Bread, please.")
    await expect(visitor.prose).to_have_text("Flour and water.")
    await visitor.ask("How much?")
    await expect(visitor.answers).to_have_count(2)
    await expect(visitor.answers.last).to_have_attribute("aria-busy", "false")
    assert "Flour and water." in "".join(piece.text for piece in engine.jobs[-1].prompt)


async def test_a_conversation_is_renamed_and_forgotten_with_the_keyboard(
    visitor: Visitor, engine: FakeEngine
) -> None:
    page = visitor.page
    await told(visitor, engine, ("Bread, please.", "Flour."), ("My boat", "It floats."))
    await open_shelf(page)
    rows = page.locator("#shelf-list li")
    await page.get_by_role("button", name="Rename Bread").press("Enter")
    await expect(page.get_by_label("Title")).to_be_focused()
    await page.get_by_label("Title").press("Escape")
    await expect(page.locator("#shelf")).to_be_visible()  # only the renaming is given up
    await page.get_by_role("button", name="Rename Bread").press("Enter")
    await page.get_by_label("Title").fill("Loaves")
    await page.get_by_label("Title").press("Enter")
    await expect(rows.locator(".title")).to_have_text(["My boat", "Loaves"])
    await page.get_by_role("button", name="Forget Loaves").press("Enter")
    await expect(page.get_by_role("button", name="Keep")).to_be_focused()
    await page.get_by_role("button", name="Keep").press("Enter")
    await page.get_by_role("button", name="Forget Loaves").press("Enter")
    await page.get_by_role("button", name="Forget", exact=True).press("Enter")
    await expect(rows.locator(".title")).to_have_text(["My boat"])
    await page.keyboard.press("Escape")
    await expect(page.locator("#shelf")).to_be_hidden()
    await expect(page.get_by_role("button", name="Conversations")).to_be_focused()


async def test_forgetting_the_chat_that_is_open_starts_a_new_one(
    visitor: Visitor, engine: FakeEngine
) -> None:
    page = visitor.page
    await visitor.ask("Hello")
    await expect(visitor.answers).to_have_attribute("aria-busy", "false")
    await open_shelf(page)
    await page.get_by_role("button", name="Forget Hello").click()
    await page.get_by_role("button", name="Forget", exact=True).click()
    await expect(page.locator("#shelf-list li")).to_have_count(0)
    await expect(visitor.answers).to_have_count(0)


async def test_a_closed_tab_loses_nothing_and_another_window_watches(
    context: BrowserContext, address: str, visitor: Visitor, engine: FakeEngine
) -> None:
    engine.paced = True
    engine.answers("One two three four")
    await visitor.ask("Count")
    await engine.until(lambda: engine.running)
    await engine.write(2)
    await expect(visitor.prose).to_have_text("One two")
    await visitor.page.close()
    other = await visit(context, address)  # it remembers, and finds it still being written
    await expect(other.prose).to_have_text("One two")
    await expect(other.page.get_by_role("button", name="Stop")).to_be_visible()
    await engine.write(2)
    await expect(other.prose).to_have_text("One two three four")
    await expect(other.page.get_by_role("button", name="Send")).to_be_visible()
    assert not engine.cancelled
    assert other.complaints == []


async def test_a_stopped_answer_is_continued(visitor: Visitor, engine: FakeEngine) -> None:
    engine.paced = True
    engine.answers("One two three four", " drei vier")
    await visitor.ask("Count")
    await engine.until(lambda: engine.running)
    await engine.write(2)
    await expect(visitor.prose).to_have_text("One two")
    await visitor.page.get_by_role("button", name="Stop").click()
    await engine.until(lambda: engine.stopped)
    engine.paced = False
    await visitor.page.get_by_role("button", name="Continue").click()
    await expect(visitor.prose).to_have_text("One two drei vier")
    await expect(visitor.answers).to_have_count(1)


async def test_a_model_is_chosen_and_the_change_is_told(
    visitor: Visitor, engine: FakeEngine
) -> None:
    page = visitor.page
    await page.get_by_role("button", name="Choose a model").click()
    dialog = page.get_by_role("dialog", name="Models")
    rows = dialog.locator("li button")
    await expect(rows.first).to_have_attribute("aria-pressed", "true")
    await expect(rows.first).to_contain_text("fake")
    loading = SwitchStatus(1, "pocket", "fake", SwitchPhase.LOADING, 0.4)
    engine.tells(replace(engine.status, switch=loading))
    await expect(page.locator("#models-said")).to_have_text("Loading pocket 40 %")
    engine.switches.clear()
    await dialog.get_by_role("button", name="pocket").click()
    await expect(page.locator("#models-said")).to_have_text("pocket answers now.")
    await expect(dialog.locator('[aria-pressed="true"]')).to_contain_text("pocket")
    await expect(page.locator("#status")).to_have_text("pocket")


async def test_a_model_that_cannot_answer_says_why(visitor: Visitor, engine: FakeEngine) -> None:
    page = visitor.page
    await page.get_by_role("button", name="Choose a model").click()
    engine.refuses(SwitchFailed("There is no memory for pocket."))
    await page.get_by_role("dialog").get_by_role("button", name="pocket").click()
    await expect(page.locator("#models-said")).to_have_text("There is no memory for pocket.")
    failed = SwitchStatus(7, "pocket", "fake", SwitchPhase.FAILED, reason="It fell over.")
    engine.tells(replace(engine.status, switch=failed))
    await expect(page.locator("#models-said")).to_have_text("It fell over.")


async def test_on_a_phone_the_drawers_fit_and_can_be_touched(
    visitor: Visitor, engine: FakeEngine
) -> None:
    page = visitor.page
    await page.set_viewport_size({"width": 320, "height": 568})
    await told(visitor, engine, ("Words " * 30, "Yes."))
    await open_shelf(page)
    await expect(page.locator("#shelf-list li")).to_have_count(1)
    wide = await page.evaluate("document.documentElement.scrollWidth > innerWidth")
    assert not wide
    sizes = await page.evaluate(
        "[...document.querySelectorAll('#shelf button:not([hidden])')]"
        ".map((b) => b.getBoundingClientRect()).map((r) => [r.width, r.height])"
    )
    # Layout is in binary fractions of a pixel: 44 may be told as 43.99998.
    assert all(round(min(size), 2) >= 44 for size in sizes), sizes
