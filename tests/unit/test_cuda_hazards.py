"""Verified schedules that the emitter executes in another order than they were proved in: right results, or refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from cuda_emulator import EmulatedKernel
from xdsl.parser import Parser

from amk.amk_ir.errors import CompileError
from amk.backends.cuda.emit import emit_kernel
from amk.backends.cuda.pack import packed_weights
from amk.backends.reference.queue_interpreter import QueueInterpreter
from amk.dialects.queue import KernelOp
from amk.passes.verify_schedule import verify
from amk.runtime.compile import find_kernel, new_context

WIDTH = 512


class Counting:
    """Every weight is 1, 2, 3, ..."""

    def load(self, name: str, dtype: str = "f32") -> np.ndarray:
        return np.arange(1, WIDTH + 1, dtype=np.float32)


def kernel(declarations: str, body: str, tokens: int = 1) -> KernelOp:
    text = f"""
queue.kernel @k target "sm_90a" sms 1 max_seq 32 tokens {tokens} ring #amk.ring<stages = 2, bytes = 16384, in_flight = 1> {{
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<{WIDTH}xf32>
  task.buffer @s state : tensor<{WIDTH}xf32>
  task.buffer @o output : tensor<{WIDTH}xf32>
  {declarations}
  queue.program sms 0 to 1 stream {{}} body {{ {body} }}
}}"""
    module = Parser(new_context(), text).parse_module()
    module.verify()
    result = find_kernel(module)
    verify(result)  # every kernel here is safe as it is written
    return result


def family(name: str, source: str, *targets: str, domain: str = "") -> str:
    stores = "\n".join(f"task.store %v, {t} : tensor<{WIDTH}xf32>" for t in targets)
    return f"""
  task.family @{name} ({domain}) {{
    %a = task.load {source} : tensor<{WIDTH}xf32>
    %v = task.add %a, %a : tensor<{WIDTH}xf32>
    {stores}
  }}"""


ALL = f"[0 : {WIDTH}]"


def phases(*groups: str) -> str:
    """A phase for each group of families."""
    return "\n".join(
        "queue.phase { " + "\n".join(f"queue.run @{name}[] on cyclic 0" for name in group.split()) + " }"
        for group in groups
    )


def test_a_task_that_stores_where_it_loads_is_refused():
    families = family("init", f"@w{ALL}", f"@s{ALL}") + family("twice", f"@s{ALL}", f"@s{ALL}", f"@o{ALL}")
    with pytest.raises(CompileError, match=r"run @twice.*stored where @s\[0 : 512\] is loaded"):
        emit_kernel(kernel(families, phases("init", "twice")))


def test_tasks_of_a_run_that_follow_from_each_other_are_refused():
    chain = f"""
  task.buffer @a scratch : tensor<5x{WIDTH}xf32>
  {family("first", f"@w{ALL}", f"@a[0, 0 : {WIDTH}]")}
  {family("chain", f"@a[i, 0 : {WIDTH}]", f"@a[i + 1, 0 : {WIDTH}]", domain="i = 4")}
  {family("last", f"@a[4, 0 : {WIDTH}]", f"@o{ALL}")}"""
    with pytest.raises(CompileError, match="run @chain.*its tasks run together"):
        emit_kernel(kernel(chain, phases("first", "chain", "last")))


def test_slots_of_an_index_that_the_run_binds_are_not_the_same():
    chain = f"""
  task.buffer @a scratch : tensor<5x{WIDTH}xf32>
  {family("first", f"@w{ALL}", f"@a[0, 0 : {WIDTH}]")}
  {family("chain", f"@a[i, 0 : {WIDTH}]", f"@a[i + 1, 0 : {WIDTH}]", domain="i = 4")}
  {family("last", f"@a[4, 0 : {WIDTH}]", f"@o{ALL}")}"""
    loop = "task.for i = 0 to 4 { queue.phase { queue.run @chain[i] on cyclic 0 } }"
    emit_kernel(kernel(chain, f"{phases('first')}\n{loop}\n{phases('last')}"))


def test_tags_that_outrun_the_loads_of_state_are_refused():
    declarations = f"""
  task.buffer @t scratch tagged : tensor<{WIDTH}xf32>
  {family("init", f"@w{ALL}", f"@s{ALL}")}
  {family("read", f"@s{ALL}", f"@t{ALL}")}
  {family("last", f"@t{ALL}", f"@o{ALL}")}"""
    with pytest.raises(CompileError, match=r"family @read: it stores tagged words"):
        emit_kernel(kernel(declarations, phases("init", "read", "last")))


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.parametrize("groups", [("fa", "fb fc"), ("fa fb", "fc"), ("fa fb fc",), ("fa", "fb", "fc")])
def test_neighbours_that_depend_on_each_other_are_kept_apart(groups: tuple[str, ...], tmp_path: Path):
    declarations = f"""
  task.buffer @a scratch : tensor<{WIDTH}xf32>
  task.buffer @b scratch : tensor<{WIDTH}xf32>
  {family("fa", f"@w{ALL}", f"@a{ALL}")}
  {family("fb", f"@a{ALL}", f"@b{ALL}")}
  {family("fc", f"@b{ALL}", f"@o{ALL}")}"""
    found = kernel(declarations, phases(*groups))
    emitted = emit_kernel(found)
    # between each two of the three runs, and after the parameters are read
    body = emitted.source[emitted.source.index("queue.run @fa") :]
    assert body.index("consumer_barrier();") < body.index("queue.run @fb") < body.rindex("consumer_barrier();")
    emulated = EmulatedKernel(emitted, packed_weights(emitted.plan, Counting()), tmp_path)
    reference = QueueInterpreter(found, Counting())
    reference.execute({}, 0)
    for seed in range(3):
        assert np.array_equal(emulated.step({}, seed, seed=seed)["o"], reference.memory.arrays["o"])


def test_a_run_that_overwrites_what_its_neighbour_reads_waits_for_it():
    declarations = f"""
  {family("init", f"@w{ALL}", f"@s{ALL}")}
  {family("read", f"@s{ALL}", f"@o{ALL}")}
  {family("over", f"@w{ALL}", f"@s{ALL}")}"""
    source = emit_kernel(kernel(declarations, phases("init read over"))).source
    read, over = source.index("queue.run @read"), source.index("queue.run @over")
    assert "consumer_barrier();" in source[read:over]


def test_attention_must_stream_keys_and_values():
    declarations = """
  task.buffer @q scratch : tensor<2x1x2x8xf32>
  task.buffer @kv state : tensor<32x1x2x8xf32>
  task.buffer @x scratch : tensor<2x1x2x8xf32>
  task.family @fill () {
    %w = task.load @w[0 : 8] : tensor<8xf32>
    task.store %w, @q[0, 0, 0, 0 : 8] : tensor<8xf32>
    task.store %w, @q[0, 0, 1, 0 : 8] : tensor<8xf32>
    task.store %w, @q[1, 0, 0, 0 : 8] : tensor<8xf32>
    task.store %w, @q[1, 0, 1, 0 : 8] : tensor<8xf32>
  }
  task.family @append () {
    %q = task.load @q[0 : 2, 0 : 1, 0 : 2, 0 : 8] : tensor<2x1x2x8xf32>
    task.store %q, @kv[pos : 2, 0 : 1, 0 : 2, 0 : 8] : tensor<2x1x2x8xf32>
  }
  task.family @attend () {
    %q = task.load @q[0 : 2, 0 : 1, 0 : 2, 0 : 8] : tensor<2x1x2x8xf32>
    %k = task.load @kv[0 : pos, 0 : 1, 0 : 2, 0 : 8] : tensor<?x1x2x8xf32>
    %y = task.attention %q, %k, %k, %q, %q {scale = 1.0 : f64} : (tensor<2x1x2x8xf32>, tensor<?x1x2x8xf32>, tensor<2x1x2x8xf32>)
    task.store %y, @x[0 : 2, 0 : 1, 0 : 2, 0 : 8] : tensor<2x1x2x8xf32>
  }
  task.family @out () {
    %w = task.load @w[0 : 512] : tensor<512xf32>
    task.store %w, @o[0 : 512] : tensor<512xf32>
  }"""
    with pytest.raises(CompileError, match="family @attend: keys and values of an attention must be streamed"):
        emit_kernel(kernel(declarations, phases("fill", "append", "attend", "out"), tokens=2))
