"""What the matrices of a model multiply on a text: mean squares of their inputs, by which they are quantised."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import SymbolRefAttr

from ..amk_ir.attrs import CheckpointAttr
from ..amk_ir.errors import ExecutionError, UsageError
from ..backends.reference.graph_interpreter import GraphInterpreter
from ..dialects.graph import WeightOp
from ..frontends.import_model import ImportedModel
from ..runtime.backend import Progress, no_progress
from ..runtime.footprint import model_of

_FLOOR = 1e-3
"""Of the mean: what an input that the text never used counts at least, so that another text may use it."""


def measure_importance(
    model: ImportedModel, windows: Sequence[Sequence[int]], progress: Progress = no_progress
) -> dict[str, NDArray[np.float32]]:
    """The importance of the inputs of each matrix by its name in the checkpoint: float32 [K].

    It is the mean square of the input over all tokens of `windows`, each fed from position 0 to the reference backend, plus
    a thousandth of the mean over all inputs. model: imported with a checkpoint. A matrix that is only looked up has none.

    Raises:
        UsageError: a model without a checkpoint.
        ExecutionError: an input that is not finite.
    """
    op = model_of(model.module)
    sources = {
        weight.sym_name.data: weight.source.data
        for weight in op.body.block.ops
        if isinstance(weight, WeightOp) and isinstance(weight.source, CheckpointAttr)
    }
    sums: dict[str, NDArray[np.float64]] = defaultdict(lambda: np.zeros(1))

    def observe(weight: SymbolRefAttr, layer: int, x: NDArray[np.float32]) -> None:
        source = sources.get(weight.string_value())
        if source is not None:
            rows = x.reshape(x.shape[0], -1)
            name = source.replace("{layer}", str(layer))
            sums[name] = sums[name] + np.square(rows, dtype=np.float64).sum(axis=0)

    if model.checkpoint is None:
        raise UsageError(f"{model.name}: has no checkpoint, so that there is nothing to measure")
    interpreter = GraphInterpreter(op, model.checkpoint, progress, observe)
    for number, window in enumerate(windows):
        progress("calibrating", number, len(windows))
        interpreter.reset()
        interpreter.forward(window)
    progress("calibrating", len(windows), len(windows))
    tokens = sum(map(len, windows))
    result: dict[str, NDArray[np.float32]] = {}
    for name, total in sums.items():
        mean = total / tokens
        vector = (mean + _FLOOR * mean.mean()).astype(np.float32)
        if not np.isfinite(vector).all():
            raise ExecutionError(f"what '{name}' multiplies is not finite: its inputs have no importance")
        result[name] = vector
    return result
