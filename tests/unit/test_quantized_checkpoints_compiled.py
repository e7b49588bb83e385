"""Quantised checkpoints, as they are, down to a GPU's kernel."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from cuda_emulator import EmulatedKernel

from amk.amk_ir.quantized_type import QuantizedType
from amk.amk_ir.targets import get_target
from amk.amk_ir.weight_choice import WeightChoice
from amk.backends.cuda.emit import emit_kernel
from amk.backends.cuda.pack import packed_weights
from amk.backends.reference.backend import ReferenceBackend
from amk.dialects.graph import WeightOp
from amk.frontends.import_model import import_model
from amk.runtime.compile import plan
from amk.runtime.footprint import model_of
from amk.tools.quantize import quantize_imported

FOLDER = Path(__file__).parents[1] / "data" / "quantized"
CHECKPOINTS = sorted(path.parent.name for path in FOLDER.glob("*/config.json"))
RUN = ("awq", "compressed_int8_asymmetric", "fp8_block")
"""Checkpoints that are run too: the others differ in how they are read."""


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_stored_formats_reach_the_kernel(name: str, tmp_path: Path) -> None:
    notes: list[str] = []
    imported = import_model(FOLDER / name, weight_dtype="bf16", kv_dtype="f32", max_seq=16)
    model = quantize_imported(imported, WeightChoice("stored"), notes.append)
    weights = [op for op in model_of(model.module).body.block.ops if isinstance(op, WeightOp)]
    quantized = [op for op in weights if isinstance(op.type.get_element_type(), QuantizedType)]
    if name.endswith("act_order"):
        assert not quantized and len(notes) == 7
        assert notes[0] == "@q_proj is stored with groups of reordered columns (act-order); it becomes bf16"
    else:
        assert len(quantized) >= 7 and not notes
    kernel = plan(model.module, get_target("sm_90a"), 3)
    emitted = emit_kernel(kernel.kernel)
    assert model.checkpoint is not None
    packed = list(packed_weights(emitted.plan, model.checkpoint))
    assert sum(piece.size for piece in packed) == emitted.plan.weight_bytes
    if name in RUN and shutil.which("g++") is not None:
        emulated = EmulatedKernel(emitted, packed, tmp_path)
        logits = emulated.step({"token": np.array([5], np.int32)}, 0)["logits"][0]
        _, expected = ReferenceBackend().load(kernel, model.checkpoint).step(5, 0)
        assert np.abs(logits - expected).max() <= 2e-5 * np.abs(expected).max()
