"""Kernels that `amk verify` rejects: one for each thing that it can say."""

import re
from dataclasses import replace

from decoder_kernels import Shape, decoder
from schedules.order_questions import kernel_text

TINY = Shape(layers=1, hidden=16, heads=2, kv_heads=1, head_dim=8, mlp=16, vocab=16, sms=2, max_seq=4)


def small(bodies: list[str], *, state: str = "state", families: str = "") -> str:
    """Two SMs: @put writes @a, @get reads it; @tell and @hear hand over a tagged word."""
    programs = "".join(
        f"  queue.program sms {sm} to {sm + 1} stream {{}} body {{\n    {body}\n  }}\n"
        for sm, body in enumerate(bodies)
    )
    return f"""queue.kernel @small target "reference" sms {len(bodies)} max_seq 4 tokens 1 {{
  task.buffer @in input : tensor<2xf32>
  task.buffer @a {state} : tensor<2xf32>
  task.buffer @word scratch tagged : tensor<1xf32>
  task.buffer @out output : tensor<2xf32>
  task.family @put () {{
    %v = task.load @in[0 : 2] : tensor<2xf32>
    task.store %v, @a[0 : 2] : tensor<2xf32>
  }}
  task.family @get () {{
    %v = task.load @a[0 : 2] : tensor<2xf32>
    task.store %v, @out[0 : 2] : tensor<2xf32>
  }}
  task.family @tell () {{
    %v = task.load @in[0 : 1] : tensor<1xf32>
    task.store %v, @word[0 : 1] : tensor<1xf32>
  }}
  task.family @hear () {{
    %w = task.load @word[0 : 1] : tensor<1xf32>
    %v = task.load @a[0 : 2] : tensor<2xf32>
    task.store %v, @out[0 : 2] : tensor<2xf32>
  }}
{families}  queue.counter @c[2]
{programs}}}
"""


def only(text: str, *names: str) -> str:
    """Without the other families of `small`."""
    for name in {"put", "get", "tell", "hear"} - set(names):
        text = re.sub(rf"  task.family @{name} .*?\n  }}\n", "", text, flags=re.DOTALL)
    return text if "tell" in names or "hear" in names else re.sub(r"  task.buffer @word .*\n", "", text)


def changed(old: str, new: str) -> str:
    text = decoder(TINY)
    assert old in text
    return text.replace(old, new)


TOLD = """  task.family @put_again () {
    %w = task.load @word[0 : 1] : tensor<1xf32>
    %v = task.load @in[0 : 2] : tensor<2xf32>
    task.store %v, @a[0 : 2] : tensor<2xf32>
    task.store %v, @out[0 : 2] : tensor<2xf32>
  }
  task.family @put_first () {
    %v = task.load @in[0 : 2] : tensor<2xf32>
    task.store %v, @a[0 : 2] : tensor<2xf32>
  }
"""
PUT_TOO = """  task.family @put_too () {
    %v = task.load @in[0 : 1] : tensor<1xf32>
    task.store %v, @a[1 : 1] : tensor<1xf32>
  }
"""
FINISH = """  task.family @finish () {
    %v = task.load @in[0 : 2] : tensor<2xf32>
    task.store %v, @out[0 : 2] : tensor<2xf32>
  }
"""
COPY = """  task.family @copy () {
    %v = task.load @a[0 : 2] : tensor<2xf32>
    task.store %v, @a[0 : 2] : tensor<2xf32>
  }
"""
TWICE = """  task.family @twice () {
    %v = task.load @in[0 : 2] : tensor<2xf32>
    task.store %v, @a[0 : 2] : tensor<2xf32>
    %w = task.load @in[0 : 1] : tensor<1xf32>
    task.store %w, @a[1 : 1] : tensor<1xf32>
  }
"""

WIDE = """queue.kernel @wide target "sm_90a" sms 1 max_seq 1 tokens 1 ring #amk.ring<stages = 4, bytes = 16384, in_flight = 2> {
  task.buffer @x input : tensor<1x65536xf32>
  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<8x65536xbf16>
  task.buffer @y output : tensor<1x8xf32>
  task.family @linear () {
    %x = task.load @x[0 : 1, 0 : 65536] : tensor<1x65536xf32>
    %w = task.stream @w[0 : 8, 0 : 65536] : tensor<8x65536xbf16>
    %y = task.matmul %x, %w : (tensor<1x65536xf32>, tensor<8x65536xbf16>) -> tensor<1x8xf32>
    task.store %y, @y[0 : 1, 0 : 8] : tensor<1x8xf32>
  }
  queue.program sms 0 to 1 stream { queue.fetch @linear[] } body { queue.run @linear[] }
}
"""

OVERLAPPING = """queue.kernel @overlapping target "reference" sms 2 max_seq 1 tokens 1 {
  task.buffer @a scratch : tensor<20000xf32>
  task.buffer @out output : tensor<10000xf32>
  task.buffer @in input : tensor<20000xf32>
  task.family @put () {
    %v = task.load @in[0 : 20000] : tensor<20000xf32>
    task.store %v, @a[0 : 20000] : tensor<20000xf32>
  }
  task.family @sum (i = 10000) {
    %w = task.load @a[i : 10000] : tensor<10000xf32>
    %v = task.load @in[0 : 1] : tensor<1xf32>
    task.store %v, @out[i : 1] : tensor<1xf32>
  }
  queue.counter @c[1]
  queue.program sms 0 to 2 stream {} body {
    queue.phase { queue.run @put[] on cyclic 0 queue.signal @c[0] }
    queue.phase { queue.wait @c[0] all queue.run @sum[] on cyclic 0 }
  }
}
"""

