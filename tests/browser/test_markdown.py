"""What a model writes is shown as Markdown, and can never act on the page."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import Visitor
from tests.fakes.engine import FakeEngine

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

RENDER = """async (text) => {
  const { renderMarkdown } = await import("/static/markdown.js");
  const box = document.createElement("div");
  renderMarkdown(text, box);
  return box.innerHTML;
}"""

# Renders `text` in two pieces for every cut and character by character; returns what differs.
RENDER_IN_PIECES = """async (text) => {
  const { renderMarkdown, MarkdownStream } = await import("/static/markdown.js");
  const whole = document.createElement("div");
  renderMarkdown(text, whole);
  const differing = [];
  const compare = (pieces, name) => {
    const box = document.createElement("div");
    const stream = new MarkdownStream(box);
    for (const piece of pieces) stream.append(piece);
    stream.finish();
    if (box.innerHTML !== whole.innerHTML) differing.push([name, box.innerHTML, whole.innerHTML]);
  };
  for (let cut = 1; cut < text.length; cut += 1) {
    compare([text.slice(0, cut), text.slice(cut)], cut);
  }
  compare(text, "characters");
  compare(text.match(/[^]{1,7}/g), "sevens");
  return differing;
}"""

# Appends `piece` `count` times; returns how many nodes were made for the last 100 of them.
COUNT_NODES = """async ({ head, piece, count }) => {
  const { MarkdownStream } = await import("/static/markdown.js");
  const box = document.createElement("div");
  const stream = new MarkdownStream(box);
  stream.append(head);
  for (let n = 0; n < count - 100; n += 1) stream.append(piece);
  const observer = new MutationObserver(() => {});
  observer.observe(box, { childList: true, subtree: true });
  for (let n = 0; n < 100; n += 1) stream.append(piece);
  return observer.takeRecords().reduce((sum, record) => sum + record.addedNodes.length, 0);
}"""

EVERYTHING = """# Title

Some *emphasis*, **strength**, `code` and ~~regret~~ over
two lines.
- one
- two
  1. deep
  2. deeper

  more of two
- [ ] three

3. third
4. fourth

```python
def f():
    return "`"
