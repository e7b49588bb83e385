"""The target `cuda-source` of amk-opt: prints the CUDA C++ of the queue kernel in a module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.utils.exceptions import PassFailedException
from xdsl.utils.target import Target

from ...amk_ir.errors import CompileError
from ...dialects.queue import KernelOp
from ...passes.verify_schedule import VerifySchedulePass
from .emit import emit_kernel


@dataclass(frozen=True)
class CudaSourceTarget(Target):
    """Emits each `queue.kernel` of the module as CUDA C++ that includes the device library; none if one of them is not safe."""

    name = "cuda-source"

    def emit(self, ctx: Context, module: ModuleOp, output: IO[str]) -> None:
        kernels = [op for op in module.ops if isinstance(op, KernelOp)]
        if not kernels:
            raise PassFailedException("cuda-source: the module has no queue.kernel; lower it with graph-to-queue")
        VerifySchedulePass().apply(ctx, module)
        for kernel in kernels:
            try:
                output.write(emit_kernel(kernel).source)
            except CompileError as error:
                raise PassFailedException(f"cuda-source: {error}") from error
