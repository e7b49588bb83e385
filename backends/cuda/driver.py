"""Device, memory, loading and launching, through the CUDA driver API. One launch runs one step, or several."""

from __future__ import annotations

import ctypes
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...amk_ir.errors import DeviceError, UsageError
from ...amk_ir.targets import TARGETS, Target
from .driver_api import check, driver_bindings
from .launch_gate import time_launches
from .parameters import Launch, parameter_bytes
from .plan import KernelPlan, aligned
from .sent_tokens import count_sent, sent_token
from .sharing import check_shared, states
from .stuck import RECORD_WORDS, stuck_error

_POLL_S = 20e-6
"""Between two looks at whether the next token has come."""


@dataclass(frozen=True)
class DeviceInfo:
    """A GPU of this machine."""

    ordinal: int
    name: str
    capability: tuple[int, int]
    num_sms: int
    shared_memory_per_block: int
    cooperative: bool

    @property
    def target(self) -> Target:
        """The target of this architecture with this GPU's number of SMs; DeviceError if there is none."""
        number = f"sm_{self.capability[0]}{self.capability[1]}"
        for name, target in TARGETS.items():
            if re.fullmatch(rf"{number}a?", name):
                return replace(target, num_sms=self.num_sms)
        known = ", ".join(name for name, target in TARGETS.items() if target.is_cuda)
        raise DeviceError(f"{self.name} has architecture {number}, the CUDA backend knows {known}")


def device_info(ordinal: int = 0) -> DeviceInfo:
    """What the driver says of a GPU; DeviceError without a driver or GPU."""
    driver = driver_bindings()
    count = check(driver.cuDeviceGetCount(), "counting GPUs")
    if not 0 <= ordinal < count:
        raise DeviceError(f"GPU {ordinal} does not exist: the driver sees {count}")
    device = check(driver.cuDeviceGet(ordinal), "opening the GPU")
    kind = driver.CUdevice_attribute

    def attribute(name: str) -> int:
        return int(check(driver.cuDeviceGetAttribute(getattr(kind, f"CU_DEVICE_ATTRIBUTE_{name}"), device), "asking"))

    return DeviceInfo(
        ordinal,
        # what follows the end of the text is not always NULs
        check(driver.cuDeviceGetName(128, device), "asking").partition(b"\x00")[0].decode(),
        (attribute("COMPUTE_CAPABILITY_MAJOR"), attribute("COMPUTE_CAPABILITY_MINOR")),
        attribute("MULTIPROCESSOR_COUNT"),
        attribute("MAX_SHARED_MEMORY_PER_BLOCK_OPTIN"),
        bool(attribute("COOPERATIVE_LAUNCH")),
    )


@dataclass(frozen=True)
class Variant:
    """A function that does what a loaded kernel does, with its memory and parameters.

    function: the driver's handle. threads: of a block. dynamic_shared: bytes. words: parameters of 8 bytes that follow the
    pointers.
    """

    function: Any
    threads: int
    dynamic_shared: int
    words: tuple[int, ...] = ()


def load_function(driver: Any, info: DeviceInfo, plan: KernelPlan, image: bytes, entry: str) -> tuple[Any, Any]:
    """(module, function) of a cubin in the current context; DeviceError if its grid cannot be resident at once."""
    module = check(driver.cuModuleLoadData(image), f"loading kernel @{plan.name}")
    try:
        function = check(driver.cuModuleGetFunction(module, entry.encode()), f"finding '{entry}'")
        limit = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        check(
            driver.cuFuncSetAttribute(function, limit, plan.dynamic_shared),
            f"asking for {plan.dynamic_shared} bytes of shared memory",
        )
        blocks = check(
            driver.cuOccupancyMaxActiveBlocksPerMultiprocessor(function, plan.threads, plan.dynamic_shared),
            "computing the occupancy",
        )
        if blocks * info.num_sms < plan.grid:
            raise DeviceError(
                f"kernel @{plan.name}: {plan.grid} blocks cannot be resident at once on {info.name}, only "
                f"{blocks * info.num_sms}: use fewer SMs or a smaller ring"
            )
    except BaseException:
        driver.cuModuleUnload(module)
        raise
    return module, function


