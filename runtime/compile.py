"""From an imported model to a verified queue kernel: the pipeline that `amk` runs, in one place."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING

from xdsl.context import Context
from xdsl.dialects.builtin import Builtin, ModuleOp
from xdsl.printer import Printer
from xdsl.utils.exceptions import PassFailedException

from ..amk_ir.attention_turn import OUTPUT_ROWS, output_tile, turn
from ..amk_ir.errors import CompileError, TargetError
from ..amk_ir.targets import Target
from . import xdsl_fixes as xdsl_fixes

# Passes, and the dialects below `graph`, are imported where they are used: what is found in the compile cache needs none.
if TYPE_CHECKING:
    from xdsl.passes import ModulePass

    from ..dialects.queue import KernelOp
    from ..frontends.recipe import DecoderConfig
    from ..passes.verify_schedule import VerifiedKernel
    from .pass_options import PassOptions


def new_context() -> Context:
    """An xDSL context that knows AMK's dialects."""
    from ..dialects.amk import Amk
    from ..dialects.graph import Graph
    from ..dialects.queue import Queue
    from ..dialects.task import Task

    context = Context()
    for dialect in (Builtin, Amk, Graph, Queue, Task):
        context.load_dialect(dialect)
    return context


_FAR_TURNS = 2.75
"""How many times all warps of an SM attend to as many positions as they can at once, in about the time that dividing attention among
SMs takes, where attention has a phase of its own anyway."""
_FAR_SMS = 132
"""The SMs of the GPU on which that was measured."""


def far_position(config: DecoderConfig) -> int:
    """Position from which attention is better divided among more SMs than there are KV heads, as measured on an H200.

    352 where attention has a phase of its own. Where the tasks of the product behind it attend themselves, each of them reads all
    keys and values of its head: 256 positions of heads of up to 64 elements, fewer of more, 192 of 128. Of heads of more than 128 elements,
    a quarter of what it is of 128.
    """
    if output_tile(config.hidden, config.kv_heads, _FAR_SMS) > OUTPUT_ROWS:
        return int(_FAR_TURNS * turn(config.head_dim))
    return int((1 + 64 / min(max(config.head_dim, 64), 128)) * turn(config.head_dim))


def plan(
    model: ModuleOp,
    target: Target,
    sms: int | None = None,
    options: PassOptions | None = None,
    *,
    outputs: bool = True,
) -> VerifiedKernel:
    """Lowers a module with one graph.model to a schedule for `target` on `sms` SMs (None: all), and verifies it.

    options: of the passes. `model` is left as it is. Without `outputs`, the kernel only leaves its KV cache behind.

    Raises:
        UsageError: options that the pipeline does not have.
        TargetError: the target has fewer SMs.
        CompileError: a pass cannot lower the model for this target.
        ScheduleError: the verifier rejects the schedule, which is a defect of the passes.
    """
    from xdsl.passes import PassPipeline

    from ..passes.graph_to_queue import GraphToQueuePass
    from ..passes.verify_schedule import verify
    from .pass_options import check_options, options_text

    if sms is not None and target.is_cuda and sms > target.num_sms:
        raise TargetError(
            f"sms: {target.name} has {target.num_sms} SMs, found {sms}; all blocks must be resident at once"
        )
    module = model.clone()
    chosen = check_options(options or {}, "options")
    lowering = GraphToQueuePass(target=target.name, sms=sms or target.num_sms, outputs=outputs, **chosen)
    try:
        PassPipeline((lowering,), _verify).apply(new_context(), module)
    except PassFailedException as e:
        chosen_text = f" with {options_text(chosen)}" if chosen else ""
        raise CompileError(f"cannot compile for {target.name}{chosen_text}: {e}") from e
    return verify(find_kernel(module))


def module_text(module: ModuleOp) -> str:
    """The module as a .mlir file."""
    text = StringIO()
    Printer(stream=text).print_op(module)
    return text.getvalue() + "\n"


def find_kernel(module: ModuleOp) -> KernelOp:
    """The one queue.kernel of a module; CompileError if there is none, or more."""
    from ..dialects.queue import KernelOp

    kernels = [op for op in module.ops if isinstance(op, KernelOp)]
    if len(kernels) != 1:
        raise CompileError(f"expected a module with one queue.kernel, found {len(kernels)}")
    return kernels[0]


def _verify(before: ModulePass | None, module: ModuleOp, after: ModulePass | None) -> None:
    module.verify()
