"""Emitted argmaxes, whole and by parts, executed on the CPU by an emulation of CUDA, against NumPy."""

import shutil
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from cuda_emulator import EmulatedKernel
from cuda_targets import CUDA_TARGETS
from numpy.typing import NDArray
from xdsl.parser import Parser
from xdsl.passes import ModulePass

from amk.amk_ir.targets import TARGETS
from amk.backends.cuda.compile import compile_kernel
from amk.backends.cuda.emit import emit_kernel
from amk.passes.split_argmax import SplitArgmaxPass
from amk.passes.task_to_queue import TaskToQueuePass
from amk.passes.verify_schedule import VerifiedKernel, verify
from amk.runtime.compile import find_kernel, new_context


def program(tokens: int, width: int) -> str:
    """A `task.program` that chooses from an input."""
    x, ids = f"tensor<{tokens}x{width}xf32>", f"tensor<{tokens}xi32>"
    return f"""task.program @choose max_seq 8 tokens {tokens} {{
  task.buffer @x input : {x}
  task.buffer @next output : {ids}
  task.family @argmax () {{
    %x = task.load @x[0 : {tokens}, 0 : {width}] : {x}
    %i = task.argmax %x : {x} -> {ids}
    task.store %i, @next[0 : {tokens}] : {ids}
  }}
  task.order {{ task.call @argmax[] }}
}}"""


def lowered(text: str, *passes: ModulePass | None) -> VerifiedKernel:
    """The kernel that the passes make of a program."""
    module = Parser(new_context(), text).parse_module()
    for step in passes:
        if step is not None:
            step.apply(new_context(), module)
    return verify(find_kernel(module))


def inputs(tokens: int, width: int) -> list[NDArray[np.float32]]:
    """Rows with ties inside parts and between them, values that differ in one bit, and values that are no numbers."""
    one = np.float32(1)
    values = np.array([0.0, -0.0, one, np.nextafter(one, np.float32(2)), -1.0], np.float32)
    # the second NaN is an infinity without its lowest bit
    strange = np.array([0x7FC00000, 0x7F800001, 0xFF800000, 0x7F800000], np.uint32).view(np.float32)
    rng = np.random.default_rng(width)
    result = [rng.standard_normal((tokens, width)).astype(np.float32), np.full((tokens, width), -np.inf, np.float32)]
    for _ in range(2):
        x = rng.choice(values, size=(tokens, width))
        result.append(x)
        # one greatest value that is one bit above a great many others
        x = np.minimum(x, one)
        x[np.arange(tokens), rng.integers(0, width, tokens)] = values[3]
        result.append(x)
        x = x.copy()
        for _ in range(4):
            x[np.arange(tokens), rng.integers(0, width, tokens)] = rng.choice(strange, size=tokens)
        result.append(x)
    last = np.zeros((tokens, width), np.float32)
    last[:, -1] = 1
    return [*result, last]


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.parametrize(
    ("tokens", "width", "sms", "handoff", "split", "parts"),
    [
        (1, 1001, 1, "auto", None, 0),  # one SM searches alone
        (1, 1001, 3, "auto", None, 3),
        (1, 1000, 4, "counter", None, 4),
        (1, 130, 3, "auto", None, 2),  # fewer parts than SMs
        (3, 1024, 3, "auto", None, 3),
        (3, 1001, 3, "auto", None, 3),  # rows that do not begin at multiples of 16 bytes
        (1, 530, 2, "auto", SplitArgmaxPass(parts=260, columns=2), 260),  # more parts than threads; unaligned
    ],
)
def test_argmax(
    tokens: int,
    width: int,
    sms: int,
    handoff: Literal["auto", "counter"],
    split: SplitArgmaxPass | None,
    parts: int,
    tmp_path: Path,
) -> None:
    kernel = lowered(program(tokens, width), split, TaskToQueuePass(sms=sms, handoff=handoff)).kernel
    assert len(kernel.families) == (2 if parts else 1)
    if parts:
        assert kernel.families["argmax_part"].domain.size == parts
    emulated = EmulatedKernel(emit_kernel(kernel), [np.zeros(1, np.uint8)], tmp_path)
    examples = inputs(tokens, width)
    for step, x in enumerate(examples[3:5] if parts > 100 else examples):  # many tasks take the emulator long
        outputs = emulated.step({"x": x.reshape(-1)}, 0, seed=step)
        assert outputs["next"].tolist() == x.argmax(-1).tolist()


@pytest.mark.parametrize("target", CUDA_TARGETS)
def test_argmax_compiles(target: str) -> None:
    pytest.importorskip("cuda.bindings.nvrtc")
    verified = lowered(program(2, 49152), TaskToQueuePass(target=target))
    assert verified.kernel.families["argmax_part"].domain.size == TARGETS[target].num_sms
    compile_kernel(verified)
