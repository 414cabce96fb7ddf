"""All checks, put to one server."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

from service import __version__
from tests.conformance.checks import CHECKS, Outcome, Subject, outcome_of
from tests.conformance.table import Column
from tests.e2e.parley import Parley, create_token, running_parley
from tests.engine.encoder_file import RandomEncoder
from tests.sdk.published import Published

PEERS = Path(__file__).parent / "peers"
# Their order is the page's.
for _name in ("chat", "tools", "texts", "responses", "claude"):
    importlib.import_module(f"tests.conformance.{_name}")


def judged(
    subject: Subject, published: Published | None, say: Callable[[str], None], only: str = ""
) -> dict[str, Outcome]:
    """The outcome of every check with `only` in its name, by area and title."""
    outcomes: dict[str, Outcome] = {}
    for one in CHECKS:
        key = f"{one.area}: {one.title}"
        if only not in key:
            continue
        outcome = outcome_of(one, subject, published)
        outcomes[key] = outcome
        say(f"{outcome.verdict.value:7}{key}\n")
        if outcome.reason:
            say(f"       {outcome.reason}\n")
    return outcomes


def judged_parley(
    folder: Path, published: Published | None, say: Callable[[str], None] = lambda text: None
) -> Column:
    """Start Parley with Pocket, a small random embedder, two workers and an access token that has
    limits, and judge it."""
    encoder = RandomEncoder().write(folder / "encoder.gguf")
    token = _create_token(folder)
    arguments = ("--model", "pocket", "--workers", "2")
    environment = {"PARLEY_EMBED__MODEL": str(encoder)}
    with running_parley(folder, *arguments, environment=environment) as parley:
        parley.wait_healthy()
        subject = Subject(parley.url, token, "pocket", "encoder")
        try:
            _wait_for_embedder(subject, parley)
            outcomes = judged(subject, published, say)
        finally:
            subject.close()
    return Column("Parley", f"{__version__}, with Pocket", outcomes)


def _wait_for_embedder(subject: Subject, parley: Parley) -> None:
    """The list of models changes when there is one."""
    for _ in subject.lines_of("/v1/models/events"):
        if "encoder" in {model.id for model in subject.openai.models.list()}:
            return
    raise AssertionError(parley.log.read_text())


def _create_token(folder: Path) -> str:
    scopes = ["--scope", "chat", "--scope", "embed"]
    limits = ["--requests-per-minute", "100000", "--tokens-per-minute", "100000000"]
    return create_token(folder, "conformance", *scopes, *limits)
