"""The rate at which a GPU reads memory when a kernel does nothing else."""

from __future__ import annotations

import ctypes
import struct
from importlib import import_module
from typing import Any

from ...amk_ir.targets import Target
from ...backends.cuda.driver_api import check
from ...backends.cuda.launch_gate import time_launches
from ...backends.cuda.nvrtc import compile_cubin

SOURCE = r"""
extern "C" __global__ void __launch_bounds__(512) read_all(const uint4* data, unsigned long long count, uint4* out) {
    uint4 sum = make_uint4(0, 0, 0, 0);
    const unsigned long long step = 4ull * gridDim.x * blockDim.x;
    for (unsigned long long at = blockIdx.x * 4ull * blockDim.x + threadIdx.x; at < count; at += step) {
        uint4 v[4];
#pragma unroll
        for (int i = 0; i < 4; ++i)
            asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                         : "=r"(v[i].x), "=r"(v[i].y), "=r"(v[i].z), "=r"(v[i].w)
                         : "l"(data + at + i * blockDim.x));
#pragma unroll
        for (int i = 0; i < 4; ++i) sum.x ^= v[i].x, sum.y ^= v[i].y, sum.z ^= v[i].z, sum.w ^= v[i].w;
    }
    if ((sum.x ^ sum.y ^ sum.z ^ sum.w) == 0x12345678u) *out = sum;
}
"""


def read_peak(target: Target, size: int = 1 << 31, repeats: int = 10) -> float:
    """Bytes per second, the best of `repeats` passes over `size` bytes (a multiple of 64 KiB) in the current context, after
    one that warms up; without the host's part in a launch.

    Raises DeviceError: not enough memory, a launch that failed, or one that cannot be timed so.
    """
    driver: Any = import_module("cuda.bindings.driver")
    image = compile_cubin(SOURCE, target, "read_all").image
    module = check(driver.cuModuleLoadData(image), "loading the read test")
    memory: Any = None
    try:
        function = check(driver.cuModuleGetFunction(module, b"read_all"), "loading the read test")
        memory = check(driver.cuMemAlloc(size + 16), f"allocating {size >> 20} MiB for the read test")
        check(driver.cuMemsetD32(memory, 0x3F803F80, size // 4), "filling the memory of the read test")
        content = struct.pack("<QQQ", int(memory), size // 16, int(memory) + size)
        buffer = ctypes.create_string_buffer(content, len(content))
        base = ctypes.addressof(buffer)
        pointers = (ctypes.c_void_p * 3)(base, base + 8, base + 16)

        def launch() -> None:
            launched = driver.cuLaunchKernel(
                function, target.num_sms * 4, 1, 1, 512, 1, 1, 0, 0, ctypes.addressof(pointers), 0
            )
            check(launched, "launching the read test")

        def finish() -> None:
            check(driver.cuStreamSynchronize(0), "running the read test")

        times = time_launches(driver, launch, finish, repeats)
    finally:
        if memory is not None:
            driver.cuMemFree(memory)
        driver.cuModuleUnload(module)
    return size / (min(times) * 1e-3)
