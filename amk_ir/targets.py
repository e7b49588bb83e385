"""Descriptions of the machines that AMK compiles for. Everything that differs between them and matters is here."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import TargetError


@dataclass(frozen=True)
class Gpu:
    """A product that a target covers: memory bandwidth in GB/s (datasheet), and its number of SMs."""

    name: str
    num_sms: int
    bandwidth_gb_s: float


@dataclass(frozen=True)
class Target:
    """One architecture.

    num_sms: the grid of a kernel unless another is asked for. shared_memory_per_block: bytes that one block may use.
    registers_per_sm, max_registers_per_thread, max_threads_per_block: limits of residency. has_bulk_copy: the bulk
    copy engine with mbarrier completion (`cp.async.bulk`); without it, rings use `cp.async`. moves_registers: warpgroups
    hand registers to others (`setmaxnreg`). has_fp8: native fp8 conversions. executable_by: `cuda` or `reference`.
    """

    name: str
    num_sms: int
    shared_memory_per_block: int
    has_bulk_copy: bool = False
    moves_registers: bool = False
    has_fp8: bool = False
    registers_per_sm: int = 65536
    max_registers_per_thread: int = 255
    max_threads_per_block: int = 1024
    executable_by: str = "cuda"
    gpus: tuple[Gpu, ...] = ()

    @property
    def is_cuda(self) -> bool:
        return self.executable_by == "cuda"


_KIB = 1024

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        # Virtual SMs: few and large tasks, because each costs the interpreter tens of microseconds.
        Target("reference", num_sms=4, shared_memory_per_block=1 << 40, executable_by="reference"),
        Target(
            "sm_80",
            num_sms=108,
            shared_memory_per_block=163 * _KIB,
            gpus=(Gpu("A100 40GB", 108, 1555.0), Gpu("A100 80GB", 108, 2039.0)),
        ),
        Target(
            "sm_86",
            num_sms=82,
            shared_memory_per_block=99 * _KIB,
            gpus=(Gpu("RTX 3090", 82, 936.0), Gpu("RTX A6000", 84, 768.0), Gpu("A10", 72, 600.0)),
        ),
        Target(
            "sm_89",
            num_sms=128,
            shared_memory_per_block=99 * _KIB,
            has_fp8=True,
            gpus=(Gpu("RTX 4090", 128, 1008.0), Gpu("L40S", 142, 864.0), Gpu("L4", 58, 300.0)),
        ),
        Target(
            "sm_90a",
            num_sms=132,
            shared_memory_per_block=227 * _KIB,
            has_bulk_copy=True,
            moves_registers=True,
            has_fp8=True,
            gpus=(Gpu("H100 SXM", 132, 3350.0), Gpu("H200", 132, 4800.0), Gpu("H100 PCIe", 114, 2039.0)),
        ),
        Target(
            "sm_100a",
            num_sms=148,
            shared_memory_per_block=227 * _KIB,
            has_bulk_copy=True,
            moves_registers=True,
            has_fp8=True,
            gpus=(Gpu("B200", 148, 8000.0),),
        ),
        Target(
            "sm_120a",
            num_sms=170,
            shared_memory_per_block=99 * _KIB,
            has_bulk_copy=True,
            has_fp8=True,
            gpus=(Gpu("RTX 5090", 170, 1792.0),),
        ),
    )
}


def get_target(name: str) -> Target:
    """The target called `name`; TargetError lists the known ones."""
    try:
        return TARGETS[name]
    except KeyError:
        raise TargetError(f"unknown target '{name}', expected one of {', '.join(TARGETS)}") from None
