"""Running passes one after the other inside a pass, verified between."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException, VerifyException


class Pipeline:
    """Beside ModulePass, a base of passes that do all they do by `run_passes`: what they leave is verified."""


def run_passes(ctx: Context, module: ModuleOp, passes: Sequence[ModulePass]) -> None:
    """Applies `passes` in order; PassFailedException names the pass that leaves invalid IR."""
    for step in passes:
        step.apply(ctx, module)
        if isinstance(step, Pipeline):
            continue
        try:
            module.verify()
        except VerifyException as e:
            raise PassFailedException(f"invalid IR after {step.name}: {e}") from e
