"""The two images are one, but for what CUDA takes."""

from __future__ import annotations

import difflib
import re

from tests.deploy.nginx import DEPLOY

# Bases, the flags with their reasons, and what NVIDIA's runtime is asked for.
CUDA = re.compile(
    r"CUDA|NO_VMM|cuda|NVIDIA|GPU|--build-arg|CMAKE_ARGS|BASE_IMAGE=|RUN_IMAGE=|docker build"
)


def test_the_image_for_graphics_cards_differs_in_nothing_but_cuda() -> None:
    plain, cuda = (
        (DEPLOY.parent / name).read_text().splitlines()
        for name in ("Dockerfile", "Dockerfile.cuda")
    )
    changed = [
        line
        for line in difflib.unified_diff(plain, cuda, lineterm="", n=0)
        if line.startswith(("+", "-")) and not line.startswith(("+++", "---"))
    ]
    assert changed
    assert [line for line in changed if not CUDA.search(line)] == []


def test_what_an_image_needs_is_sent_to_its_build_and_nothing_else_is() -> None:
    sent = (DEPLOY.parent / ".dockerignore").read_text().splitlines()
    copied = re.findall(r"^COPY ([^-].*) \S+$", (DEPLOY.parent / "Dockerfile").read_text(), re.M)
    wanted = {word.replace("[s]", "s") for line in copied for word in line.split()}
    assert sent[0] == "*"
    assert {line[1:] for line in sent if line.startswith("!")} == wanted
