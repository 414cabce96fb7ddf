"""Alerts and the dashboard speak only of metrics that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY

import service.metrics  # noqa: F401  # defines them
from tests.deploy.nginx import DEPLOY

WORD = re.compile(r"\b(?:parley|llamacpp)[_:][a-zA-Z0-9_:]+")
LABELS = re.compile(r"(?:by|without) \(([^)]*)\)|\{([^}]*)\}")


def known_names() -> set[str]:
    """Every series name that our metrics give rise to."""
    ours = [m for m in REGISTRY.collect() if m.name.startswith(("parley_", "llamacpp:"))]
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}
    return {m.name + suffix for m in ours for suffix in suffixes.get(m.type, [""])}


def alert_expressions() -> Iterator[str]:
    text = (DEPLOY / "prometheus" / "alerts.yml").read_text()
    yield from re.findall(r"^\s+expr: (.+)$", text, re.MULTILINE)


def dashboard_expressions() -> Iterator[str]:
    dashboard = json.loads((DEPLOY / "grafana" / "parley.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield target["expr"]


@pytest.mark.parametrize("expression", [*alert_expressions(), *dashboard_expressions()])
def test_an_expression_names_metrics_that_are_defined(expression: str) -> None:
    named = set(WORD.findall(LABELS.sub("", expression)))
    assert named <= known_names()
    assert named or 'up{job="parley"}' in expression


def test_panels_do_not_lie_on_one_another() -> None:
    panels = json.loads((DEPLOY / "grafana" / "parley.json").read_text())["panels"]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(panels) > 0


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed here")
@pytest.mark.parametrize(
    "words",
    [("check", "config", "--syntax-only", "prometheus.yml"), ("test", "rules", "alerts_test.yml")],
)
def test_prometheus_accepts_and_alerts(words: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["promtool", *words],
        cwd=DEPLOY / "prometheus",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
