"""compose.yaml, as far as it goes without a registry.

The images of nginx and Prometheus are the distribution's; commands, files and addresses are the
ones of compose.yaml. All run in the network of one container, where every name is loopback.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.deploy.images import execute, image, logs, wait_healthy, why_not
from tests.deploy.machine import ROOT, clone

SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
FRONT = "localhost/parley-front"
# What the image of Prometheus runs by itself.
PROMETHEUS = "prometheus --config.file=/etc/prometheus/prometheus.yml --storage.tsdb.path=/tmp/db"

pytestmark = [
    pytest.mark.usefixtures("built_image"),
    pytest.mark.deploy,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(why_not() is not None, reason=why_not() or ""),
]


@dataclass(frozen=True, slots=True)
class Together:
    """The running services, and an access token for each kind of request."""

    token: str
    metrics_token: str

    def fetch(self, words: str) -> str:
        """What curl prints in the network of them all."""
        return image("podman", "exec", "compose-nginx", "curl", "-ks", *shlex.split(words))


def mounts(service: str, tree: Path) -> Iterator[str]:
    """podman's options for the files of the repository that a service gets."""
    for volume in SERVICES[service]["volumes"]:
        source, _, rest = volume.partition(":")
        if source.startswith("./"):
            yield from ("-v", f"{tree / source}:{rest}")


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Together]:
    image("front")
    tree = clone(ROOT, tmp_path_factory.mktemp("compose") / "tree")
    state = tmp_path_factory.mktemp("state")
    state.chmod(0o777)
    parley = SERVICES["parley"]
    assert (parley["read_only"], parley["cap_drop"], parley["tmpfs"]) == (True, ["ALL"], ["/tmp"])  # noqa: S108
    inside = ["--network", "container:compose-parley", "--ulimit", "nofile=1024:2048"]
    inside += ["--ulimit", "nproc=1000:1000"]
    # Those who join the network of another do not get its names.
    hosts = tmp_path_factory.mktemp("names") / "hosts"
    hosts.write_text("127.0.0.1 localhost parley\n")
    hosts.chmod(0o644)
    inside += ["-v", f"{hosts}:/etc/hosts:ro"]
    try:
        # image.sh has the same options as compose.yaml has for this service.
        image(
            "run",
            "compose-parley",
            "8000",
            "--network",
            "none",
            "-v",
            f"{state}:/var/lib/parley",
            "-e",
            "PARLEY_AUTH__ALLOW_ANONYMOUS=false",
            "-e",
            "PARLEY_API__HOST=127.0.0.1",
        )
        wait_healthy("compose-parley")
        made = [
            image("podman", "exec", "compose-parley", "parley", "token", "create", *words.split())
            for words in ("--name first", "--name prometheus --scope metrics")
        ]
        (tree / "deploy/prometheus/token").write_text(made[1])
        (tree / "deploy/prometheus/token").chmod(0o644)
        for name, command in (
            (
                "nginx",
                shlex.join(["mkdir", "-p", "/etc/parley/tls"])
                + " && "
                + shlex.join(SERVICES["nginx"]["command"]),
            ),
            ("prometheus", PROMETHEUS),
        ):
            image(
                "podman",
                "run",
                "-d",
                "--name",
                f"compose-{name}",
                *inside,
                *mounts(name, tree),
                FRONT,
                "sh",
                "-c",
                command,
            )
        yield Together(*made)
    finally:
        for name in ("prometheus", "nginx", "parley"):
            image("podman", "rm", "-f", "-t", "0", f"compose-{name}", check=False)


def until(container: str, *words: str) -> None:
    """Run a command in a container until it succeeds."""
    tries = iter(range(300))
    while execute(container, *words) != 0:
        assert next(tries, None) is not None, logs(container)


def test_nginx_in_front_answers_over_https_with_a_token(together: Together) -> None:
    until("compose-nginx", *shlex.split("curl -ksf -o /dev/null https://127.0.0.1/health"))
    ask = "https://127.0.0.1/chat -H 'Content-Type: application/json' -d "
    ask += shlex.quote(json.dumps({"message": "What is the capital of France?"}))
    assert json.loads(together.fetch(ask)) != {}
    assert "Paris" in together.fetch(f"{ask} -H 'Authorization: Bearer {together.token}'")
    assert "Paris" not in together.fetch(ask)


def test_prometheus_scrapes_it_and_has_the_alerts(together: Together) -> None:
    targets = "http://127.0.0.1:9090/api/v1/targets"
    healthy = f'curl -s {targets} | grep -q \'"health":"up"\''
    until("compose-nginx", "sh", "-c", healthy)
    rules = json.loads(together.fetch("http://127.0.0.1:9090/api/v1/rules"))
    names = [rule["name"] for group in rules["data"]["groups"] for rule in group["rules"]]
    assert "ParleyDown" in names


def test_every_expression_of_the_dashboard_is_understood(together: Together) -> None:
    until("compose-nginx", *shlex.split("curl -sf -o /dev/null http://127.0.0.1:9090/-/ready"))
    dashboard = json.loads((ROOT / "deploy" / "grafana" / "parley.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            query = target["expr"].replace("$__rate_interval", "5m")
            words = f"-G --data-urlencode {shlex.quote('query=' + query)}"
            reply = json.loads(together.fetch(f"{words} http://127.0.0.1:9090/api/v1/query"))
            assert reply["status"] == "success", (query, reply)
