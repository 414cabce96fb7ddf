"""Judge a server by what the vendors document: `python -m tests.conformance --help`."""

from __future__ import annotations

import argparse
import datetime
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.conformance.checks import Subject, Verdict
from tests.conformance.judging import PEERS, judged, judged_parley
from tests.conformance.table import PAGE, Column, load_columns, to_page
from tests.sdk.published import load_published, place_of_schema


def main() -> int:
    """0 where every check passed, or the server is not Parley."""
    options = _options()
    published = load_published(options.schema)
    if published is None:
        _say(f"There is no schema of OpenAI's at {options.schema}; bodies are not held to one.\n")
    version = published.version if published else None
    if options.url is None:
        with TemporaryDirectory() as folder:
            column = judged_parley(Path(folder), published, _say)
        PAGE.write_text(to_page([column, *load_columns(PEERS)], version))
        return int(any(o.verdict is not Verdict.YES for o in column.outcomes.values()))
    subject = Subject(options.url.rstrip("/"), options.token, options.model, options.embedder)
    today = datetime.datetime.now(datetime.UTC).date()
    about = f"{options.version}, {today:%d %B %Y}"
    outcomes = judged(subject, published, _say, options.only)
    place = PEERS / f"{options.name}.json"
    if options.only and place.exists():
        outcomes = Column.from_json(place.read_text()).outcomes | outcomes
    column = Column(options.name, about, outcomes)
    if options.keep:
        PEERS.mkdir(exist_ok=True)
        place.write_text(column.to_json())
    else:
        _say(to_page([column], version))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance",
        description="Judge a server by what OpenAI and Anthropic document. Without --url, Parley "
        "is started with Pocket, and docs/conformance.md is written.",
    )
    parser.add_argument("--url", help="where the server listens, without /v1")
    parser.add_argument("--token", default="", help="an access token for it")
    parser.add_argument("--model", default="pocket", help="the model to ask (%(default)s)")
    parser.add_argument("--embedder", help="the model to ask for embeddings (that of --model)")
    parser.add_argument("--name", default="server", help="what its column is called")
    parser.add_argument("--version", default="version unknown", help="which version it is")
    parser.add_argument("--keep", action="store_true", help="show it in docs/conformance.md")
    parser.add_argument("--only", default="", help="only checks with this in their titles")
    parser.add_argument(
        "--schema",
        type=Path,
        default=place_of_schema(),
        help="OpenAI's OpenAPI document as JSON; skipped where there is none",
    )
    return parser.parse_args()


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
