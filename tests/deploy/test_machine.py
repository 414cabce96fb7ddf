"""The whole way: a booted machine is deployed to, used, hurt, upgraded, and left as it was.

In the order of the file (`make test-deploy` sees to that): a machine has a life, not states.
MACHINE_SUITE names another distribution than Debian 12 (see machine.sh).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.deploy.conftest import Bundle
from tests.deploy.machine import ROOT, Machine, booted, clone, successor, untouched, why_not
from tests.faults.streams import ENDS

NUM_STREAMS = 20
LONG = 300  # tokens: all streams together take some seconds, and less than a drain

pytestmark = [
    pytest.mark.deploy,
    pytest.mark.timeout(900),
    pytest.mark.skipif(why_not() is not None, reason=why_not() or ""),
]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle) -> Iterator[Machine]:
    space = tmp_path_factory.mktemp("deployed")
    with booted(clone(ROOT, space / "tree")) as machine:
        machine.environment["WHEELS"] = str(bundle.wheels_into(space / "wheels"))
        machine.run("mkdir -p /etc/parley; echo PARLEY_MODEL__NAME=pocket > /etc/parley/parley.env")
        yield machine


@pytest.fixture
def client(machine: Machine) -> Iterator[httpx.Client]:
    with machine.client(TOKENS[0]) as client:
        yield client


# Made as the machine is: the first by the first deploy, the others for the many streams.
TOKENS: list[str] = []


def body(max_tokens: int) -> dict[str, object]:
    """A chat that goes on until it has `max_tokens`."""
    question = [{"role": "user", "content": "Tell me a story."}]
    answer = {"max_tokens": max_tokens, "logit_bias": ENDS, "temperature": 0}
    usage = {"stream": True, "stream_options": {"include_usage": True}}
    return {"model": "pocket", "messages": question, **usage, **answer}


def finish_of(machine: Machine, number: int) -> str:
    """How a long stream ended: its finish reason and how many tokens came, or what broke it."""
    last = reason = ""
    num_tokens = 0
    with machine.client(TOKENS[number % len(TOKENS)]) as client:
        try:
            with client.stream("POST", "/v1/chat/completions", json=body(LONG)) as reply:
                for line in reply.iter_lines():
                    if line.startswith("data: {"):
                        found = json.loads(line[6:])
                        for choice in found["choices"]:
                            reason = choice["finish_reason"] or reason
                        num_tokens = (found.get("usage") or {}).get("completion_tokens", 0)
                    last = line or last
        except httpx.HTTPError as error:
            return repr(error)
    return f"{reason} {num_tokens}" if last == "data: [DONE]" else f"ended after {last!r}"


def test_a_full_disk_is_one_sentence_and_nothing_changes(machine: Machine) -> None:
    machine.run("mount -t tmpfs -o size=64m tmpfs /opt")
    try:
        done = machine.deploy()
    finally:
        machine.run("umount /opt")
    assert done.returncode == 5, done.stderr
    assert "/opt has 64 MiB free" in done.stderr
    assert machine.run("ls /opt; ls /etc/systemd/system/parley* 2>/dev/null; true") == ""


def test_a_first_deploy_makes_it_answer_over_https(machine: Machine) -> None:
    done = machine.deploy()
    assert done.returncode == 0, done.stderr
    TOKENS.append(done.stdout.strip())
    question = {"message": "What is the capital of France?"}
    with machine.client(TOKENS[0]) as client, machine.client() as stranger:
        reply = client.post("/chat", json=question)
        assert stranger.post("/chat", json=question).status_code == 401
    assert "Paris" in reply.json()["response"]
    assert reply.headers["Strict-Transport-Security"].startswith("max-age")
    assert len(reply.headers.get_list("Content-Security-Policy")) == 1
    assert machine.run("systemctl is-active parley nginx") == "active\nactive"
    assert (
        float(machine.run("systemd-analyze security parley --no-pager | tail -1").split()[-3]) <= 2
    )


def test_a_second_deploy_changes_nothing(machine: Machine) -> None:
    with untouched(machine):
        done = machine.deploy()
        assert done.returncode == 0, done.stderr
        assert "nothing had to be changed" in done.stderr


def test_a_user_with_sudo_may_deploy_and_one_without_may_not(machine: Machine) -> None:
    machine.run(
        "useradd -m ops; install -d -o ops -m 700 ~ops/.ssh; "
        "install -o ops -m 600 ~/.ssh/authorized_keys ~ops/.ssh/"
    )
    refused = machine.deploy(user="ops")
    assert refused.returncode == 3, refused.stderr
    machine.run("echo 'ops ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/ops")
    done = machine.deploy(user="ops")
    assert (done.returncode, "nothing had to be changed" in done.stderr) == (0, True), done.stderr


def test_a_run_that_broke_off_is_completed_by_the_next(machine: Machine) -> None:
    """As after a deploy that was killed while nginx led to the new release."""
    machine.run(
        "ln -sfn $(readlink /opt/parley/current) /opt/parley/next; systemctl start parley-next; "
        "ln -sfn /run/parley-next/http.sock /run/parley-front.sock"
    )
    done = machine.deploy()
    assert done.returncode == 0, done.stderr
    assert machine.run("readlink /run/parley-front.sock") == "/run/parley/http.sock"
    assert machine.run("systemctl is-active parley-next || true") == "inactive"


def test_a_disk_that_is_full_by_now_leaves_alone_what_serves(
    machine: Machine, tmp_path: Path
) -> None:
    with untouched(machine):
        tree = successor(machine.tree, tmp_path / "large", broken=False)
        machine.run("mount -t tmpfs -o size=64m tmpfs /opt")
        try:
            done = machine.deploy(tree)
        finally:
            machine.run("umount /opt")
        assert done.returncode == 5, done.stderr
        assert "nothing was changed" in done.stderr


def test_tokens_arrive_one_by_one(client: httpx.Client) -> None:
    arrivals = []
    with client.stream("POST", "/v1/chat/completions", json=body(150)) as reply:
        for line in reply.iter_lines():
            if line.startswith("data: {"):
                arrivals.append(time.monotonic())
    # A machine that is busy with other things sends several tokens in one event.
    assert len(arrivals) > 30
    # Not at once: the middle one came well before the last and well after the first.
    middle = (arrivals[len(arrivals) // 2] - arrivals[0]) / (arrivals[-1] - arrivals[0])
    assert 0.05 < middle < 0.95


def test_too_many_requests_are_refused_in_json(machine: Machine) -> None:
    with machine.client(machine.token("greedy")) as greedy:
        replies = [greedy.get("/v1/models") for _ in range(60)]
    refused = [reply for reply in replies if reply.status_code == 429]
    assert refused
    assert refused[0].json()["error"]["code"] == "rate_limit_exceeded"


def test_metrics_are_refused_from_outside(machine: Machine, client: httpx.Client) -> None:
    assert client.get("/metrics").status_code == 403
    token = machine.token("prometheus", "--scope", "metrics")
    scrape = f"curl -ks -H 'Authorization: Bearer {token}' https://127.0.0.1/metrics"
    assert "parley_build_info" in machine.run(scrape)


@pytest.mark.parametrize("role", ["service.engine", "service.gunicorn_conf", "service.supervisor"])
def test_what_is_killed_comes_back(machine: Machine, client: httpx.Client, role: str) -> None:
    found = machine.run(f"pgrep -f -u parley '[-]P .*{role}'").split()
    machine.run(f"kill -9 {found[-1]}")
    machine.run(
        f"for i in $(seq 300); do kill -0 {found[-1]} 2>/dev/null || exit 0; sleep 0.1; done"
    )
    machine.wait_healthy()
    reply = client.post("/chat", json={"message": "Hello!"})
    assert reply.status_code == 200, reply.text


def test_an_upgrade_under_open_streams_loses_none(machine: Machine, tmp_path: Path) -> None:
    tree = successor(machine.tree, tmp_path / "next", broken=False)
    TOKENS.extend(machine.token(f"streams-{n}") for n in range(3))
    was = machine.run("readlink /opt/parley/current")
    with ThreadPoolExecutor(NUM_STREAMS + 1) as pool:
        upgrade = pool.submit(machine.deploy, tree)
        # New streams all the time, so that some are open whenever something is switched.
        endings = []
        while not upgrade.done():
            running = [pool.submit(finish_of, machine, n) for n in range(NUM_STREAMS)]
            endings += [stream.result() for stream in running]
        done = upgrade.result()
    assert done.returncode == 0, done.stderr
    assert machine.run("readlink /opt/parley/current") != was
    machine.tree = tree
    assert set(endings) == {f"length {LONG}"}, endings
    counted = re.search(r"(\d+) of (\d+) streams lost", done.stderr)
    assert counted, done.stderr
    assert (int(counted[1]), int(counted[2]) >= NUM_STREAMS) == (0, True)
    assert machine.run("systemctl is-active parley-next || true") == "inactive"


def test_a_release_that_does_not_serve_is_taken_away(machine: Machine, tmp_path: Path) -> None:
    tree = successor(machine.tree, tmp_path / "broken", broken=True)
    before = machine.run("readlink /opt/parley/current; ls /opt/parley/releases")
    with untouched(machine):
        done = machine.deploy(tree)
        assert done.returncode == 6, done.stderr
        assert "goes on and was not touched" in done.stderr
        assert machine.run("readlink /opt/parley/current; ls /opt/parley/releases") == before


def test_a_model_that_cannot_be_had_is_one_sentence_and_nothing_changes(
    machine: Machine, tmp_path: Path
) -> None:
    wanted = "PARLEY_MODEL__NAME=smollm2-360m-instruct\\nHF_ENDPOINT=http://127.0.0.1:9"
    with untouched(machine):
        machine.run("cp /etc/parley/parley.env /root/settings")
        machine.run(f"printf '{wanted}\\n' >> /etc/parley/parley.env")
        try:
            done = machine.deploy(successor(machine.tree, tmp_path / "wanting", broken=False))
        finally:
            machine.run("cp /root/settings /etc/parley/parley.env")
        assert done.returncode == 11, done.stderr
        assert "The model hub at http://127.0.0.1:9 cannot be reached" in done.stderr
        assert "smollm2-360m-instruct cannot be had" in done.stderr


EXPIRED = """set -e; cd $(mktemp -d); K="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
openssl req $K -subj "/O=SIGNER/CN=x" -keyout k -out r 2>/dev/null
openssl x509 -req -in r -signkey k -days -1 -out c 2>/dev/null
cp k /etc/parley/tls/privkey.pem; cp c /etc/parley/tls/fullchain.pem; systemctl reload nginx"""


def test_an_expired_certificate_of_another_is_one_sentence_and_nothing_changes(
    machine: Machine,
) -> None:
    with untouched(machine):
        machine.run("cp -a /etc/parley/tls /root/")
        machine.run(EXPIRED.replace("SIGNER", "Somebody"))
        try:
            said = doctor(machine)["certificate"]
            done = machine.deploy()
        finally:
            machine.run("cp -a /root/tls/. /etc/parley/tls/; systemctl reload nginx")
        assert (said["verdict"], said["fact"]) == ("wrong", "expired 1 days ago")
        assert "systemctl reload nginx" in said["mend"]
        assert done.returncode == 10, done.stderr
        assert "the certificate in /etc/parley/tls ended on" in done.stderr


def test_an_expired_certificate_of_ours_is_replaced_by_the_next_deploy(machine: Machine) -> None:
    with untouched(machine):
        machine.run(EXPIRED.replace("SIGNER", "Parley on this machine"))
        assert doctor(machine)["certificate"]["mend"] == "make deploy HOST=… again"
        done = machine.deploy()
        assert done.returncode == 0, done.stderr
        assert doctor(machine)["certificate"]["verdict"] == "fine"


def doctor(machine: Machine) -> dict[str, dict[str, str]]:
    """What `parley doctor` finds over there, by what it is about."""
    found = json.loads(machine.run("parley doctor --json; true"))
    return {one["about"]: one for one in found}


def test_doctor_finds_nothing_wrong_with_a_machine_that_is_well(machine: Machine) -> None:
    found = doctor(machine)
    assert {"unit", "nginx", "ports", "certificate", "service", "database"} <= set(found)
    assert [one for one in found.values() if one["verdict"] == "wrong"] == []


TAKE_PORT = (
    "systemctl stop nginx; systemd-run -q --unit=taker python3 -m http.server 443;"
    "for i in $(seq 300); do ss -Hltn 'sport = :443' | grep -q . && exit; sleep 0.1; done"
)


@pytest.mark.parametrize(
    ("breaks", "about", "fact", "mend", "repairs"),
    [
        (
            "systemctl stop nginx",
            *("nginx", "nginx.service is inactive", "systemctl restart nginx"),
            "systemctl restart nginx",
        ),
        (
            "echo nonsense >> /etc/nginx/conf.d/10-parley-http.conf",
            *("nginx", "[emerg]", "make deploy HOST=… again"),
            "sed -i '$d' /etc/nginx/conf.d/10-parley-http.conf",
        ),
        (
            TAKE_PORT,
            *("ports", "port 443 is taken by python3", "systemctl restart nginx"),
            "systemctl stop taker; systemctl restart nginx",
        ),
        (
            "mount -t tmpfs -o size=64m tmpfs /var/lib/parley",
            *("disk", "64 MiB free", "parley model remove"),
            "umount /var/lib/parley",
        ),
        (
            "cp /etc/parley/parley.env /root/settings; "
            "echo PARLEY_MODEL__NAME=/nowhere/x.gguf >> /etc/parley/parley.env; "
            "systemctl restart parley; true",
            *("unit", "parley.service is failed", "systemctl restart parley"),
            "cp /root/settings /etc/parley/parley.env; systemctl reset-failed parley; "
            "systemctl restart parley",
        ),
    ],
)
def test_doctor_names_what_is_broken_and_what_mends_it(
    machine: Machine, breaks: str, about: str, fact: str, mend: str, repairs: str
) -> None:
    machine.run(breaks)
    try:
        found = doctor(machine)
    finally:
        machine.run(repairs)
    assert found[about]["verdict"] == "wrong"
    assert fact in found[about]["fact"]
    assert mend in found[about]["mend"]
    machine.wait_healthy()
    assert doctor(machine)[about]["verdict"] != "wrong"


def test_offline_it_has_no_network_at_all(machine: Machine, client: httpx.Client) -> None:
    machine.run("echo PARLEY_MODEL__OFFLINE=true >> /etc/parley/parley.env")
    done = machine.deploy()
    assert done.returncode == 0, done.stderr
    pid = machine.run("systemctl show -P MainPID parley")
    assert "host0" not in machine.run(f"cat /proc/{pid}/net/dev")
    reply = client.post("/chat", json={"message": "What is the capital of France?"})
    assert "Paris" in reply.json()["response"]


def test_it_is_there_after_a_reboot(machine: Machine, client: httpx.Client) -> None:
    client.post("/chat", json={"message": "Hello!"}).raise_for_status()
    machine.reboot()
    with machine.client(TOKENS[0]) as after:
        reply = after.post("/chat", json={"message": "What is the capital of France?"})
    assert "Paris" in reply.json()["response"]


def test_a_taken_port_is_one_sentence_and_nothing_changes(machine: Machine) -> None:
    with untouched(machine):
        machine.run("systemctl stop nginx; systemd-run -q --unit=taker python3 -m http.server 80")
        machine.run(
            "for i in $(seq 300); do ss -Hltn 'sport = :80' | grep -q . && exit; sleep 0.1; done"
        )
        try:
            done = machine.deploy()
        finally:
            machine.run("systemctl stop taker; systemctl start nginx")
        assert done.returncode == 4, done.stderr
        assert "port 80 is taken by python3" in done.stderr


def test_undeploy_leaves_nothing(machine: Machine) -> None:
    done = machine.deploy(doing="remove", YES="1")
    assert done.returncode == 0, done.stderr
    left = machine.run(
        "find / -xdev -iname '*parley*' -not -path '/proc/*' -not -path '/var/log/journal/*' "
        "-not -path '/tmp/systemd-*'; "
        "getent passwd parley parley-build; getent group parley parley-build; true"
    )
    assert left == ""
    assert machine.run("systemctl is-active nginx; curl -sI http://127.0.0.1 | head -1").startswith(
        "active\nHTTP/1.1 200"
    )
