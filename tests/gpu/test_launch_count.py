"""One launch a token, as the CUDA profiler counts them."""

from __future__ import annotations

from collections import Counter

from cuda_models import RandomWeights, llama_config, verified
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from amk.amk_ir.targets import Target
from amk.backends.cuda.backend import CudaBackend
from amk.backends.cuda.emit import ENTRY


def test_a_token_is_one_kernel(target: Target):
    kernel = verified(llama_config(), target.name, sms=8)
    gpu = CudaBackend().load(kernel, RandomWeights(kernel.kernel))
    gpu.step(1, 0)
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU], acc_events=True) as profiler:
        for position in range(1, 11):
            gpu.step(position, position)
    gpu.close()
    events = [e.name for e in profiler.events() if e.device_type == DeviceType.CUDA]
    kernels = Counter(name for name in events if not name.startswith(("Memcpy", "Memset")))
    print(f"\n10 tokens: {dict(Counter(events))}")
    assert kernels == {ENTRY: 10}
