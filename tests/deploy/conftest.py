"""What several tests install from."""

from __future__ import annotations

import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.setup.bundle import make_bundle
from deploy.setup.environment import Checkout
from tests.deploy.images import image
from tests.deploy.machine import ROOT, clone


@dataclass(frozen=True, slots=True)
class Bundle:
    """What `make bundle` made, and the same unpacked."""

    file: Path
    folder: Path

    def wheels_into(self, folder: Path) -> Path:
        """All its wheels, llama.cpp's as well, in one new folder."""
        folder.mkdir()
        for wheel in self.folder.rglob("*.whl"):
            shutil.copy(wheel, folder)
        return folder


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """For the Pythons of Debian 12, Ubuntu 22.04 and 24.04. The first time fetches all wheels, and
    compiles llama.cpp for any processor."""
    space = tmp_path_factory.mktemp("bundle")
    file = make_bundle(Checkout(ROOT), "pocket", ["3.11", "3.12"], space)
    with tarfile.open(file) as packed:
        packed.extractall(space, filter="data")
    return Bundle(file, space / file.stem)


@pytest.fixture(scope="session")
def built_image(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle) -> Path:
    """The image, from wheels that are there; else the build would compile for half an hour. Returns
    what it was built from."""
    context = clone(ROOT, tmp_path_factory.mktemp("image") / "context")
    bundle.wheels_into(context / "wheels")
    image("build", str(context))
    return context
