"""Kernels with quantised weights, executed on the CPU by an emulation of CUDA, against the reference backend."""

import shutil
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from cuda_emulator import EmulatedKernel
from cuda_models import CONFIGS, RandomWeights, llama_config, verified
from quantized_models import EVERY_FORMAT

from amk.amk_ir.errors import CheckpointError
from amk.amk_ir.quantization import QuantizedTensor, parse_format, quantize
from amk.backends.cuda.emit import emit_kernel
from amk.backends.cuda.pack import packed_weights
from amk.backends.cuda.trace_points import TraceDetail
from amk.backends.reference.backend import ReferenceBackend

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


@pytest.mark.parametrize(
    ("format", "target"),
    [
        ("int8", "sm_90a"),
        ("int4:g128:f16", "sm_90a"),
        ("int8:g128:zp", "sm_90a"),
        ("fp8:b128x128", "sm_90a"),
        ("fp8", "sm_90a"),
        ("int4:g64:zp", "sm_80"),
    ],
)
def test_tasks_of_several_stages(format: str, target: str, tmp_path: Path) -> None:
    """Rows of 320 and 640 columns in stages of 1.5 KiB, the last of them not full, and tiles of up to 32 rows."""
    config = llama_config(320, 640, 1, 4, 2, 64, 80)
    options: dict[str, Any] = {"target": target, "stages": 3, "bytes": 4096, "in_flight": 2}
    assert_steps_agree(config, tmp_path, 1, weights=format, head=format, **options)


@pytest.mark.parametrize("format", ["int8", "int4:g32:zp", "fp8", "int8:g16"])
@pytest.mark.parametrize(("tokens", "hidden"), [(3, 128), (8, 64)])
def test_several_tokens_a_step(format: str, tokens: int, hidden: int, tmp_path: Path) -> None:
    """Each row has the bits that it would have alone, where attention and hand-offs are alike."""
    config = llama_config(hidden, 96, 1, 4, 2, 16, 100)
    options: dict[str, Any] = {"sms": 3, "kv_dtype": "f32", "handoff": "counter", "fuse_attention": "never"}
    options |= {"weights": format, "head": format}
    emulated: list[EmulatedKernel] = []
    for count in (1, tokens):
        kernel = verified(config, tokens=count, **options).kernel
        emitted, weights = emit_kernel(kernel), RandomWeights(kernel)
        (tmp_path / str(count)).mkdir()
        emulated.append(EmulatedKernel(emitted, packed_weights(emitted.plan, weights), tmp_path / str(count)))
    single, several = emulated
    chosen = np.random.default_rng(tokens).integers(0, 100, (2, tokens)).astype(np.int32)
    for step, ids in enumerate(chosen):
        found = several.step({"token": ids}, tokens * step)["logits"]
        for row in range(tokens):
            expected = single.step({"token": ids[row : row + 1]}, tokens * step + row)["logits"][0]
            assert np.array_equal(found[row], expected)


def test_a_traced_kernel_computes_the_same(tmp_path: Path) -> None:
    kernel = verified(CONFIGS["gqa"], sms=3, weights="int8", head="fp8").kernel
    logits: list[Any] = []
    for detail in (None, *get_args(TraceDetail)):
        emitted, weights = emit_kernel(kernel, trace=detail), RandomWeights(kernel)
        (tmp_path / str(detail)).mkdir()
        packed = packed_weights(emitted.plan, weights)
        emulated = EmulatedKernel(emitted, packed, tmp_path / str(detail), trace_events=4000)
        logits.append(emulated.step({"token": np.array([5], np.int32)}, 0)["logits"].copy())
    assert all(np.array_equal(logits[0], other) for other in logits[1:])


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
