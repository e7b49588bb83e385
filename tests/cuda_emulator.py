"""Runs emitted CUDA on the CPU: the same source, compiled with g++ against cuda_emulator.h, which stands in for PTX.

Every SM is a thread, every thread of it a fiber; copies land late and in any order of the SMs. It finds wrong
coordinates, masks, fragment orders, barriers and waits without a GPU; it does not model the GPU's weak memory.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amk.backends.cuda.emit import EmittedKernel
from amk.backends.cuda.nvrtc import inline_headers
from amk.backends.cuda.plan import KernelPlan
from amk.backends.cuda.stuck import RECORD_WORDS, stuck_error
from amk.backends.cuda.trace_points import TRACE_HEADER

_HEADER = Path(__file__).with_name("cuda_emulator.h")


def host_source(source: str) -> str:
    """C++ for the host: functions with PTX removed (the header has them), shared memory from the emulator."""
    lines: list[str] = []
    pending: list[str] = []
    for line in inline_headers(source).splitlines():
        if pending or line.startswith("__device__ __forceinline__"):
            pending.append(line)
            text = "\n".join(pending)
            if text.count("{") == text.count("}") and "{" in text and not re.search(r"\)\s*$", line):
                replaced = "asm" in text or re.search(
                    r" (start_copy|mbarrier_poll|publish_barriers|shared_address)\(", text
                )
                lines.append("" if replaced else text)
                pending = []
            continue
        lines.append(line)
    text = "\n".join(lines)
    text = text.replace("extern __shared__ __align__(1024) u8 shared[];", "#define shared emu_dynamic_shared")
    return f"""#include "{_HEADER}"
{text}
static const Parameters* emu_parameters;
extern "C" void emu_step(const Parameters* p, int grid, int shared_bytes, unsigned seed) {{
    emu_parameters = p;
    emu_launch_grid([] {{ amk_step(*emu_parameters); }}, grid, shared_bytes, seed);
}}
"""


class EmulatedKernel:
    """The interface of `LoadedKernel` as far as tests need it."""

    def __init__(
        self,
        emitted: EmittedKernel,
        weights: Iterable[NDArray[np.uint8]],
        folder: Path,
        time_limit_s: float = 60.0,
        trace_events: int = 4000,
    ):
        self.plan: KernelPlan = emitted.plan
        self.time_limit_s = time_limit_s
        source, library = folder / "kernel.cpp", folder / "kernel.so"
        source.write_text(host_source(emitted.source))
        subprocess.run(
            ["g++", "-std=c++17", "-O1", "-w", "-fPIC", "-shared", "-pthread", source, "-o", library], check=True
        )
        self._step: Any = ctypes.CDLL(str(library)).emu_step
        self._weights = _aligned_bytes(self.plan.weight_bytes)
        self._weights[:] = np.concatenate(list(weights))
        self.arrays: dict[str, NDArray[Any]] = {
            b.parameter: _aligned_bytes(b.bytes) for b in self.plan.buffers if b.kind != "weight"
        }
        self.arrays["counters"] = _aligned_bytes(4 * self.plan.counter_words)
        self.arrays["records"] = _aligned_bytes(2 * self.plan.grid * RECORD_WORDS * 4)
        self.arrays["abort"] = _aligned_bytes(4)
        if self.plan.trace is not None:
            self.arrays["trace"] = _aligned_bytes(8 * self.plan.grid * 2 * (TRACE_HEADER + trace_events))
        self.trace_events = trace_events
        self.epoch = 0

    def step(self, inputs: dict[str, NDArray[Any]], pos: int, seed: int = 0) -> dict[str, NDArray[Any]]:
        """Runs one step and returns the outputs; raises StuckWaitError."""
        self.epoch += 1
        for name, values in inputs.items():
            self.arrays[f"b_{name}"][:] = values.view(np.uint8)
        regions = {r.parameter: self._weights.ctypes.data + r.offset for r in self.plan.weight_regions}
        where = regions | {name: array.ctypes.data for name, array in self.arrays.items()}
        words = [where[name] for name in (*self.plan.pointers, "counters", "records", "abort")]
        if self.plan.trace is not None:
            words += [where["trace"], self.trace_events]
        content = np.array([*words, int(self.time_limit_s * 1e9), pos | self.epoch << 32], np.uint64)
        self._step(ctypes.c_void_p(content.ctypes.data), self.plan.grid, self.plan.dynamic_shared, seed)
        if self.arrays["abort"].view(np.uint32)[0]:
            records = self.arrays["records"].view(np.uint32).reshape(self.plan.grid, 2, RECORD_WORDS)
            raise stuck_error(self.plan, records, self.epoch, pos, self.time_limit_s)
        return {
            b.name: self.arrays[b.parameter].view(np.int32 if b.element == "i32" else np.float32).reshape(b.shape)
            for b in self.plan.buffers
            if b.kind == "output"
        }


def _aligned_bytes(size: int) -> NDArray[np.uint8]:
    """Zeroed bytes at a multiple of 256."""
    memory = np.zeros(max(size, 1) + 256, np.uint8)
    start = -memory.ctypes.data % 256
    return memory[start : start + max(size, 1)]
