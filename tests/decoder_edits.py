"""Edits that make a safe decoder unsafe, with the rule that each one breaks."""

from decoder_kernels import Shape

BIG = Shape(layers=3, hidden=64, heads=4, kv_heads=2, head_dim=16, mlp=48, vocab=72, sms=7, max_seq=33)


def edited(text: str, old: str, new: str, count: int = -1) -> str:
    assert old in text
    return text.replace(old, new, count)


EDITS = [
    # (what, old, new, rule)
    ("a dropped wait", "      queue.wait @a_done[layer] all\n", "", "race"),
    ("a dropped wait before the new rows are read", "      queue.wait @qkv_done[layer] all\n", "", "race"),
    ("a threshold below the signals", "@m_done[layer] all", "@m_done[layer] >= 3", "race"),
    ("a threshold beyond the signals", "@m_done[layer] all", "@m_done[layer] >= 8", "deadlock"),
    ("the wrong counter", "queue.wait @m_done[layer] all", "queue.wait @a_done[layer] all", "race"),
    ("a counter that its own phase signals", "queue.wait @x_done[layer*2] all", "queue.wait @qkv_done[layer] all", "deadlock"),
    ("a cycle through the next layer's counter", "@a_done[layer] all", "@x_done[layer*2 + 2] all", "deadlock"),
    ("a lost signal", "      queue.signal @m_done[layer]\n", "", "race"),
    ("a wait after the runs", "queue.wait @logits_done[0] all\n      queue.run @argmax[] on cyclic 0", "queue.run @argmax[] on cyclic 0\n      queue.wait @logits_done[0] all", "race"),
    ("overlapping tiles", "@m[layer, 0 : 1, tile*4 : 4]", "@m[layer, 0 : 1, tile*3 : 4]", "written-once"),
    ("all layers to one", "task.store %m, @m[layer,", "task.store %m, @m[0,", "written-once"),
    ("the wrong row of the cache", "%r, @kc[layer, pos : 1,", "%r, @kc[layer, 0 : 1,", "race"),
    ("a row that is not kept", "    task.store %r, @kc[layer, pos : 1, head, 0 : 2, part*4 : 4] : tensor<1x2x4xf32>\n", "", "coverage"),
    ("a row that is only kept", "    task.store %y, @vn[layer, 0 : 1, head, 0 : 2, part*4 : 4] : tensor<1x2x4xf32>\n", "", "coverage"),
    ("the next layer's activations", "%x = task.load @x[layer*2 + 1, 0 : 1, 0 : 64]", "%x = task.load @x[layer*2 + 2, 0 : 1, 0 : 64]", "race"),
    ("a run that is missing", "      queue.run @o[layer] on cyclic 0\n", "      queue.run @o[0] on cyclic 0\n", "tasks"),
    ("a stream in another order", "queue.fetch @o[layer] on cyclic 0\n      queue.fetch @up[layer] on cyclic 0", "queue.fetch @up[layer] on cyclic 0\n      queue.fetch @o[layer] on cyclic 0", "stream"),
    ("a stream with another placement", "queue.fetch @up[layer] on cyclic 0", "queue.fetch @up[layer] on cyclic 1", "stream"),
    ("a run with another placement", "queue.run @down[layer] on cyclic 0", "queue.run @down[layer] on blocked 0", "stream"),
    ("a ring that does not fit", "stages = 10, bytes = 16384", "stages = 14, bytes = 16896", "resources"),
    ("no ring", " ring #amk.ring<stages = 10, bytes = 16384, in_flight = 3>", "", "stream"),
]  # fmt: skip
