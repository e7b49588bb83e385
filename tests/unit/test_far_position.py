"""From where on attention is divided among more SMs."""

import pytest

from amk.amk_ir.targets import get_target
from amk.dialects.task import AttentionOp, MatmulOp
from amk.frontends.import_model import import_config
from amk.runtime.compile import far_position, plan
from amk.tools.bench.shapes import SHAPES


@pytest.mark.parametrize(
    ("shape", "position", "is_fused"),
    [
        ("smollm2-135m", 256, True),
        ("qwen3-0.6b", 192, True),
        ("llama-3.2-1b", 352, False),
        ("llama-3.1-8b", 352, False),
    ],
)
def test_far_position(shape: str, position: int, is_fused: bool) -> None:
    """It knows from the configuration alone which kernels attend in their products, which dividing undoes."""
    model = import_config(SHAPES[shape], name=shape, max_seq=1024, weight_dtype="bf16", kv_dtype="bf16")
    assert far_position(model.config) == position
    kernel = plan(model.module, get_target("sm_90a")).kernel
    bodies = [{type(op) for op in family.body.block.ops} for family in kernel.families.values()]
    assert any({AttentionOp, MatmulOp} <= kinds for kinds in bodies) == is_fused
