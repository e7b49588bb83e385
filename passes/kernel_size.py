"""What a pass makes of a legal program may unroll to more than a kernel may hold; then the pass is what refuses it."""

from __future__ import annotations

from xdsl.utils.exceptions import PassFailedException, VerifyException

from ..dialects.queue import KernelOp


def check_size(name: str, kernel: KernelOp) -> None:
    """PassFailedException of the pass `name` if `kernel` is larger than a kernel may be."""
    try:
        kernel.verify_size()
    except VerifyException as e:
        raise PassFailedException(f"{name}: kernel @{kernel.sym_name.data} becomes too large: {e}") from e
