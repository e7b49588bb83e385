"""Runs emitted CUDA on the CPU: the same source, compiled with g++ against cuda_emulator.h, which stands in for PTX.

Every thread of every SM is a fiber; copies land late, and SMs run in any order and at any speed, drawn from a seed that
repeats them. It finds wrong coordinates, masks, fragment orders, barriers and waits without a GPU; it does not model the
GPU's weak memory. Time is counted in turns of SMs: it depends on nothing else that the machine does.
"""

from __future__ import annotations

import atexit
import ctypes
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amk.backends.cuda.emit import EmittedKernel
from amk.backends.cuda.nvrtc import inline_headers
from amk.backends.cuda.parameters import Launch, parameter_bytes
from amk.backends.cuda.plan import KernelPlan
from amk.backends.cuda.sent_tokens import count_sent, sent_token
from amk.backends.cuda.sharing import check_shared, states
from amk.backends.cuda.stuck import RECORD_WORDS, stuck_error
from amk.backends.cuda.trace_points import TRACE_HEADER

_HEADER = Path(__file__).with_name("cuda_emulator.h")


def host_source(source: str, fastest_copy: int = 0) -> str:
    """C++ for the host: functions with PTX removed (the header has them), shared memory from the emulator.

    fastest_copy: turns that a piece of a bulk copy takes at least."""
    lines: list[str] = []
    pending: list[str] = []
    for line in inline_headers(source).splitlines():
        if pending or line.startswith("__device__ __forceinline__"):
            pending.append(line)
            text = "\n".join(pending)
            if text.count("{") == text.count("}") and "{" in text and not re.search(r"\)\s*$", line):
                replaced = "asm" in text or re.search(
                    r" (expect_copy|start_copy|mbarrier_poll|publish_barriers|shared_address|void order_copies|void drain_copies)\(",
                    text,
                )
                lines.append("" if replaced else text)
                pending = []
            continue
        lines.append(line)
    text = "\n".join(lines)
    text = text.replace("extern __shared__ __align__(1024) u8 shared[];", "#define shared emu_dynamic_shared")
    return f"""#include "{_HEADER.name}"
{text}
static const Parameters* emu_parameters;
extern "C" void emu_step(const Parameters* p, int grid, int shared_bytes, unsigned seed) {{
    emu_parameters = p;
    emu_fastest_copy = {fastest_copy};
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
        beside: EmulatedKernel | None = None,
        fastest_copy: int = 0,
    ):
        self.plan: KernelPlan = emitted.plan
        self.time_limit_s = time_limit_s
        source = folder / "kernel.cpp"
        source.write_text(host_source(emitted.source, fastest_copy))
        self._step: Any = _compiled(source.read_text(), source).emu_step
        self._weights = _aligned_bytes(self.plan.weight_bytes if beside is None else 0)
        self._regions = {r.parameter: self._weights.ctypes.data + r.offset for r in self.plan.weight_regions}
        if beside is None:
            packed = [np.zeros(0, np.uint8), *weights]
            self._weights[: self.plan.weight_bytes] = np.concatenate(packed)
        else:
            check_shared(self.plan, beside.plan)
            self._regions = {name: beside._regions[name] for name in self._regions}
        self.arrays: dict[str, NDArray[Any]] = {
            b.parameter: _aligned_bytes(self.plan.stored_bytes(b)) for b in self.plan.buffers if b.kind != "weight"
        }
        if beside is not None:
            self.arrays |= {b.parameter: beside.arrays[b.parameter] for b in states(self.plan)}
        self.arrays["counters"] = _aligned_bytes(4 * self.plan.counter_words)
        self.arrays["records"] = _aligned_bytes(2 * self.plan.grid * RECORD_WORDS * 4)
        self.arrays["abort"] = _aligned_bytes(4)
        if self.plan.trace is not None:
            self.arrays["trace"] = _aligned_bytes(8 * self.plan.grid * 2 * (TRACE_HEADER + trace_events))
        self.trace_events = trace_events
        self.arrays["arrivals"], self.arrays["sent"] = _aligned_bytes(32), _aligned_bytes(8 * self.plan.max_seq)
        self.epoch = self.arrived = 0

    def step(self, inputs: dict[str, NDArray[Any]], pos: int, seed: int = 0) -> dict[str, NDArray[Any]]:
        """Runs one step and returns the outputs; raises StuckWaitError."""
        self._launch(inputs, Launch(pos, self.epoch + 1), seed)
        self.epoch += 1
        return {
            b.name: self.arrays[b.parameter][: b.bytes]
            .view(np.int32 if b.element == "i32" else np.float32)
            .reshape(b.shape)
            for b in self.plan.buffers
            if b.kind == "output"
        }

    def steps(
        self, inputs: dict[str, NDArray[Any]], pos: int, count: int, stops: Sequence[int] = (), seed: int = 0
    ) -> list[int]:
        """Runs up to `count` steps in one launch and returns the tokens that it sent; raises StuckWaitError."""
        launch = Launch(pos, self.epoch + 1, count, tuple(stops), self.arrived)
        self._launch(inputs, launch, seed)
        done = count_sent(self.sent, count, launch.epoch)
        self.epoch += done
        self.arrived += done * self.plan.grid
        return [token for n in range(done) if (token := sent_token(self.sent, n, launch.epoch)) is not None]

    @property
    def sent(self) -> NDArray[np.uint64]:
        """What launches of several steps told the host."""
        return self.arrays["sent"].view(np.uint64)

    def _launch(self, inputs: dict[str, NDArray[Any]], launch: Launch, seed: int) -> None:
        for name, values in inputs.items():
            self.arrays[f"b_{name}"][:] = values.reshape(-1).view(np.uint8)
        where = self._regions | {name: array.ctypes.data for name, array in self.arrays.items()}
        pointers = [where[name] for name in (*self.plan.pointers, "counters", "records", "abort")]
        if self.plan.trace is not None:
            pointers += [where["trace"], self.trace_events]
        loop = (where["arrivals"], where["sent"])
        content = parameter_bytes(self.plan, pointers, self.time_limit_s, launch, loop)
        words = np.frombuffer(content, np.uint64)
        self._step(ctypes.c_void_p(words.ctypes.data), self.plan.grid, self.plan.dynamic_shared, seed)
        if self.arrays["abort"].view(np.uint32)[0]:
            records = self.arrays["records"].view(np.uint32).reshape(self.plan.grid, 2, RECORD_WORDS)
            raise stuck_error(self.plan, records, launch.epoch, launch.pos, self.time_limit_s)


# without optimisation: compiling takes longer than running (cuda_emulator.h optimises itself)
_COMPILE = ("g++", "-std=c++17", "-O0", "-w", "-fPIC")

_libraries: dict[str, ctypes.CDLL] = {}


def _compiled(text: str, source: Path) -> ctypes.CDLL:
    """What g++ makes of `text`, which is in the file `source`; kernels with the same text share it."""
    if text not in _libraries:
        library = source.with_suffix(".so")
        subprocess.run([*_COMPILE, "-I", _precompiled_header(), "-shared", source, "-o", library], check=True)
        _libraries[text] = ctypes.CDLL(str(library))
    return _libraries[text]


@cache
def _precompiled_header() -> Path:
    """A folder for g++ to look for the header in, until this process ends: reading it takes a quarter of a compilation."""
    folder = Path(mkdtemp(prefix="cuda_emulator_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    header = folder / _HEADER.name
    header.write_text(_HEADER.read_text())
    subprocess.run([*_COMPILE, "-x", "c++-header", header, "-o", f"{header}.gch"], check=True)
    return folder


def _aligned_bytes(size: int) -> NDArray[np.uint8]:
    """Zeroed bytes at a multiple of 256."""
    memory = np.zeros(max(size, 1) + 256, np.uint8)
    start = -memory.ctypes.data % 256
    return memory[start : start + max(size, 1)]
