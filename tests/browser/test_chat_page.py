"""The page, as people use it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from playwright.async_api import BrowserContext, ViewportSize, expect

from service.domain.errors import EngineUnavailable, GenerationFailed, QueueFull
from service.ipc.status import DownloadStatus, ServiceStatus
from tests.browser.conftest import Visitor, visit
from tests.fakes.engine import FakeEngine, loading, serving

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


async def test_an_answer_appears_token_by_token(visitor: Visitor, engine: FakeEngine) -> None:
    engine.paced = True
    engine.answers("One two three")
    await visitor.ask("Count")
    await engine.until(lambda: engine.running)
    for so_far in ("One", "One two", "One two three"):
        await engine.write(1)
        await expect(visitor.prose).to_have_text(so_far)
    await expect(visitor.answers).to_have_attribute("aria-busy", "false")
    await expect(visitor.page.locator(".facts")).to_contain_text("3 tokens")


async def test_the_pace_is_shown_under_the_answer(visitor: Visitor, engine: FakeEngine) -> None:
    engine.answers("word " * 30)
    await visitor.ask("Write")
    await expect(visitor.page.locator(".facts")).to_have_text(
        re.compile(r"^3[01] tokens · [\d.]+ tokens/s$")
    )


async def test_stop_ends_the_answer_and_keeps_what_was_written(
    visitor: Visitor, engine: FakeEngine
) -> None:
    engine.paced = True
    engine.answers("One two three four")
    await visitor.ask("Count")
    await engine.until(lambda: engine.running)
    await engine.write(2)
    await expect(visitor.prose).to_have_text("One two")
    await visitor.page.get_by_role("button", name="Stop").click()
    await engine.until(lambda: engine.stopped or engine.cancelled)
    await expect(visitor.page.locator(".facts")).to_have_text("Stopped")
    await expect(visitor.prose).to_have_text("One two")
    await expect(visitor.page.get_by_role("button", name="Send")).to_be_visible()


async def test_escape_stops_too(visitor: Visitor, engine: FakeEngine) -> None:
    engine.paced = True
    await visitor.ask("Hello")
    await engine.until(lambda: engine.running)
    await visitor.page.keyboard.press("Escape")
    await engine.until(lambda: engine.stopped or engine.cancelled)
    await expect(visitor.page.locator(".facts")).to_have_text("Stopped")


async def test_a_follow_up_goes_on_with_the_session(visitor: Visitor, engine: FakeEngine) -> None:
    engine.answers("Hello Ada.", "Ada.")
    await visitor.ask("My name is Ada.")
    await expect(visitor.prose).to_have_text("Hello Ada.")
    await visitor.ask("What is my name?")
    await expect(visitor.prose).to_have_text("Ada.")
    prompt = "".join(piece.text for piece in engine.jobs[1].prompt)
    assert "My name is Ada." in prompt
    assert "Hello Ada." in prompt


async def test_a_new_chat_forgets_the_old_one(visitor: Visitor, engine: FakeEngine) -> None:
    await visitor.ask("My name is Ada.")
    await expect(visitor.answers).to_have_attribute("aria-busy", "false")
    await visitor.page.get_by_role("button", name="New chat").click()
    await expect(visitor.answers).to_have_count(0)
    await expect(visitor.page.locator("#welcome")).to_be_visible()
    await expect(visitor.page.get_by_label("Message", exact=True)).to_be_focused()
    await visitor.ask("What is my name?")
    await expect(visitor.answers).to_have_attribute("aria-busy", "false")
    assert "Ada" not in "".join(piece.text for piece in engine.jobs[1].prompt)


async def test_a_new_chat_in_the_middle_of_an_answer_cancels_it(
    visitor: Visitor, engine: FakeEngine
) -> None:
    engine.paced = True
    await visitor.ask("Hello")
    await engine.until(lambda: engine.running)
    await visitor.page.get_by_role("button", name="New chat").click()
    await engine.until(lambda: engine.stopped or engine.cancelled)
    await expect(visitor.answers).to_have_count(0)
    engine.paced = False
    await visitor.ask("Again")
    await expect(visitor.prose).to_have_text("Hello there, friend.")
    await visitor.page.reload()
    await expect(visitor.answers).to_have_count(1)


async def test_the_chat_is_still_there_after_a_reload(visitor: Visitor, engine: FakeEngine) -> None:
    engine.answers("**Hello** Ada.", "Ada.")
    await visitor.ask("My name is Ada.")
    await expect(visitor.answers).to_have_attribute("aria-busy", "false")
    await visitor.page.reload()
    await expect(visitor.page.locator(".question p")).to_have_text("My name is Ada.")
    await expect(visitor.prose.locator("strong")).to_have_text("Hello")
    await visitor.ask("What is my name?")
    await expect(visitor.prose).to_have_text("Ada.")
    assert "My name is Ada." in "".join(piece.text for piece in engine.jobs[1].prompt)


async def test_a_refusal_with_a_time_is_tried_again_and_said(
    visitor: Visitor, engine: FakeEngine
) -> None:
    engine.refuses(EngineUnavailable("The model is loading.", retry_after_seconds=3))
    await visitor.ask("Hello")
    counting_down = re.compile("Trying again in [123] s")
    await expect(visitor.page.locator(".waiting")).to_contain_text(counting_down)
    await expect(visitor.prose).to_have_text("Hello there, friend.")
    assert len(engine.jobs) == 1


async def test_waiting_for_another_try_can_be_stopped(visitor: Visitor, engine: FakeEngine) -> None:
    engine.refuses(QueueFull("64 requests are waiting already.", retry_after_seconds=30))
    await visitor.ask("Hello")
    await expect(visitor.page.locator(".waiting")).to_contain_text("64 requests are waiting")
    await visitor.page.get_by_role("button", name="Stop").click()
    await expect(visitor.page.locator(".facts")).to_have_text("Stopped")
    assert engine.jobs == []


async def test_an_answer_that_breaks_says_so_and_can_be_tried_again(
    visitor: Visitor, engine: FakeEngine
) -> None:
    engine.paced = True
    await visitor.ask("Hello")
    await engine.until(lambda: engine.running)
    await engine.write(1)
    await expect(visitor.prose).to_have_text("Hello")
    engine.dies()
    await expect(visitor.page.locator(".failure")).to_contain_text("stopped before")
    engine.revives()
    engine.paced = False
    await visitor.page.get_by_role("button", name="Try again").click()
    await expect(visitor.page.locator(".failure")).to_have_count(0)
    await expect(visitor.prose).to_have_text("Hello there, friend.")
    await expect(visitor.answers).to_have_count(1)


async def test_a_refusal_for_good_is_one_sentence(visitor: Visitor, engine: FakeEngine) -> None:
    engine.refuses(GenerationFailed("The grammar cannot be met."))
    await visitor.ask("Hello")
    await expect(visitor.page.locator(".failure p")).to_contain_text("The grammar cannot be met.")
    visitor.complaints.clear()  # the browser itself reports every status of 500


async def test_what_cannot_be_answered_is_not_offered_again(
    visitor: Visitor, engine: FakeEngine
) -> None:
    await visitor.ask("word " * 600)
    await expect(visitor.page.locator(".failure p")).to_contain_text("512")
    await expect(visitor.page.get_by_role("button", name="Try again")).to_have_count(0)
    visitor.complaints.clear()


async def test_enter_sends_and_shift_enter_breaks_the_line(
    visitor: Visitor, engine: FakeEngine
) -> None:
    box = visitor.page.get_by_label("Message", exact=True)
    await expect(box).to_be_focused()
    await visitor.page.keyboard.type("one")
    await visitor.page.keyboard.press("Shift+Enter")
    await visitor.page.keyboard.type("two")
    assert engine.jobs == []
    await visitor.page.keyboard.press("Enter")
    await expect(visitor.page.locator(".question p")).to_have_text("one\ntwo", use_inner_text=True)
    await expect(box).to_have_value("")
    await expect(box).to_be_focused()


async def test_enter_that_chooses_a_word_in_an_input_method_does_not_send(
    visitor: Visitor, engine: FakeEngine
) -> None:
    box = visitor.page.get_by_label("Message", exact=True)
    await box.fill("日本")
    press = (
        "(box, more) => box.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', ...more}))"
    )
    await box.evaluate(press, {"isComposing": True})
    await expect(box).to_have_value("日本")
    assert engine.jobs == []
    await box.evaluate(press, {"isComposing": False})
    await expect(visitor.page.locator(".question p")).to_have_text("日本")


async def test_everything_can_be_reached_with_the_keyboard(visitor: Visitor) -> None:
    await visitor.ask("Hello")
    await expect(visitor.answers).to_have_attribute("aria-busy", "false")
    reached = set()
    for _ in range(12):
        await visitor.page.keyboard.press("Tab")
        focused = "document.activeElement.getAttribute('aria-label') ?? document.activeElement.id"
        reached.add(await visitor.page.evaluate(focused))
    assert {"New chat", "Copy answer", "Chat", "input"} <= reached


async def test_screen_readers_hear_the_answer_once_and_not_each_token(
    visitor: Visitor, engine: FakeEngine
) -> None:
    engine.paced = True
    live = visitor.page.locator("[aria-live=polite]")
    await visitor.ask("Hello")
    await engine.until(lambda: engine.running)
    await engine.write(1)
    await expect(visitor.prose).to_have_text("Hello")
    await expect(live).to_have_text("Answering…")
    await engine.write(9)
    await expect(live).to_have_text("Hello there, friend.")
    assert await visitor.page.locator("#messages [aria-live]").count() == 0


HEAR_END_OF_SCROLLING = """(scroller) => {
    window.scrolled = new Promise((done) => {
        scroller.addEventListener("scrollend", () => done(true));
    });
}"""


async def test_reading_further_up_is_not_disturbed_by_new_text(
    visitor: Visitor, engine: FakeEngine
) -> None:
    engine.answers("\n\n".join(f"Paragraph {n}." for n in range(60)))
    await visitor.ask("Write a lot")
    await expect(visitor.answers).to_have_attribute("aria-busy", "false")
    scroller = visitor.page.locator("#scroller")
    await expect(visitor.prose.locator("p").last).to_be_in_viewport()
    engine.paced = True
    engine.answers("\n\n".join(f"More {n}." for n in range(60)))
    await visitor.ask("Go on")
    await engine.until(lambda: engine.running)
    await scroller.hover()
    await scroller.evaluate(HEAR_END_OF_SCROLLING)
    await visitor.page.mouse.wheel(0, -600)
    assert await visitor.page.evaluate("window.scrolled")
    await expect(visitor.page.get_by_role("button", name="Go to the end")).to_be_visible()
    top = await scroller.evaluate("e => e.scrollTop")
    await engine.write(120)
    await expect(visitor.prose).to_contain_text("More 59.")
    assert abs(await scroller.evaluate("e => e.scrollTop") - top) < 2
    await visitor.page.get_by_role("button", name="Go to the end").click()
    await expect(visitor.prose.locator("p").last).to_be_in_viewport()


async def test_on_a_phone_everything_fits_and_can_be_touched(
    address: str, engine: FakeEngine, context: BrowserContext
) -> None:
    assert context.browser is not None
    phone = ViewportSize(width=360, height=640)
    async with await context.browser.new_context(
        viewport=phone, is_mobile=True, has_touch=True
    ) as made:
        visitor = await visit(made, address)
        engine.answers(
            "A very_long_word_" + "x" * 200 + "\n\n```\n" + "code " * 60 + "\n```\n\n"
            "|a|b|\n|-|-|\n|" + "cell " * 40 + "|" + "y" * 80 + "|"
        )
        await visitor.ask("z" * 300)
        await expect(visitor.answers).to_have_attribute("aria-busy", "false")
        page = visitor.page
        assert await page.evaluate("document.documentElement.scrollWidth") == phone["width"]
        assert await page.locator("#scroller").evaluate("e => e.scrollWidth - e.clientWidth") == 0
        for button in await page.locator("button:visible").all():
            box = await button.bounding_box()
            assert box is not None
            # Layout is in binary fractions of a pixel: 44 may be told as 43.99998.
            assert round(min(box["width"], box["height"]), 2) >= 44
        assert visitor.complaints == []


async def test_the_model_in_use_and_a_stand_in_are_shown(
    visitor: Visitor, engine: FakeEngine
) -> None:
    status, notice = visitor.page.locator("#status"), visitor.page.locator("#notice")
    await expect(status).to_have_text("fake")
    await expect(notice).to_be_hidden()
    engine.status = stand_in(engine)
    await visitor.page.reload()
    await expect(notice).to_contain_text("Pocket answers until qwen is here.")
    await expect(notice).to_contain_text("43 % downloaded")


async def test_a_notice_is_hidden_until_there_is_another_one(
    visitor: Visitor, engine: FakeEngine
) -> None:
    notice = visitor.page.locator("#notice")
    engine.status = stand_in(engine)
    await visitor.page.reload()
    await expect(notice).to_contain_text("43 % downloaded")
    await visitor.page.get_by_role("button", name="Hide this notice").click()
    await expect(notice).to_be_hidden()
    await expect(visitor.page.get_by_label("Message", exact=True)).to_be_focused()
    engine.status = replace(engine.status, download=DownloadStatus("qwen", 86, 100))
    await expect(notice).to_contain_text("86 % downloaded")
    await expect(notice).to_be_hidden()
    engine.status = replace(engine.status, notice="The disk is full.")
    await expect(notice).to_be_visible()
    await expect(notice).to_contain_text("The disk is full.")


async def test_a_model_that_loads_shows_how_far_it_is_and_then_that_it_is_there(
    visitor: Visitor, engine: FakeEngine
) -> None:
    engine.status = loading(0.43)
    await visitor.page.reload()
    await expect(visitor.page.locator("#status")).to_have_text("Loading the model 43 %")
    await expect(visitor.page.get_by_role("progressbar")).to_have_attribute("value", "0.43")
    engine.status = serving()
    await expect(visitor.page.locator("#status")).to_have_text("fake")
    await expect(visitor.page.get_by_role("progressbar")).to_have_count(0)


async def test_an_engine_that_is_down_is_shown(visitor: Visitor, engine: FakeEngine) -> None:
    engine.dies()
    await visitor.page.reload()
    await expect(visitor.page.locator("#status")).to_have_text("Model is down")
    engine.revives()
    await expect(visitor.page.locator("#status")).to_have_text("fake")


async def test_a_service_that_goes_down_is_shown(visitor: Visitor, engine: FakeEngine) -> None:
    engine.shuts_down()
    await visitor.page.reload()
    await expect(visitor.page.locator("#status")).to_have_text("Restarting")


def stand_in(engine: FakeEngine) -> ServiceStatus:
    return replace(
        engine.status,
        wanted_model="qwen",
        notice="Pocket answers until qwen is here.",
        download=DownloadStatus("qwen", 43, 100),
    )
