"""NVRTC: CUDA C++ to a cubin in this process, with the compiler's report of what the kernel uses. Needs no GPU."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from ...amk_ir.errors import CompileError
from ...amk_ir.targets import Target

DEVICE_FOLDER = Path(__file__).parent / "device"
"""The device library, visible to emitted code through `#include "name.cuh"`."""


@dataclass(frozen=True)
class Resources:
    """What ptxas reports of a kernel: registers per thread, and bytes of spills, stack and static shared memory."""

    registers: int
    spill_stores: int
    spill_loads: int
    stack: int
    static_shared: int


@dataclass(frozen=True)
class Cubin:
    """A compiled kernel: the image, what it uses, and the compiler's log."""

    image: bytes
    resources: Resources
    log: str


@cache
def device_headers() -> dict[str, str]:
    """The device library's files by include name."""
    return {path.name: path.read_text() for path in sorted(DEVICE_FOLDER.glob("*.cuh"))}


def inline_headers(source: str) -> str:
    """`source` with every include of the device library replaced by the file, once: a file that compiles alone."""
    included: set[str] = set()

    def expand(text: str) -> str:
        lines: list[str] = []
        for line in text.splitlines():
            match = re.fullmatch(r'#include "(.+)"', line)
            if match is None:
                lines.append(line)
            elif match[1] not in included:
                included.add(match[1])
                lines.append(expand(device_headers()[match[1]]))
        return "\n".join(line for line in lines if line != "#pragma once")

    return expand(source) + "\n"


def _nvrtc() -> Any:
    try:
        return import_module("cuda.bindings.nvrtc")
    except ImportError as error:
        raise CompileError(
            f"NVRTC's Python bindings cannot be imported ({error}): "
            'install them with `pip install "cuda-bindings>=13,<14" "nvidia-cuda-nvrtc>=13,<14"`, or '
            "`pip install -e '.[cuda]'` in a checkout of AMK"
        ) from None


def nvrtc_version() -> tuple[int, int]:
    """(major, minor) of NVRTC; CompileError if it cannot be loaded."""
    nvrtc = _nvrtc()
    try:
        status, major, minor = nvrtc.nvrtcVersion()
    except Exception as error:  # the bindings raise RuntimeError and others when the library is not found
        raise CompileError(
            f"the NVRTC library cannot be loaded ({str(error).splitlines()[0]}): "
            'install it with `pip install "nvidia-cuda-nvrtc>=13,<14"`'
        ) from None
    if int(status) != 0:
        raise CompileError(f"NVRTC does not tell its version: {status}")
    return int(major), int(minor)


def compile_cubin(source: str, target: Target, kernel: str) -> Cubin:
    """Compiles `source` for `target` and reads the resources of its entry function `kernel`.

    Raises CompileError: no NVRTC, a target that it does not know, or a compile failure (with the compiler's log).
    """
    nvrtc = _nvrtc()
    version = nvrtc_version()
    _, supported = nvrtc.nvrtcGetSupportedArchs()
    if int(re.sub(r"\D", "", target.name) or 0) not in supported:
        raise CompileError(
            f"NVRTC {version[0]}.{version[1]} cannot compile for {target.name}: it knows "
            f"{', '.join(f'sm_{n}' for n in supported)}; install a newer nvidia-cuda-nvrtc"
        )
    headers = device_headers()
    status, program = nvrtc.nvrtcCreateProgram(
        source.encode(),
        f"{kernel}.cu".encode(),
        len(headers),
        [text.encode() for text in headers.values()],
        [name.encode() for name in headers],
    )
    if int(status) != 0:
        raise CompileError(f"NVRTC does not take the source of '{kernel}': {status}")
    try:
        # No --use_fast_math: rotations and softmax need the accurate functions. --no-cache: on a hit in its own cache
        # NVRTC leaves the report out of the log.
        options = [f"--gpu-architecture={target.name}", "--std=c++17", "--ptxas-options=-v", "--no-cache"]
        (status,) = nvrtc.nvrtcCompileProgram(program, len(options), [o.encode() for o in options])
        log = _text(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program).decode(errors="replace")
        log = log.strip("\x00 \n")
        if int(status) != 0:
            raise CompileError(f"NVRTC cannot compile '{kernel}' for {target.name}; its log:\n{log}")
        image = _text(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program)
    finally:
        nvrtc.nvrtcDestroyProgram(program)
    return Cubin(image, parse_resources(log, kernel), log)


def _text(size_of: Any, copy: Any, program: Any) -> bytes:
    status, size = size_of(program)
    if int(status) == 0:
        content = bytes(size)
        (status,) = copy(program, content)  # the bindings write into the bytes object
        if int(status) == 0:
            return content
    raise CompileError(f"NVRTC does not return its output: {status}")


def parse_resources(log: str, kernel: str) -> Resources:
    """The resources of `kernel` in the report of `ptxas -v`; spills and stack are those of all functions together.

    Raises CompileError if the report is not as expected.
    """
    frames = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", log)
    used = re.search(rf"entry function '{re.escape(kernel)}'.*?Used (\d+) registers(.*?)(?:\n|$)", log, flags=re.DOTALL)
    if used is None or not frames:
        raise CompileError(f"the compiler's report has no resources of kernel '{kernel}':\n{log}")
    shared = re.search(r"(\d+) bytes smem", used[2])
    return Resources(
        registers=int(used[1]),
        spill_stores=sum(int(f[1]) for f in frames),
        spill_loads=sum(int(f[2]) for f in frames),
        stack=sum(int(f[0]) for f in frames),
        static_shared=int(shared[1]) if shared else 0,
    )


def check_resources(resources: Resources, dynamic_shared: int, threads: int, target: Target, kernel: str) -> None:
    """CompileError if the kernel spills, or one block of it does not fit an SM of `target`."""
    if spilled := resources.spill_stores + resources.spill_loads:
        raise CompileError(
            f"kernel '{kernel}' spills {spilled} bytes on {target.name} with {resources.registers} registers: "
            "use smaller tiles"
        )
    if (shared := resources.static_shared + dynamic_shared) > target.shared_memory_per_block:
        raise CompileError(
            f"kernel '{kernel}' needs {shared} bytes of shared memory, {target.name} has "
            f"{target.shared_memory_per_block} for a block: use fewer or smaller ring stages"
        )
    # registers are allocated by the warp, in units of 8 a thread
    if (registers := -(-resources.registers // 8) * 8 * threads) > target.registers_per_sm:
        raise CompileError(
            f"kernel '{kernel}' needs {registers} registers for a block of {threads} threads, an SM of {target.name} "
            f"has {target.registers_per_sm}"
        )
