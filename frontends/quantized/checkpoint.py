"""A model directory with quantised matrices: several stored tensors appear as the one weight that they stand for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from ...amk_ir.errors import CheckpointError
from ...amk_ir.quantization import QuantizedTensor
from ..checkpoint import Checkpoint, TensorInfo
from ..one_line import one_line
from ..safetensors_checkpoint import SafetensorsCheckpoint
from .layout import Matrix, Module, QuantizationLayout


class QuantizedCheckpoint(Checkpoint):
    """The weights of a model directory whose config.json has a `quantization_config`.

    `tensors` has `NAME.weight` for each quantised module NAME, with its shape [N, K], format and all its bytes, in
    place of the tensors that it consists of.
    """

    def __init__(self, stored: SafetensorsCheckpoint, layout: QuantizationLayout):
        """Checks types and shapes of all parts of all quantised matrices; reads none of them.

        Raises:
            CheckpointError: a part that is missing, or of another type or shape than `layout` says.
        """
        self.path = stored.path
        self.files = stored.files
        self._stored = stored
        self._layout = layout
        self._modules: dict[str, tuple[Module, Matrix]] = {}
        tensors = dict(stored.tensors)
        for module in _modules(stored.tensors):
            if not layout.is_quantized(module):
                continue
            matrix = layout.matrix(module)
            if "weight" in module.parts and "weight" not in layout.parts:
                raise CheckpointError(
                    f"{module.parts['weight']}: module '{module.name}' has this tensor and "
                    f"'{layout.code_part}' of {layout.name}: expected one of them"
                )
            for part in module.parts:
                if part in layout.parts or part in layout.unused:
                    del tensors[f"{module.name}.{part}"]
            codes = module.parts[layout.code_part]
            name = f"{module.name}.weight"
            nbytes = sum(info.nbytes for part, info in module.parts.items() if part in layout.parts)
            kind = str(matrix.format).upper()
            tensors[name] = replace(
                codes, name=name, shape=matrix.shape, dtype=kind, nbytes=nbytes, quantized=matrix.format
            )
            self._modules[name] = module, matrix
        self.tensors = tensors

    def check_coverage(self, weights: Iterable[str]) -> None:
        """Checks that exactly those of the linear weights `weights` are quantised that the configuration says.

        Raises:
            CheckpointError: a weight that is, or is not.
        """
        for name in weights:
            info = self.info(name)
            excluded = self._layout.excludes(name.removesuffix(".weight"))
            if info.quantized is None and not excluded:
                raise CheckpointError(
                    f"{info}: expected to be quantised as {self._layout.name}, like all that the configuration does not "
                    f"exclude, found {info.dtype}"
                )
            if info.quantized is not None and excluded:
                raise CheckpointError(
                    f"{info}: the configuration excludes it from quantisation, but it is stored as {self._layout.name}"
                )

    def _read(self, info: TensorInfo) -> NDArray[Any]:
        return self._stored.stored(info)

    def _read_quantized(self, info: TensorInfo) -> QuantizedTensor:
        module, matrix = self._modules[info.name]
        return self._layout.read(module, matrix, self._stored.stored)


def _modules(tensors: Mapping[str, TensorInfo]) -> Iterable[Module]:
    modules: defaultdict[str, dict[str, TensorInfo]] = defaultdict(dict)
    for name, info in tensors.items():
        module, _, part = name.rpartition(".")
        modules[module][part] = info
    return [Module(one_line(name), parts) for name, parts in modules.items()]
