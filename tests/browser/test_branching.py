"""What is done with a message that was said: written anew, answered again, branched off from."""

from __future__ import annotations

import pytest
from playwright.async_api import Page, expect

from service.domain.errors import GenerationFailed
from tests.browser.conftest import Visitor
from tests.fakes.engine import FakeEngine

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


async def say(visitor: Visitor, engine: FakeEngine, *pairs: tuple[str, str]) -> None:
    """Exchanges of one conversation."""
    for asked, answer in pairs:
        engine.answers(answer)
        await visitor.ask(asked)
        await expect(visitor.prose).to_have_text(answer)
        await expect(visitor.answers.last).to_have_attribute("aria-busy", "false")


async def titles(visitor: Visitor, expected: list[str]) -> None:
    """The conversations that the shelf lists, the latest first."""
    page = visitor.page
    await page.get_by_role("button", name="Conversations").click()
    await expect(page.locator("#shelf-list .title")).to_have_text(expected)
    await page.keyboard.press("Escape")
    await expect(page.locator("#shelf")).to_be_hidden()


def told(engine: FakeEngine) -> str:
    """What the model was told last."""
    return "".join(piece.text for piece in engine.jobs[-1].prompt)


async def test_an_answer_is_written_again_and_the_old_one_makes_way(
    visitor: Visitor, engine: FakeEngine
) -> None:
    await say(visitor, engine, ("Bread?", "Flour."), ("And?", "Water."))
    engine.answers("Salt.")
    await visitor.page.get_by_role("button", name="Answer again").last.click()
    await expect(visitor.prose).to_have_text("Salt.")
    await expect(visitor.answers).to_have_count(2)
    await expect(visitor.page.locator(".question p")).to_have_text(["Bread?", "And?"])
    assert "Flour." in told(engine)
    assert "Water." not in told(engine)
    await titles(visitor, ["Bread?"])
    await visitor.page.reload()
    await expect(visitor.page.locator(".answer .prose")).to_have_text(["Flour.", "Salt."])


async def test_an_earlier_answer_is_written_again_in_a_copy(
    visitor: Visitor, engine: FakeEngine
) -> None:
    await say(visitor, engine, ("Bread?", "Flour."), ("And?", "Water."))
    engine.answers("Rye.")
    await visitor.page.get_by_role("button", name="Answer again").first.click()
    await expect(visitor.page.locator(".answer .prose")).to_have_text(["Rye."])
    await expect(visitor.page.locator(".told")).to_contain_text("The original is kept.")
    await expect(visitor.answers.last).to_have_attribute("aria-busy", "false")
    await titles(visitor, ["Copy of Bread?", "Bread?"])
    await visitor.page.get_by_role("button", name="Open the original").click()
    await expect(visitor.page.locator(".answer .prose")).to_have_text(["Flour.", "Water."])
    await expect(visitor.page.locator(".told")).to_have_count(0)


async def test_the_last_message_is_edited_with_the_keyboard(
    visitor: Visitor, engine: FakeEngine
) -> None:
    page = visitor.page
    await say(visitor, engine, ("Bread?", "Flour."), ("Adn?", "What?"))
    await page.get_by_label("Message", exact=True).press("ArrowUp")
    box = page.get_by_role("textbox", name="Edit message")
    await expect(box).to_be_focused()
    await expect(box).to_have_value("Adn?")
    await box.press("Escape")
    await expect(page.get_by_role("button", name="Edit message").last).to_be_focused()
    await page.keyboard.press("Enter")
    await box.fill("And?")
    engine.answers("Water.")
    await box.press("Enter")
    await expect(visitor.prose).to_have_text("Water.")
    await expect(page.locator(".question p")).to_have_text(["Bread?", "And?"])
    await expect(page.locator(".told")).to_have_count(0)
    await expect(page.get_by_label("Message", exact=True)).to_be_focused()
    assert "Flour." in told(engine)
    assert "Adn?" not in told(engine)
    await titles(visitor, ["Bread?"])


async def test_an_earlier_message_is_edited_in_a_copy_and_says_so_before(
    visitor: Visitor, engine: FakeEngine
) -> None:
    page = visitor.page
    await say(visitor, engine, ("Bread?", "Flour."), ("And?", "Water."), ("Then?", "Bake."))
    await page.get_by_role("button", name="Edit message").nth(1).focus()
    await page.keyboard.press("Enter")
    await expect(page.locator(".edit-hint")).to_contain_text("This conversation is kept")
    engine.answers("Butter.")
    await page.get_by_role("textbox", name="Edit message").fill("On top?")
    await page.get_by_role("textbox", name="Edit message").press("Enter")
    await expect(page.locator(".answer .prose")).to_have_text(["Flour.", "Butter."])
    await expect(page.locator(".question p")).to_have_text(["Bread?", "On top?"])
    await expect(visitor.answers.last).to_have_attribute("aria-busy", "false")
    await titles(visitor, ["Copy of Bread?", "Bread?"])


async def test_a_first_message_that_is_edited_names_its_conversation(
    visitor: Visitor, engine: FakeEngine
) -> None:
    page = visitor.page
    await say(visitor, engine, ("Bred?", "What?"))
    await page.get_by_label("Message", exact=True).press("ArrowUp")
    engine.answers("Flour.")
    await page.get_by_role("textbox", name="Edit message").fill("Bread?")
    await page.get_by_role("textbox", name="Edit message").press("Enter")
    await expect(page.locator(".answer .prose")).to_have_text(["Flour."])
    await expect(visitor.answers.last).to_have_attribute("aria-busy", "false")
    await titles(visitor, ["Bread?"])


