"""How much an SM streams between two hand-offs, as plan-stream reckons it."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from cuda_models import llama_config, verified

from amk.dialects.queue import KernelOp, PhaseOp
from amk.dialects.task import ForOp
from amk.passes.stream_bytes import bytes_a_phase


@pytest.mark.parametrize(("weights", "bits"), [("none", 16), ("int8", 8), ("int4:g32", 4)])
def test_bytes_a_phase(weights: str, bits: int) -> None:
    """All weights that a step multiplies, of their codes alone, among its phases and SMs; rows of the KV cache do not count."""
    config = llama_config(64, 96, 2, 4, 2, 16, 320, tied=False)
    options: dict[str, Any] = {} if weights == "none" else {"weights": weights, "head": weights}
    kernel = verified(config, "sm_90a", sms=4, **options).kernel
    (program,) = kernel.programs
    (layers,) = (op for op in program.body.block.ops if isinstance(op, ForOp))
    phases, in_layers = (sum(isinstance(op, PhaseOp) for op in where.walk()) for where in (program, layers))
    layer = (64 + 2 * 32) * 64 + 64 * 64 + 3 * 96 * 64
    expected = (2 * layer + 320 * 64) * bits / 8 / 4 / (phases + in_layers)
    assert bytes_a_phase(kernel) == pytest.approx(expected)


def test_what_streams_nothing() -> None:
    """A kernel without phases streams nothing in them."""
    assert bytes_a_phase(cast(KernelOp, SimpleNamespace(programs=()))) == 0.0
