"""Kernels with quantised weights, executed on the CPU by an emulation of CUDA, against the reference backend."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_emulator import EmulatedKernel
from cuda_kernels import Shape
from cuda_models import CONFIGS, RandomWeights, llama_config, verified
from quantized_models import EVERY_FORMAT, quantized_text
from xdsl.parser import Parser

from amk.amk_ir.errors import CheckpointError
from amk.amk_ir.quantization import QuantizedTensor, parse_format, quantize
from amk.backends.cuda.emit import emit_kernel
from amk.backends.cuda.pack import packed_weights
from amk.backends.reference.backend import ReferenceBackend
from amk.backends.reference.queue_interpreter import QueueInterpreter
from amk.runtime.compile import find_kernel, new_context

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


def assert_steps_agree(config: dict[str, Any], folder: Path, steps: int = 2, **options: Any) -> None:
    kernel = verified(config, sms=3, kv_dtype="f32", **options)
    emitted, weights = emit_kernel(kernel.kernel), RandomWeights(kernel.kernel)
    emulated = EmulatedKernel(emitted, packed_weights(emitted.plan, weights), folder)
    reference = ReferenceBackend().load(kernel, weights)
    for pos, token in enumerate((5, 17, 99)[:steps]):
        logits = emulated.step({"token": np.array([token], np.int32)}, pos, seed=pos)["logits"][0]
        _, expected = reference.step(token, pos)
        assert np.abs(logits - expected).max() <= 2e-5 * np.abs(expected).max()


@pytest.mark.parametrize("name", EVERY_FORMAT)
def test_steps_agree(name: str, tmp_path: Path) -> None:
    config, options = EVERY_FORMAT[name]
    assert_steps_agree(CONFIGS[config], tmp_path, **options)


@pytest.mark.parametrize("format", ["int8", "int4:g128:f16", "int8:g128:zp", "fp8:b128x128", "fp8"])
def test_tasks_of_several_stages(format: str, tmp_path: Path) -> None:
    """Rows of 320 and 640 columns in stages of 1.5 KiB, the last of them not full, and tiles of up to 32 rows."""
    config = llama_config(320, 640, 1, 4, 2, 64, 80)
    assert_steps_agree(config, tmp_path, 1, weights=format, head=format, stages=3, bytes=4096, in_flight=2)


@pytest.mark.parametrize("format", ["int8", "int4:g32:zp", "fp8", "int8:g16"])
@pytest.mark.parametrize(("tokens", "width", "heads"), [(3, 128, 8), (8, 64, 4)])
def test_several_tokens_a_step(format: str, tokens: int, width: int, heads: int, tmp_path: Path) -> None:
    """Rows of 128 columns, whose activations are cut as they come, and of 64, which are cut afterwards."""
    shape = Shape(tokens=tokens, width=width, heads=heads, inner=width, tagged=True, bias=True, ring=(4, 9216, 2))
    text = quantized_text(shape, format)
    kernel = find_kernel(Parser(new_context(), text).parse_module())
    kernel.verify()
    emitted, weights = emit_kernel(kernel), RandomWeights(kernel)
    emulated = EmulatedKernel(emitted, packed_weights(emitted.plan, weights), tmp_path)
    reference = QueueInterpreter(kernel, weights)
    chosen = np.random.default_rng(tokens).integers(0, 100, (2, tokens))
    for step, ids in enumerate(chosen.tolist()):
        outputs = emulated.step({"token": np.array(ids, np.int32)}, tokens * step)
        expected = reference.step(ids, tokens * step)
        assert np.abs(outputs["logits"] - expected.logits).max() <= 2e-5 * np.abs(expected.logits).max()


class StoredWeights(RandomWeights):
    """Weights that are stored quantised, the columns of some in another order."""

    def __init__(self, kernel: Any, format: str, reordered: bool):
        super().__init__(kernel)
        self.stored: dict[str, QuantizedTensor] = {}
        for name in [name for name in self.entries if "_proj" in name]:
            values = super().load(name)
            columns = 96 if "down" in name else 64
            tensor = quantize(values.reshape(-1, columns), parse_format(format))
            if reordered:
                order = np.random.default_rng(3).permutation(columns).astype(np.int32)
                tensor = QuantizedTensor(
                    tensor.format, tensor.shape, tensor.codes[:, order], tensor.scales, permutation=order
                )
            self.stored[name] = tensor

    def quantized(self, name: str) -> QuantizedTensor | None:
        return self.stored.get(name)

    def load(self, name: str, dtype: Any = "f32") -> Any:
        assert name not in self.stored, "what is stored in the wanted format is not quantised again"
        return super().load(name, dtype)


@pytest.mark.parametrize("reordered", [False, True])
def test_weights_are_taken_as_they_are_stored(reordered: bool, tmp_path: Path) -> None:
    """Scales of whole rows do not depend on the order of columns: the packer puts them back."""
    kernel = verified(CONFIGS["gqa"], sms=3, kv_dtype="f32", weights="int8")
    emitted, weights = emit_kernel(kernel.kernel), StoredWeights(kernel.kernel, "int8", reordered)
    emulated = EmulatedKernel(emitted, packed_weights(emitted.plan, weights), tmp_path)
    logits = emulated.step({"token": np.array([5], np.int32)}, 0)["logits"][0]
    _, expected = ReferenceBackend().load(kernel, weights).step(5, 0)
    assert np.abs(logits - expected).max() <= 2e-5 * np.abs(expected).max()


def test_groups_of_reordered_columns_are_refused() -> None:
    kernel = verified(CONFIGS["gqa"], sms=3, weights="int8:g32").kernel
    weights = StoredWeights(kernel, "int8:g32", True)
    with pytest.raises(CheckpointError, match=r"_proj.*act-order.*bf16 weights"):
        list(packed_weights(emit_kernel(kernel).plan, weights))
