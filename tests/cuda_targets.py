"""For which targets the tests compile kernels."""

import os
from collections.abc import Sequence
from typing import TypeVar

from amk.amk_ir.targets import TARGETS

T = TypeVar("T")

CUDA_TARGETS = [name for name, target in TARGETS.items() if target.is_cuda]


def spread(kernels: Sequence[T], first: int = 0) -> list[tuple[T, str]]:
    """Each kernel with two targets, one of each device library: with the bulk copy engine and without.

    The targets take turns, so that three kernels meet all of them; `first` says which are the first kernel's. A kernel
    takes a compiler some seconds for each target. AMK_ALL_TARGETS=1 in the environment compiles each for all.
    """
    if os.environ.get("AMK_ALL_TARGETS"):
        return [(kernel, target) for kernel in kernels for target in CUDA_TARGETS]
    libraries = [[name for name in CUDA_TARGETS if TARGETS[name].has_bulk_copy == bulk] for bulk in (False, True)]
    return [
        (kernel, targets[(first + number) % len(targets)])
        for number, kernel in enumerate(kernels)
        for targets in libraries
    ]