async def test_a_chat_forks_after_an_answer_and_the_old_one_stays(
    visitor: Visitor, engine: FakeEngine
) -> None:
    page = visitor.page
    await say(visitor, engine, ("Bread?", "Flour."), ("And?", "Water."))
    await page.get_by_role("button", name="Fork after this answer").first.click()
    await expect(page.locator(".answer .prose")).to_have_text(["Flour."])
    await expect(page.locator(".told")).to_contain_text("This is a copy. The original is kept.")
    await expect(page.locator("[aria-live=polite]")).to_contain_text("This is a copy.")
    await expect(page.get_by_label("Message", exact=True)).to_be_focused()
    await say(visitor, engine, ("Cake?", "Sugar."))
    assert "Flour." in told(engine)
    assert "Water." not in told(engine)
    await titles(visitor, ["Copy of Bread?", "Bread?"])


async def test_a_chat_forks_before_a_message_which_can_be_written_on(
    visitor: Visitor, engine: FakeEngine
) -> None:
    page = visitor.page
    await say(visitor, engine, ("Bread?", "Flour."), ("And?", "Water."))
    forks = page.get_by_role("button", name="Fork before this message")
    await forks.last.focus()
    await page.keyboard.press("Enter")
    await expect(page.locator(".answer .prose")).to_have_text(["Flour."])
    await expect(page.get_by_label("Message", exact=True)).to_have_value("And?")
    await forks.first.focus()
    await page.keyboard.press("Enter")
    await expect(visitor.answers).to_have_count(0)
    await expect(page.get_by_label("Message", exact=True)).to_have_value("Bread?")
    await titles(visitor, ["Copy of Bread?", "Bread?"])


async def test_a_message_that_was_said_twice_is_found_where_it_stands(
    visitor: Visitor, engine: FakeEngine
) -> None:
    page = visitor.page
    await say(visitor, engine, ("More", "One."), ("More", "Two."), ("More", "Three."))
    await page.get_by_role("button", name="Fork after this answer").nth(1).click()
    await expect(page.locator(".answer .prose")).to_have_text(["One.", "Two."])


async def test_nothing_branches_off_while_an_answer_is_written(
    visitor: Visitor, engine: FakeEngine
) -> None:
    await say(visitor, engine, ("Bread?", "Flour."))
    again = visitor.page.get_by_role("button", name="Answer again")
    await expect(again).to_be_visible()
    engine.paced = True
    await visitor.ask("And?")
    await engine.until(lambda: engine.running)
    await expect(again).to_be_hidden()
    await visitor.page.keyboard.press("Escape")
    await engine.until(lambda: engine.stopped or engine.cancelled)
    await expect(again).to_have_count(2)


async def test_an_old_answer_is_kept_where_the_new_one_fails(
    visitor: Visitor, engine: FakeEngine
) -> None:
    await say(visitor, engine, ("Bread?", "Flour."), ("And?", "Water."))
    engine.refuses(GenerationFailed("The grammar cannot be met."))
    await visitor.page.get_by_role("button", name="Answer again").last.click()
    await expect(visitor.page.locator(".failure p")).to_contain_text("The grammar cannot be met.")
    await titles(visitor, ["Bread?", "Bread?"])
    await visitor.page.get_by_role("button", name="Conversations").click()
    await visitor.page.locator("#shelf-list .chosen").last.click()
    await expect(visitor.page.locator(".answer .prose")).to_have_text(["Flour.", "Water."])
    visitor.complaints.clear()  # the browser itself reports every status of 500


async def test_a_message_that_was_refused_can_be_edited_and_sent_again(
    visitor: Visitor, engine: FakeEngine
) -> None:
    await visitor.ask("word " * 600)
    await expect(visitor.page.locator(".failure p")).to_contain_text("512")
    await visitor.page.get_by_label("Message", exact=True).press("ArrowUp")
    box = visitor.page.get_by_role("textbox", name="Edit message")
    await box.fill("word")
    await box.press("Enter")
    await expect(visitor.prose).to_have_text("Hello there, friend.")
    await expect(visitor.page.locator(".question p")).to_have_text(["word"])
    visitor.complaints.clear()


async def test_the_model_is_told_all_that_was_said(visitor: Visitor, engine: FakeEngine) -> None:
    await say(visitor, engine, *((f"Question {n}?", f"Answer {n}.") for n in range(7)))
    assert "Answer 0." in told(engine)


async def test_an_answer_at_the_length_limit_can_be_continued(
    visitor: Visitor, engine: FakeEngine
) -> None:
    engine.answers("word " * 3000)
    await visitor.ask("Write")
    await expect(visitor.page.locator(".facts")).to_contain_text("length limit")
    await expect(visitor.page.get_by_role("button", name="Continue")).to_be_visible()


async def test_copies_are_numbered(workbench: Page) -> None:
    names = await workbench.evaluate(
        "async () => { const { nameCopy } = await import('/static/branch.js');"
        "return ['Bread', 'Copy of Bread', 'Copy 2 of Bread'].map(nameCopy); }"
    )
    assert names == ["Copy of Bread", "Copy 2 of Bread", "Copy 3 of Bread"]
