"""A certificate from an authority that asks back: pebble on this machine, certbot on the other."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.conftest import Bundle
from tests.deploy.machine import ROOT, Machine, booted, clone, why_not
from tests.deploy.nginx import make_certificate

HOST, SUBNET = "198.18.12.1", "198.18.12"
NAME = "chat.parley.test"
MISSING = [tool for tool in ("pebble", "pebble-challtestsrv") if shutil.which(tool) is None]

pytestmark = [
    pytest.mark.deploy,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(why_not() is not None, reason=why_not() or ""),
    pytest.mark.skipif(bool(MISSING), reason=f"missing here: {', '.join(MISSING)}"),
]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle) -> Iterator[Machine]:
    space = tmp_path_factory.mktemp("acme")
    with booted(clone(ROOT, space / "tree"), MACHINE="acme", MACHINE_SUBNET=SUBNET) as machine:
        machine.environment["WHEELS"] = str(bundle.wheels_into(space / "wheels"))
        machine.run("mkdir -p /etc/parley; echo PARLEY_MODEL__NAME=pocket > /etc/parley/parley.env")
        yield machine


@pytest.fixture(scope="module")
def authority(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an authority whose resolver knows the machine by every name."""
    space = tmp_path_factory.mktemp("authority")
    make_certificate(space)
    facts = {
        "listenAddress": f"{HOST}:14000",
        "managementListenAddress": f"{HOST}:15000",
        "certificate": str(space / "fullchain.pem"),
        "privateKey": str(space / "privkey.pem"),
        "httpPort": 80,
        "tlsPort": 443,
        "ocspResponderURL": "",
    }
    (space / "pebble.json").write_text(json.dumps({"pebble": facts}))
    # The resolver alone; its own servers for challenges stay off.
    off = [word for kind in ("http01", "https01", "tlsalpn01") for word in (f"-{kind}", "")]
    resolver = ["-dns01", f"{HOST}:8053", "-management", f"{HOST}:8055", *off]
    commands = (
        ["pebble-challtestsrv", *resolver, "-defaultIPv4", machine.address, "-defaultIPv6", ""],
        ["pebble", "-config", str(space / "pebble.json"), "-dnsserver", f"{HOST}:8053"],
    )
    environment = {**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"}
    with (space / "log").open("w") as log:
        running = [
            subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            for command in commands
        ]
        try:
            yield f"https://{HOST}:14000/dir"
        finally:
            for process in running:
                process.terminate()
                process.wait(10)


def issuer(machine: Machine) -> str:
    """Who signed what nginx shows."""
    shown = f"openssl s_client -connect 127.0.0.1:443 -servername {NAME} </dev/null 2>/dev/null"
    return machine.run(f"{shown} | openssl x509 -noout -issuer")


def test_a_domain_without_an_address_to_write_to_is_one_sentence(machine: Machine) -> None:
    done = machine.deploy(DOMAIN=NAME)
    assert done.returncode == 2
    assert f"DOMAIN={NAME} needs EMAIL= as well" in done.stderr


def test_an_authority_that_cannot_be_asked_leaves_the_self_signed_one(machine: Machine) -> None:
    nobody = "server = https://127.0.0.1:9/dir"
    machine.run(f"mkdir -p /etc/letsencrypt; echo '{nobody}' > /etc/letsencrypt/cli.ini")
    done = machine.deploy(DOMAIN=NAME, EMAIL="me@parley.test")
    assert done.returncode == 0, done.stderr
    assert f"no certificate for {NAME} yet" in done.stderr
    assert "Parley on this machine" in issuer(machine)


def test_certbot_s_certificate_is_what_nginx_shows(
    machine: Machine, authority: str, tmp_path: Path
) -> None:
    settings = tmp_path / "cli.ini"
    settings.write_text(f"server = {authority}\nno-verify-ssl = true\n")
    machine.give(settings, "/etc/letsencrypt/cli.ini")
    pid = machine.run("systemctl show -P MainPID parley")
    done = machine.deploy(DOMAIN=NAME, EMAIL="me@parley.test")
    assert done.returncode == 0, done.stderr
    assert "Pebble" in issuer(machine)
    assert machine.run("systemctl show -P MainPID parley") == pid


@pytest.mark.usefixtures("authority")
def test_a_renewal_is_shown_without_a_deploy(machine: Machine) -> None:
    before = machine.run("sha256sum /etc/parley/tls/fullchain.pem")
    machine.run("certbot renew --force-renewal --quiet")
    assert machine.run("sha256sum /etc/parley/tls/fullchain.pem") != before
    assert "Pebble" in issuer(machine)