CASES = {
    "race": only(
        small(["queue.run @put[] queue.signal @c[0]", "queue.run @get[] queue.wait @c[0] all"], state="scratch"), "put", "get"
    ),
    "race_of_state": only(small(["queue.run @put[]", "queue.run @get[]"]), "put", "get"),
    "race_behind_a_tag": only(
        small(["queue.run @put[] queue.run @tell[]", "queue.run @hear[]"], state="scratch"), "put", "tell", "hear"
    ),
    "deadlock": only(
        small(["queue.wait @c[1] all queue.run @put[] queue.signal @c[0]", "queue.wait @c[0] all queue.run @get[] queue.signal @c[1]"]),
        "put",
        "get",
    ),
    "deadlock_of_tags": only(
        small(["queue.run @hear[] queue.run @tell[] queue.run @put[]", ""], state="scratch"), "put", "tell", "hear"
    ),
    "coverage": only(small(["queue.run @get[] queue.run @put[]", ""]), "put", "get"),
    "coverage_of_an_output": changed("task.store %y, @logits[0 : 1, tile*8 : 8]", "task.store %y, @logits[0 : 1, 0 : 8]"),
    "written_once": changed("@m[layer, 0 : 1, tile*4 : 4]", "@m[layer, 0 : 1, tile*3 : 4]"),
    "tasks_missing": only(small(["queue.run @put[]", ""]), "put", "get"),
    "tasks_doubled": only(small(["queue.run @put[] queue.run @get[]", "queue.run @put[]"]), "put", "get"),
    "stream": changed("queue.run @down[layer] on cyclic 0", "queue.run @down[layer] on cyclic 1"),
    "resources": changed("stages = 10, bytes = 16384", "stages = 14, bytes = 16896"),
    "bounds": changed("%r, @kc[layer, pos : 1,", "%r, @kc[layer, pos + 1 : 1,"),
    "race_of_two_writes": only(
        small(["queue.run @put[] queue.run @finish[]", "queue.run @put_too[]"], families=PUT_TOO + FINISH), "put"
    ),
    "race_in_one_queue": only(small(["queue.run @get[] queue.run @put[]", ""], state="scratch"), "put", "get"),
    "race_of_a_read_that_comes_first": only(
        small(["queue.wait @c[0] all queue.run @put[]", "queue.run @get[] queue.signal @c[0]"], state="scratch"), "put", "get"
    ),
    "race_of_two_writes_told_by_a_word": only(
        small(["queue.run @put_first[] queue.run @tell[]", "queue.run @put_again[]"], families=TOLD), "tell"
    ),
    "race_in_one_task": only(
        small(["queue.run @copy[] queue.run @finish[]"], state="scratch", families=COPY + FINISH)
    ),
    "race_of_two_stores": only(small(["queue.run @twice[] queue.run @finish[]"], families=TWICE + FINISH)),
    "race_below_all_signals": only(
        small(["queue.run @put[] queue.signal @c[0]", "queue.signal @c[0] queue.wait @c[0] >= 1 queue.run @get[]"], state="scratch"), "put", "get"
    ),
    "deadlock_of_a_threshold": only(
        small(["queue.run @put[] queue.signal @c[0]", "queue.wait @c[0] >= 3 queue.run @get[]"], state="scratch"), "put", "get"
    ),
    "deadlock_without_a_signal": only(
        small(["queue.run @put[]", "queue.wait @c[0] >= 1 queue.run @get[]"], state="scratch"), "put", "get"
    ),
    "deadlock_of_missing_words": only(small(["queue.run @put[] queue.run @hear[]"], state="scratch"), "put", "hear"),
    "coverage_of_a_row": changed("    task.store %r, @kc[layer, pos : 1, head, 0 : 2, part*4 : 4] : tensor<1x2x4xf32>\n", ""),
    "race_of_a_streamed_row": changed("%r, @kc[layer, pos : 1,", "%r, @kc[layer, 0 : 1,"),
    "stream_too_short": changed("    queue.fetch @head[] on cyclic 0\n", ""),
    "stream_too_long": changed("    queue.fetch @head[] on cyclic 0\n", "    queue.fetch @head[] on cyclic 0\n    queue.fetch @head[] on cyclic 1\n"),
    "stream_without_a_ring": changed(" ring #amk.ring<stages = 10, bytes = 16384, in_flight = 3>", ""),
    "resources_of_ring_and_activations": changed("stages = 10, bytes = 16384, in_flight = 3", "stages = 2, bytes = 116224, in_flight = 1"),
    "resources_of_the_grid": decoder(replace(TINY, sms=133)),
    "resources_of_a_stage": changed("stages = 10, bytes = 16384, in_flight = 3", "stages = 1, bytes = 262144, in_flight = 1"),
    "resources_of_the_activations": WIDE,
    "undecided_regions": OVERLAPPING,
    "undecided_order": kernel_text(["write +c0 +c1", "c0 +c1", "c1>=1 read"]),
    "undecided_order_of_tags": kernel_text(["write +c0 tell", "hear +c0", "c0>=1 read"]),
}  # fmt: skip
"""By what is wrong; `undecided_order` and `undecided_order_of_tags` only if the verifier may not do any work for it."""
