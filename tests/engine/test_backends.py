"""OpenBLAS, where this build has it."""

from __future__ import annotations

import ctypes

import pytest

from service.engine.planning import backends

pytestmark = pytest.mark.model


def test_openblas_can_be_told_from_call_to_call_whether_to_compute() -> None:
    backends.load()
    blas = backends.Blas()
    if not blas.exists:
        pytest.skip("this build is without OpenBLAS")
    assert blas.can_rest
    nothing = ctypes.create_string_buffer(4096)

    def computes() -> bool:
        device = backends._blas_device(blas._pointer, 0)
        return bool(backends._supports(device, nothing))

    for wanted in (False, True, False, True):
        blas.use(wanted)
        assert computes() is wanted
