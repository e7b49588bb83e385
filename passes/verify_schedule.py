"""`verify-schedule`: rejects a `queue.kernel` that is not provably safe. The rules are in docs/semantics.md."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

from ..dialects.queue import KernelOp
from .verifier import VerifiedKernel, check, format_diagnostics, verify

__all__ = ["VerifiedKernel", "VerifySchedulePass", "verify"]


@dataclass(frozen=True)
class VerifySchedulePass(ModulePass):
    """Fails with all diagnostics of the first kernel that is unsafe; changes nothing."""

    name = "verify-schedule"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for kernel in op.walk():
            if isinstance(kernel, KernelOp) and (diagnostics := check(kernel)):
                raise PassFailedException(format_diagnostics(kernel, diagnostics))