class LoadedKernel:
    """A kernel on a GPU with its weights and buffers.

    The KV cache, tagged words and counters live across steps; `reset` zeroes them. After a stuck wait nothing of them
    can be trusted, and a step is refused until `reset`.
    """

    def __init__(
        self,
        plan: KernelPlan,
        image: bytes,
        weights: Iterable[NDArray[np.uint8]],
        entry: str,
        *,
        ordinal: int = 0,
        time_limit_s: float = 2.0,
        beside: LoadedKernel | None = None,
    ):
        """Loads `image` and copies the packed `weights` to the GPU.

        beside: a kernel on the same GPU whose weights and state this one uses; `weights` are empty then, and this one has
        to be closed first.

        Raises DeviceError: no GPU, one of another architecture or with too few SMs, not enough memory. CompileError: the
        two kernels store weights or state differently.
        """
        if beside is not None:
            check_shared(plan, beside.plan)
        self._beside = beside
        self.plan = plan
        self.time_limit_s = time_limit_s
        self.info = device_info(ordinal)
        self._check_device()
        self._driver = driver_bindings()
        self._memory: list[Any] = []
        self._allocated = 0
        self._host_memory: list[int] = []
        self._module: Any = None
        self._running: Launch | None = None  # whose end nobody has waited for
        self._device = check(self._driver.cuDeviceGet(ordinal), "opening the GPU")
        self._context = check(self._driver.cuDevicePrimaryCtxRetain(self._device), "opening a context")
        try:
            self._activate()
            self._load(image, entry)
            self._addresses = self._allocate(weights)
            self.reset()
        except BaseException:
            self.close()
            raise

    def _check_device(self) -> None:
        plan, info = self.plan, self.info
        if (found := info.target.name) != plan.target:
            raise DeviceError(
                f"kernel @{plan.name} is for {plan.target}, {info.name} is {found}: compile it for {found}"
            )
        if plan.grid > info.num_sms:
            raise DeviceError(
                f"kernel @{plan.name} needs {plan.grid} SMs at once, {info.name} has {info.num_sms}: compile it with "
                f"--sms {info.num_sms}"
            )
        if not info.cooperative:
            raise DeviceError(f"{info.name} cannot launch cooperative kernels")

    def activate(self) -> Any:
        """Selects the GPU for this thread, and returns the driver bindings."""
        self._activate()
        return self._driver

    def _activate(self) -> None:
        check(self._driver.cuCtxSetCurrent(self._context), "selecting the GPU")

    def _load(self, image: bytes, entry: str) -> None:
        self._module, function = load_function(self._driver, self.info, self.plan, image, entry)
        self._own = Variant(function, self.plan.threads, self.plan.dynamic_shared)

    def _allocate(self, weights: Iterable[NDArray[np.uint8]]) -> list[int]:
        """Allocates everything, copies the weights; the kernel's pointer parameters in order."""
        plan = self.plan
        where: dict[str, int] = {}
        resident: set[str] = set()
        if self._beside is None:
            self._copy_weights(weights, where)
        else:
            resident = {region.parameter for region in plan.weight_regions} | {b.parameter for b in states(plan)}
            where |= {name: self._beside.address(name) for name in resident}

        # one block: [abort | outputs | counters | records | inputs, states, scratch]
        outputs = [b for b in plan.buffers if b.kind == "output"]
        others = [b for b in plan.buffers if b.kind not in ("output", "weight") and b.parameter not in resident]
        layout = [("abort", 4), *((b.parameter, plan.stored_bytes(b)) for b in outputs)]
        result_bytes = sum(aligned(size) for _, size in layout)
        layout += [("counters", 4 * plan.counter_words), ("records", 2 * plan.grid * RECORD_WORDS * 4)]
        layout += [(b.parameter, b.bytes) for b in others]
        if plan.token_loop is not None:
            layout.append(("arrivals", 32))
        total = sum(aligned(size) for _, size in layout)
        base = self._new_memory(total, f"allocating {total >> 20} MiB of buffers and KV cache")
        self._zeroed, self._results = (base, total), np.zeros(result_bytes, np.uint8)
        offset = 0
        self._offsets: dict[str, int] = {}
        for name, size in layout:
            where[name] = base + offset
            self._offsets[name] = offset
            offset += aligned(size)
        self._where = where
        self._sent, sent = self._new_host_words(plan.max_seq if plan.token_loop is not None else 1)
        self._loop = (where.get("arrivals", 0), sent)
        return [where[name] for name in (*plan.pointers, "counters", "records", "abort")]

    def _copy_weights(self, weights: Iterable[NDArray[np.uint8]], where: dict[str, int]) -> None:
        """Allocates and copies the packed weights, and says where their regions are."""
        plan = self.plan
        base = self._new_memory(plan.weight_bytes, f"allocating {plan.weight_bytes >> 20} MiB of weights")
        for region in plan.weight_regions:
            where[region.parameter] = base + region.offset
        copied = 0
        for piece in weights:
            if copied + piece.size > plan.weight_bytes:
                raise DeviceError(f"more packed weights than the {plan.weight_bytes} bytes that the kernel declares")
            self._copy_in(base + copied, piece)
            copied += piece.size
        if copied != plan.weight_bytes:
            raise DeviceError(f"{copied} bytes of packed weights, the kernel declares {plan.weight_bytes}")

    def address(self, parameter: str) -> int:
        """Where the weights or the buffer that the kernel calls `parameter` are."""
        return self._where[parameter]

    @property
    def memory_bytes(self) -> int:
        """Device memory that this kernel has allocated: weights, cache, buffers."""
        return self._allocated

    def _new_memory(self, size: int, doing: str) -> int:
        memory = check(self._driver.cuMemAlloc(max(size, 1)), doing)
        self._memory.append(memory)
        self._allocated += max(size, 1)
        return int(memory)

    def _new_host_words(self, count: int) -> tuple[NDArray[np.uint64], int]:
        """Words of host memory that a running kernel can write and the host sees at once; and their device address."""
        driver = self._driver
        flags = driver.CU_MEMHOSTALLOC_DEVICEMAP | driver.CU_MEMHOSTALLOC_PORTABLE
        address = int(check(driver.cuMemHostAlloc(8 * count, flags), "allocating host memory"))
        self._host_memory.append(address)
        words = np.ctypeslib.as_array((ctypes.c_uint64 * count).from_address(address))
        words[:] = 0
        return words, int(check(driver.cuMemHostGetDevicePointer(address, 0), "mapping host memory"))

    def _copy_in(self, address: int, data: NDArray[Any]) -> None:
        data = np.ascontiguousarray(data)
        check(self._driver.cuMemcpyHtoD(address, data.ctypes.data, data.nbytes), "copying to the GPU")

    def _copy_out(self, address: int, data: NDArray[Any]) -> None:
        check(self._driver.cuMemcpyDtoH(data.ctypes.data, address, data.nbytes), "copying from the GPU")

    def reset(self) -> None:
        """Zeroes the KV cache (its own, not that of a kernel beside it), all activations, counters and records; the next
        step has epoch 1."""
        self._activate()
        address, size = self._zeroed
        check(self._driver.cuMemsetD8(address, 0, size), "clearing the buffers")
        check(self._driver.cuCtxSynchronize(), "clearing the buffers")
        self._sent[:] = 0
        self._epoch = self._arrived = 0
        self._running = None
        self._broken = False

    def write(self, name: str, values: NDArray[Any]) -> None:
        """Copies `values` to a plain buffer; they must have its element type and size."""
        self._activate()
        buffer = next(b for b in self.plan.buffers if b.name == name)
        if buffer.tagged or values.nbytes != buffer.bytes:
            raise DeviceError(f"buffer @{name} takes {buffer.bytes} bytes, found {values.nbytes}")
        self._copy_in(self._where[buffer.parameter], values)

    def read(self, name: str) -> NDArray[Any]:
        """The content of a buffer; the lowest bit of a tagged word is that of the epoch that wrote it."""
        self._activate()
        buffer = next(b for b in self.plan.buffers if b.name == name)
        kind = {"f32": np.float32, "bf16": np.uint16, "i32": np.int32}[buffer.element]
        data = np.zeros(buffer.elements, kind)
        self._copy_out(self._where[buffer.parameter], data)
        return data.reshape(buffer.shape) if buffer.cache is None else buffer.cache.rows(data)

    def launch(self, pos: int, steps: int = 1, stops: Sequence[int] = (), *, variant: Variant | None = None) -> None:
        """Starts the step at position `pos` with the inputs written before; does not wait for its end.

        With `steps` > 1, that many steps from `pos` on: each takes the token that the one before has chosen, and none
        follows one that chose a token of `stops`. `tokens` returns them as they come. variant: what to launch instead of
        the kernel's own function.

        Raises UsageError for what the kernel cannot do, DeviceError if it cannot be launched.
        """
        if self._broken:
            raise DeviceError(
                "the last step was stopped, in a stuck wait or by an interrupt: reset before the next one"
            )
        if self._running is not None and self._running.steps > 1:
            self.finish()  # only then the number of its steps is known
        plan, variant = self.plan, variant or self._own
        launch = Launch(pos, self._epoch + 1, steps, tuple(stops), self._arrived)
        launch.check(plan)
        content = parameter_bytes(plan, (*self._addresses, *variant.words), self.time_limit_s, launch, self._loop)
        parameters = ctypes.create_string_buffer(content, len(content))
        pointers = (ctypes.c_void_p * 1)(ctypes.addressof(parameters))
        # A launch that failed has no epoch: the counters would never get its signals. One that was interrupted
        # leaves open whether it has.
        self._broken = True
        launched = self._driver.cuLaunchCooperativeKernel(
            variant.function,
            plan.grid,
            1,
            1,
            variant.threads,
            1,
            1,
            variant.dynamic_shared,
            0,
            ctypes.addressof(pointers),
        )
        if int(launched[0]) == 0:
            self._running = launch
            if steps == 1:
                self._epoch = launch.epoch
        self._broken = False
        check(launched, f"launching kernel @{plan.name}")

    @property
    def is_running(self) -> bool:
        """Whether nobody has waited for the end of the last launch."""
        return self._running is not None

    def tokens(self) -> Iterator[int]:
        """The tokens that the launch of several steps under way chooses, each as soon as its step has ended.

        Raises like `finish`, which it calls at the end.
        """
        launch = self._running
        if launch is None or launch.steps == 1:
            raise UsageError("tokens come from a launch of more than one step, and none is under way")
        for step in range(launch.steps):
            if self._context is None:
                raise DeviceError(f"kernel @{self.plan.name} was closed while it ran")
            while (token := sent_token(self._sent, step, launch.epoch)) is None:
                if not self._has_ended():
                    time.sleep(_POLL_S)
                elif (token := sent_token(self._sent, step, launch.epoch)) is None:
                    self.finish()
                    raise DeviceError(f"kernel @{self.plan.name} ended after {step} of {launch.steps} steps")
                else:
                    break
            yield token
            if token in launch.stops:
                break
        if self._running is launch:
            self.finish()

    def _has_ended(self) -> bool:
        """Whether the launch under way has ended; DeviceError if it failed."""
        self._activate()
        result = self._driver.cuStreamQuery(0)
        if result[0] == self._driver.CUresult.CUDA_ERROR_NOT_READY:
            return False
        check(result, f"running kernel @{self.plan.name}")
        return True

    def finish(self) -> dict[str, NDArray[Any]]:
        """Waits for the launch and returns the outputs of its last step by name, valid until the next one.

        Raises StuckWaitError if a wait of the launch ran out of time, DeviceError if it failed otherwise.
        """
        self._activate()
        check(self._driver.cuCtxSynchronize(), f"running kernel @{self.plan.name}")
        self._copy_out(self._zeroed[0], self._results)
        launch, self._running = self._running, None
        if self._results[:4].view(np.uint32)[0] != 0:
            self._broken = True
            records = np.zeros((self.plan.grid, 2, RECORD_WORDS), np.uint32)
            self._copy_out(self._where["records"], records)
            first = Launch(0, self._epoch) if launch is None else launch
            raise stuck_error(self.plan, records, first.epoch, first.pos, self.time_limit_s)
        last = 0
        if launch is not None and launch.steps > 1:
            done = count_sent(self._sent, launch.steps, launch.epoch)
            self._epoch += done
            self._arrived += done * self.plan.grid
            last = (done - 1) % 2
        outputs: dict[str, NDArray[Any]] = {}
        for buffer in self.plan.buffers:
            if buffer.kind == "output":
                kind = {"f32": np.float32, "bf16": np.uint16, "i32": np.int32}[buffer.element]
                at = self._offsets[buffer.parameter]
                if self.plan.token_loop is not None and buffer.name == self.plan.token_loop.chosen:
                    at += last * buffer.bytes
                outputs[buffer.name] = self._results[at : at + buffer.bytes].view(kind).reshape(buffer.shape)
        return outputs

    def step(self, inputs: dict[str, NDArray[Any]], pos: int) -> dict[str, NDArray[Any]]:
        """Writes the inputs, runs one step at `pos`, and returns the outputs (see `finish`)."""
        for name, values in inputs.items():
            self.write(name, values)
        self._activate()
        self.launch(pos)
        return self.finish()

    def time_steps(self, pos: int, repeats: int, steps: int = 1, variant: Variant | None = None) -> list[float]:
        """Milliseconds of each of `repeats` launches of `steps` steps from `pos` on, as `time_launches` measures them; `variant` as
        `launch`.

        Raises as `launch`, `finish` and `time_launches`.
        """
        self._activate()
        return time_launches(self._driver, lambda: self.launch(pos, steps, variant=variant), self.finish, repeats)

    def close(self) -> None:
        """Frees the GPU's memory. May be called twice."""
        if self._context is None:
            return
        self._driver.cuCtxSetCurrent(self._context)
        self._driver.cuCtxSynchronize()
        for memory in self._memory:
            self._driver.cuMemFree(memory)
        self._memory = []
        for address in self._host_memory:
            self._driver.cuMemFreeHost(address)
        self._host_memory, self._sent = [], np.zeros(0, np.uint64)
        if self._module is not None:
            self._driver.cuModuleUnload(self._module)
            self._module = None
        self._driver.cuDevicePrimaryCtxRelease(self._device)
        self._context = None
