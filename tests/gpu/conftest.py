"""Tests in this folder need an NVIDIA GPU of a known architecture; without one they are skipped."""

from __future__ import annotations

import pytest

from amk.amk_ir.errors import DeviceError
from amk.amk_ir.targets import Target


@pytest.fixture(scope="session")
def target() -> Target:
    """The target of the GPU."""
    from amk.backends.cuda.backend import detect_target

    try:
        return detect_target()
    except DeviceError as error:
        pytest.skip(str(error))
