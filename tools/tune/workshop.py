"""Candidates as kernels on the GPU: lowered, verified, compiled, and loaded beside the best one so far."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...amk_ir.targets import Target
from ...backends.cuda.backend import CudaBackend
from ...backends.cuda.pack import packed_weights
from ...backends.cuda.plan import KernelPlan
from ...passes.verify_schedule import VerifiedKernel
from ...runtime.backend import Progress, no_progress
from ...runtime.compile import far_position
from ..bench.engine import CudaEngine, Engine
from ..bench.models import BenchModel
from ..cached_compiler import CachedCompiler
from ..tuned import Choice
from .space import Candidate


class CudaWorkshop:
    """A `Workshop` on this machine's GPU. last: the last position that is timed, which may need the kernel for long
    contexts too."""

    def __init__(self, model: BenchModel, target: Target, last: int, progress: Progress = no_progress):
        self.model, self.target, self.last, self.progress = model, target, last, progress
        self._far_from = far_position(model.model.config)
        self._planned: dict[str, tuple[VerifiedKernel, VerifiedKernel | None]] = {}
        self._backend = CudaBackend(compiler=CachedCompiler())
        self._weights = PackedWeights(model)

    def plan(self, candidate: Candidate) -> str:
        choice = Choice(candidate.options, candidate.sms)
        kernel = choice.plan(self.model.model, self.target)
        far = choice.plan_far(self.model.model, self.target) if self.last >= self._far_from else None
        self._planned[str(candidate)] = kernel, far
        return kernel.digest if far is None else f"{kernel.digest} {far.digest}"

    def load(self, candidate: Candidate) -> Engine:
        kernel, far = self._planned[str(candidate)]
        compiled = self._backend.compile(kernel)
        compiled_far = None if far is None else self._backend.compile_beside(far, compiled.plan)
        weights = self._weights.pieces(compiled.plan, self.progress)
        executable = self._backend.load_packed(kernel, compiled, weights)
        try:
            if far is not None and compiled_far is not None:
                executable.far_kernel = self._backend.load_beside(executable, far, compiled_far)
                executable.far_from = self._far_from
            return CudaEngine(executable, kernel.digest)
        except BaseException:
            executable.close()
            raise


class PackedWeights:
    """The packed weights of a model, kept in memory where there is room: most candidates pack them the same way.

    room: bytes that may be kept; None: half of the memory that is free.
    """

    def __init__(self, model: BenchModel, room: int | None = None):
        self.model = model
        self.room = _free_memory() // 2 if room is None else room
        self.packed = 0
        """Times that something was packed."""
        self._kept: OrderedDict[Any, list[NDArray[np.uint8]]] = OrderedDict()

    def pieces(self, plan: KernelPlan, progress: Progress = no_progress) -> Iterator[NDArray[np.uint8]]:
        """As `packed_weights` of `plan`."""
        key = (plan.constants, plan.streams, plan.weights)
        if key in self._kept:
            self._kept.move_to_end(key)
            yield from self._kept[key]
            return
        while self._kept and self._bytes() + plan.weight_bytes > self.room:
            self._kept.popitem(last=False)  # the one that was used least recently
        pieces: list[NDArray[np.uint8]] | None = [] if plan.weight_bytes <= self.room else None
        self.packed += 1
        weights: Any = self.model.weights
        for piece in packed_weights(plan, weights, progress):
            if pieces is not None:
                pieces.append(piece)
            yield piece
        if pieces is not None:
            self._kept[key] = pieces

    def _bytes(self) -> int:
        return sum(piece.nbytes for pieces in self._kept.values() for piece in pieces)


def _free_memory() -> int:
    """Bytes of memory that nobody uses; 0 where the system does not say."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 0
