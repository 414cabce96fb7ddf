"""The interactive documents' quiet sibling: one page from `/openapi.json`, without scripts.

The framework's own pages load their scripts from elsewhere; this one works offline and under the
strictest policy, because it is nothing but HTML.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response

router = APIRouter(include_in_schema=False)

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 56rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h2 { margin: 2.5rem 0 .5rem; border-bottom: 1px solid #8885; text-transform: capitalize; }
details { margin: .4rem 0; border: 1px solid #8885; border-radius: .5rem; padding: .5rem .8rem; }
summary { cursor: pointer; overflow-wrap: anywhere; }
summary b { display: inline-block; min-width: 4.2rem; }
code, pre { font: .88rem/1.45 ui-monospace, monospace; }
pre { overflow-x: auto; padding: .7rem; border-radius: .4rem; background: #8882; }
table { border-collapse: collapse; width: 100%; display: block; overflow-x: auto; }
td, th { text-align: left; vertical-align: top; padding: .25rem .8rem .25rem 0; }
a { color: inherit; }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@router.get("/docs")
@router.get("/redoc")
async def docs(http_request: Request) -> Response:
    """Every route, what it takes and what it answers."""
    page = render(http_request.app.openapi())
    return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY})


def render(document: dict[str, Any]) -> str:
    """The page for an OpenAPI document. Everything from the document is escaped."""
    info = document["info"]
    title = html.escape(f"{info['title']} {info['version']}")
    sections = "".join(_sections(document))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>"
        f"<p>{html.escape(info.get('description', ''))} "
        'Machines read <a href="/openapi.json">/openapi.json</a>.</p>'
        f"{sections}<h2>schemas</h2>{''.join(_schemas(document))}</body></html>"
    )


def _sections(document: dict[str, Any]) -> Iterator[str]:
    by_tag: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            tag = operation.get("tags", ["other"])[0]
            by_tag.setdefault(tag, []).append(_operation(path, method, operation))
    for tag, operations in by_tag.items():
        yield f"<h2>{html.escape(tag)}</h2>{''.join(operations)}"


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    body = operation.get("requestBody", {}).get("content", {})
    takes = "".join(f"<p>Takes {_content(kind, media)}.</p>" for kind, media in body.items())
    answers = "".join(
        f"<tr><th>{html.escape(status)}</th><td>{html.escape(reply.get('description', ''))}</td>"
        f"<td>{'<br>'.join(_content(k, m) for k, m in reply.get('content', {}).items())}</td></tr>"
        for status, reply in operation.get("responses", {}).items()
    )
    return (
        f"<details><summary><b>{method.upper()}</b> <code>{html.escape(path)}</code> "
        f"{html.escape(_first_line(operation.get('description', '')))}</summary>"
        f"{takes}<table>{answers}</table></details>"
    )


def _content(kind: str, media: dict[str, Any]) -> str:
    names = sorted(set(_names(media.get("schema", {}))))
    links = ", ".join(f'<a href="#{html.escape(n)}">{html.escape(n)}</a>' for n in names)
    return f"<code>{html.escape(kind)}</code> {links}"


def _names(schema: Any) -> Iterator[str]:
    """The schemas that `schema` refers to, or its own title where it stands by itself."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield schema["$ref"].rsplit("/", 1)[-1]
        for branch in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
            yield from _names(branch)


def _schemas(document: dict[str, Any]) -> Iterator[str]:
    for name, schema in sorted(document.get("components", {}).get("schemas", {}).items()):
        text = json.dumps(schema, indent=2, ensure_ascii=False)
        yield (
            f'<details id="{html.escape(name)}"><summary><code>{html.escape(name)}</code> '
            f"{html.escape(_first_line(schema.get('description', '')))}</summary>"
            f"<pre>{html.escape(text)}</pre></details>"
        )


def _first_line(text: str) -> str:
    return text.strip().split("\n", 1)[0]
