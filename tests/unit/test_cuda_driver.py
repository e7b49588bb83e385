"""What the driver side does without a GPU: errors, and the words for a stuck wait."""

import ctypes
import time
from dataclasses import replace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from cuda_kernels import Shape, kernel_text
from cuda_models import CONFIGS, RandomWeights, llama_config, lower, verified
from xdsl.parser import Parser

from amk.amk_ir.errors import DeviceError, ScheduleError, UsageError
from amk.amk_ir.targets import get_target
from amk.backends.cuda import driver_api, launch_gate
from amk.backends.cuda.backend import CudaBackend
from amk.backends.cuda.driver import DeviceInfo, LoadedKernel, Variant, device_info
from amk.backends.cuda.emit import emit_kernel
from amk.backends.cuda.launch_gate import LaunchGate
from amk.backends.cuda.stuck import RECORD_WORDS, stuck_error
from amk.passes.verify_schedule import verify
from amk.runtime.compile import find_kernel, new_context
from amk.tools.bench import read_peak


def _kernel(shape: Shape):
    module = Parser(new_context(), kernel_text(shape)).parse_module()
    module.verify()
    return find_kernel(module)


def _plan(shape: Shape):
    return emit_kernel(_kernel(shape)).plan


def test_missing_bindings(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named '{name}'")

    monkeypatch.setattr(driver_api, "import_module", missing)
    driver_api.driver_bindings.cache_clear()
    with pytest.raises(DeviceError, match=r"pip install -e '\.\[cuda\]'` in a checkout"):
        device_info()
    driver_api.driver_bindings.cache_clear()


def test_no_gpu() -> None:
    pytest.importorskip("cuda.bindings.nvrtc")
    try:
        device_info()
    except DeviceError:
        pass
    else:
        pytest.skip("there is a GPU")
    kernel = verified(CONFIGS["gqa"], sms=4)
    with pytest.raises(DeviceError, match="use the reference backend"):
        CudaBackend().load(kernel, RandomWeights(kernel.kernel))


def test_the_name_of_a_device_ends_where_its_text_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an H100's was seen: blanks follow the NULs."""

    class Fake:
        CUdevice_attribute = type("Attributes", (), {"__getattr__": lambda self, name: name})()

        def __getattr__(self, name: str) -> Any:
            values = {"cuDeviceGetCount": 1, "cuDeviceGetName": b"NVIDIA H100\0\0\0  ", "cuDeviceGetAttribute": 9}
            return lambda *_: (0, values.get(name, 0))

    monkeypatch.setattr("amk.backends.cuda.driver.driver_bindings", Fake)
    assert device_info().name == "NVIDIA H100"


def test_target_of_a_device() -> None:
    h100 = DeviceInfo(0, "H100 PCIe", (9, 0), 114, 232448, True)
    assert (h100.target.name, h100.target.num_sms) == ("sm_90a", 114)
    with pytest.raises(DeviceError, match="sm_75"):
        _ = DeviceInfo(0, "T4", (7, 5), 40, 65536, True).target


def test_out_of_memory_is_named() -> None:
    class OutOfMemory(int):
        name = "CUDA_ERROR_OUT_OF_MEMORY"

    with pytest.raises(DeviceError, match="out of device memory while allocating 3 MiB"):
        driver_api.check((OutOfMemory(2),), "allocating 3 MiB")


def test_kernels_of_several_tokens_are_for_no_session() -> None:
    from amk.backends.cuda.compile import CompiledKernel
    from amk.backends.cuda.nvrtc import Resources

    kernel = verify(_kernel(Shape(tokens=4)))
    compiled = CompiledKernel(kernel.digest, "", b"", _plan(Shape(tokens=4)), Resources(0, 0, 0, 0, 0), "")
    with pytest.raises(UsageError, match="4 tokens"):
        CudaBackend().load_packed(kernel, compiled, [])


def test_what_was_compiled_from_another_schedule_is_not_loaded() -> None:
    from amk.backends.cuda.compile import CompiledKernel
    from amk.backends.cuda.nvrtc import Resources

    kernel, other = (verify(_kernel(Shape(layers=n))) for n in (1, 2))
    compiled = CompiledKernel(other.digest, "", b"", _plan(Shape(layers=2)), Resources(0, 0, 0, 0, 0), "")
    with pytest.raises(ScheduleError, match="another schedule"):
        CudaBackend().load_packed(kernel, compiled, [])
    with pytest.raises(TypeError, match="verify"):
        replace(kernel, kernel=other.kernel, digest=other.digest)


def test_the_earliest_wait_is_the_cause() -> None:
    plan = _plan(Shape(tagged=False))
    operations = [o.text for o in plan.operations]
    records = np.zeros((plan.grid, 2, RECORD_WORDS), np.uint32)
    counter = {c.name: c.offset for c in plan.counters}
    # fields: taken, operation, kind, index, expected, seen, phase, thread; in the third step, 3 signals a step
    records[0, 0] = [1, operations.index("queue.wait @o_done[layer] all"), 1, counter["o_done"] + 1, 9, 6, 7, 0, 0]
    records[1, 0] = [1, operations.index("queue.wait @q_done[layer] all"), 1, counter["q_done"] + 1, 9, 8, 6, 0, 0]
    records[2, 1] = [1, 0, 4, 2, 1, 0, 0, 256, 0]
    text = str(stuck_error(plan, records, epoch=3, pos=2, limit_s=2.0))
    assert "SM 1 waited at 'queue.wait @q_done[layer] all' for counter @q_done[1]" in text
    assert "expected 3 signals in this step, seen 2 (2 other SMs waited too)" in text


def test_a_tagged_word_is_named() -> None:
    plan = _plan(Shape(tagged=True))
    number = next(i for i, o in enumerate(plan.operations) if o.buffer == "x")
    records = np.zeros((plan.grid, 2, RECORD_WORDS), np.uint32)
    records[2, 0] = [1, number, 2, 64 + 5, 4, 3, 6, 9, 0]
    text = str(stuck_error(plan, records, epoch=4, pos=3, limit_s=2.0))
    assert (
        "SM 2 waited at 'the read of @x[layer, 0 : 1, 0 : 64]' for word @x[1, 0, 5], which was not written in epoch 4"
        in text
    )


class Calls:
    """Stands for the driver: notes what is called, and what the word of a gate was then, and says that it succeeded."""

    def __init__(self, failing: str = "") -> None:
        self.names: list[str] = []
        self.words: list[int] = []
        self.word = ctypes.c_uint32()
        self.failing = failing

    def __getattr__(self, name: str) -> Any:
        def call(*_: Any) -> tuple[Any, ...]:
            self.names.append(name)
            self.words.append(self.word.value)
            status = Status(801 if name == self.failing else 0)
            if name == "cuStreamWaitValue32":
                return (status,)
            return status, ctypes.addressof(self.word) if name == "cuMemHostAlloc" else 1.5

        if name.startswith("CU"):
            return MagicMock()
        return call


class Status(int):
    @property
    def name(self) -> str:
        return "CUDA_SUCCESS" if self == 0 else "CUDA_ERROR_NOT_SUPPORTED"


def test_only_the_gpu_is_timed() -> None:
    """The GPU is held back until both events and the launch are there; the first launch, for which more may be loaded, is not."""

    class Timed(LoadedKernel):
        def __init__(self) -> None:
            self.plan = emit_kernel(lower(llama_config())).plan
            self.time_limit_s, self._driver, self._context = 1.0, Calls(), None
            self._addresses, self._loop, self._own = [0, 0], (0, 0), Variant(0, 0, 0)
            self._running, self._epoch, self._arrived, self._broken = None, 0, 0, False
            self._zeroed, self._results = (0, 4), np.zeros(1 << 16, np.uint8)
            self._offsets = {b.parameter: 0 for b in self.plan.buffers}

    kernel = Timed()
    assert kernel.time_steps(3, 2) == [1.5, 1.5]
    calls = kernel._driver.names
    first = calls.index("cuStreamWaitValue32")
    assert calls[:first].count("cuLaunchCooperativeKernel") == 1
    assert calls.index("cuCtxSetCurrent") < calls.index("cuLaunchCooperativeKernel")
    assert kernel._driver.words[first : first + 4] == [0, 0, 0, 0]
    end = calls.index("cuCtxSynchronize", first)
    assert kernel._driver.words[end] == 1
    events = ["cuEventRecord", "cuLaunchCooperativeKernel", "cuEventRecord"]
    assert calls[first : first + 4] == ["cuStreamWaitValue32", *events]
    assert (calls.count("cuLaunchCooperativeKernel"), calls.count("cuMemFreeHost"), kernel._epoch) == (3, 1, 3)


def test_read_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first launch is not timed, the others are without the host's part; nothing is left."""
    driver = Calls()
    monkeypatch.setattr(read_peak, "import_module", lambda _: driver)
    monkeypatch.setattr(read_peak, "compile_cubin", lambda *_: MagicMock(image=b""))
    assert read_peak.read_peak(get_target("sm_90a"), 1 << 20, 3) == pytest.approx((1 << 20) / 1.5e-3)
    first = driver.names.index("cuStreamWaitValue32")
    assert (driver.names[:first].count("cuLaunchKernel"), driver.names.count("cuLaunchKernel")) == (1, 4)
    assert driver.names[first : first + 4] == [
        "cuStreamWaitValue32",
        "cuEventRecord",
        "cuLaunchKernel",
        "cuEventRecord",
    ]
    assert driver.names[-2:] == ["cuMemFree", "cuModuleUnload"]


def test_a_gate_opens() -> None:
    driver = Calls()
    with LaunchGate(driver) as gate:
        gate.close()
        assert driver.word.value == 0
        gate.open()
        assert driver.word.value == 1
        gate.close()
        assert driver.word.value == 0
    assert driver.word.value == 1
    assert driver.names[-2:] == ["cuStreamSynchronize", "cuMemFreeHost"]


def test_a_gate_that_nobody_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tools may make a launch wait for its end, which would never come."""
    monkeypatch.setattr(launch_gate, "OPENS_AFTER_S", 0.01)
    driver = Calls()
    with LaunchGate(driver) as gate:
        gate.close()
        end = time.monotonic() + 5
        while driver.word.value == 0 and time.monotonic() < end:
            time.sleep(0.001)
        assert driver.word.value == 1
        with pytest.raises(DeviceError, match="a launch did not return for 0.01 s, so it cannot be timed"):
            gate.open()
        gate.close()
        gate.open()  # in time


def test_a_gate_without_an_address_leaves_no_memory() -> None:
    driver = Calls(failing="cuMemHostGetDevicePointer")
    with pytest.raises(DeviceError, match="mapping host memory"):
        LaunchGate(driver)
    assert driver.names[-1] == "cuMemFreeHost"


def test_a_device_without_gates() -> None:
    driver = Calls(failing="cuStreamWaitValue32")
    match = "cannot hold back a stream .CUDA_ERROR_NOT_SUPPORTED."
    with pytest.raises(DeviceError, match=match), LaunchGate(driver) as gate:
        gate.close()
    assert driver.names[-1] == "cuMemFreeHost"