```
~~~
tilde
~~~
| a | b |
|---|--:|
| 1 | `2` |

> quoted
> > twice
goes on

***
An [address](https://example.org/a_(b)) and https://example.org/c_d, and <b>no tags</b>.
- -5 degrees
--
1 * 2 * 3 \\* 4 _a_b_ snake_case __init__

```
never closed
"""


async def html(workbench: Page, text: str) -> str:
    rendered: str = await workbench.evaluate(RENDER, text)
    return rendered


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "<p>plain</p>"),
        ("a *b* **c** ***d*** _e_ __f__", None),
        ("# One\n## Two", "<h3>One</h3><h4>Two</h4>"),
        ("- a\n- b", "<ul><li>a</li><li>b</li></ul>"),
        ("- a\n  - b\n- c", "<ul><li>a<ul><li>b</li></ul></li><li>c</li></ul>"),
        ("3. a\n4. b", '<ol start="3"><li>a</li><li>b</li></ol>'),
        ("- a\n\n- b", "<ul><li><p>a</p></li><li><p>b</p></li></ul>"),
        ("> a\n> b", "<blockquote><p>a\nb</p></blockquote>"),
        ("a\n\n---\n\nb", "<p>a</p><hr><p>b</p>"),
        ("2 * 3 * 4 and snake_case_name", "<p>2 * 3 * 4 and snake_case_name</p>"),
        ("**not closed", "<p>**not closed</p>"),
        ("`a *b* <c>`", "<p><code>a *b* &lt;c&gt;</code></p>"),
        ("``a ` b``", "<p><code>a ` b</code></p>"),
        (r"\*a\*", "<p>*a*</p>"),
        ("*a **b** c*", "<p><em>a <strong>b</strong> c</em></p>"),
        ("<b>x</b> &amp;", "<p>&lt;b&gt;x&lt;/b&gt; &amp;amp;</p>"),
    ],
)
async def test_markdown_becomes_the_elements_it_stands_for(
    workbench: Page, text: str, expected: str | None
) -> None:
    expected = expected or (
        "<p>a <em>b</em> <strong>c</strong> <strong><em>d</em></strong> "
        "<em>e</em> <strong>f</strong></p>"
    )
    assert await html(workbench, text) == expected


async def test_a_table_keeps_its_columns_and_their_sides(workbench: Page) -> None:
    rendered = await html(workbench, "|a|b|\n|:-:|--:|\n|1|2|\n|3|\n\nafter")
    assert '<th class="align-center">a</th><th class="align-end">b</th>' in rendered
    assert '<td class="align-center">3</td><td class="align-end"></td>' in rendered
    assert rendered.endswith("<p>after</p>")


async def test_a_link_opens_elsewhere_and_tells_nothing(workbench: Page) -> None:
    rendered = await html(workbench, "[docs](https://example.org/a_b)")
    assert rendered == (
        '<p><a href="https://example.org/a_b" target="_blank" '
        'rel="noopener noreferrer nofollow">docs</a></p>'
    )


async def test_what_is_shown_does_not_depend_on_where_chunks_break(workbench: Page) -> None:
    assert await workbench.evaluate(RENDER_IN_PIECES, EVERYTHING) == []


@pytest.mark.parametrize(
    ("head", "piece", "most"),
    [("```\n", "x = 1\n", 0), ("", "Some words of a paragraph.\n\n", 600), ("# A\n", "word ", 400)],
    ids=["code", "paragraphs", "one line"],
)
async def test_the_work_for_a_token_does_not_grow_with_the_answer(
    workbench: Page, head: str, piece: str, most: int
) -> None:
    measured: Any = {"head": head, "piece": piece, "count": 3000}
    assert await workbench.evaluate(COUNT_NODES, measured) <= most


@pytest.mark.parametrize(
    "text",
    [
        "[" * 20_000,
        "*a " * 10_000,
        "**" * 20_000,
        "`" * 9_999 + " " + "`" * 9_998,
        "> " * 5_000 + "x",
        "- " * 5_000 + "x",
        "![](" * 5_000,
        "|" * 20_000 + "\n" + "|-" * 10_000,
        "\\" * 30_000,
        "a_" * 15_000,
        "<http://" * 4_000,
    ],
    ids=lambda text: text[:4],
)
async def test_odd_text_does_not_hang_the_page(workbench: Page, text: str) -> None:
    await asyncio.wait_for(workbench.evaluate(RENDER, text), timeout=5)


ATTACKS = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "<svg/onload=alert(1)>",
    "<iframe srcdoc='<script>parent.alert(1)</script>'></iframe>",
    "[click](javascript:alert(1))",
    "[click](JaVaScRiPt:alert(1))",
    "[click](\tjavascript:alert(1))",
    "[click](data:text/html,<script>alert(1)</script>)",
    "[click](vbscript:x) <javascript:alert(1)>",
    '[x](https://example.org/"onmouseover=alert(1))',
    "![x](https://example.org/spy.png)",
    "```html\n<img src=x onerror=alert(1)>\n```",
    '```"><img/src=x/onerror=alert(1)>\ncode\n```',
    "|<img src=x onerror=alert(1)>|b|\n|-|-|\n|<b onclick=alert(1)>|c|",
    "# <style>body{display:none}</style>",
    "<form action=//example.org><button>ok</button></form>",
]


async def test_nothing_that_a_model_writes_can_act(visitor: Visitor, engine: FakeEngine) -> None:
    asked: list[str] = []
    visitor.page.on("request", lambda request: asked.append(request.url))
    engine.answers("\n\n".join(ATTACKS))
    await visitor.ask("<img src=x onerror=alert(1)>")
    await expect(visitor.answers).to_have_attribute("aria-busy", "false")
    transcript = visitor.page.locator("#messages")
    for forbidden in ("img", "script", "svg:not(.icon)", "iframe", "style", "form", "[onclick]"):
        assert await transcript.locator(forbidden).count() == 0, forbidden
    targets = await transcript.locator("a").evaluate_all("all => all.map((a) => a.href)")
    assert all(target.startswith("https://example.org/") for target in targets)
    handlers = "all => all.flatMap((e) => e.getAttributeNames()).filter((n) => /^on|style/.test(n))"
    assert await transcript.locator("*").evaluate_all(handlers) == []
    await expect(visitor.prose).to_contain_text("<script>alert(1)</script>")
    assert all(url.endswith(("/chat/stream", "/health")) for url in asked)


# It is said for a moment, in which nobody may happen to look.
HEAR_COPIED = """() => {
    const button = document.querySelector(".code .copy");
    window.copied = new Promise((done) => {
        const look = () => { if (button.textContent === "Copied") done(true); };
        new MutationObserver(look).observe(button, { subtree: true, childList: true });
    });
}"""


async def test_code_is_copied_as_it_is(visitor: Visitor, engine: FakeEngine) -> None:
    await visitor.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    engine.answers('```python\nif a < b:\n    print("&amp;")\n```')
    await visitor.ask("Show me code")
    await expect(visitor.answers).to_have_attribute("aria-busy", "false")
    await expect(visitor.page.locator(".code figcaption span").first).to_have_text("python")
    await visitor.page.evaluate(HEAR_COPIED)
    await visitor.page.get_by_role("button", name="Copy code").click()
    assert await visitor.page.evaluate("window.copied")
    copied = await visitor.page.evaluate("navigator.clipboard.readText()")
    assert copied == 'if a < b:\n    print("&amp;")'
