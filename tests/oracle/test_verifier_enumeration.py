"""The schedule verifier against exhaustive enumeration: random small kernels, all interleavings of each."""

import random
import secrets

from schedules.enumeration import Oracle
from schedules.random_kernels import random_kernel
from schedules.small_kernels import Kernel, parse

from amk.passes.verifier import check

KERNELS = 300


def compare(kernel: Kernel) -> tuple[bool, bool]:
    """(safe by enumeration, accepted by the verifier); fails where the two may not differ."""
    oracle = Oracle(kernel)
    problem = oracle.problem()
    diagnostics = check(parse(kernel.text()))
    said = "\n".join(map(str, diagnostics))
    assert any(d.rule == "deadlock" for d in diagnostics) == oracle.has_deadlock(), f"{kernel.text()}\n{said}"
    assert problem is None or diagnostics, f"false accept, enumeration says {problem}:\n{kernel.text()}"
    return problem is None, not diagnostics


def test_random_kernels():
    seed = secrets.randbits(32)
    print(f"seed {seed}: compare(random_kernel(random.Random(f'{seed}-N'))) repeats kernel N")
    safe = rejected = 0
    for number in range(KERNELS):
        kernel = random_kernel(random.Random(f"{seed}-{number}"))
        is_safe, accepted = compare(kernel)
        safe += is_safe
        rejected += is_safe and not accepted
    print(f"{KERNELS} kernels, {safe} safe, {rejected} of them rejected")
    assert safe > KERNELS // 10, "the generator makes too few safe kernels to test anything"
    assert rejected == 0, f"{rejected} safe kernels are rejected, seed {seed}"
