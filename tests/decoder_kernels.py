"""Text of `queue.kernel`s with the shape of a decoder, written here so that tests of the verifier rely on no pass."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Shape:
    """A decoder: sizes as in a Hugging Face config, tiles of `rows` output rows."""

    layers: int = 2
    hidden: int = 16
    heads: int = 2
    kv_heads: int = 1
    head_dim: int = 8
    mlp: int = 24
    vocab: int = 40
    rows: int = 8
    sms: int = 3
    max_seq: int = 16
    target: str = "sm_90a"


LLAMA_8B = Shape(32, 4096, 32, 8, 128, 14336, 128256, 8, 132, 8192)
LLAMA_70B = Shape(80, 8192, 64, 8, 128, 28672, 128256, 8, 132, 8192)


def decoder(s: Shape = Shape(), handoff: Literal["counter", "tagged", "barrier"] = "counter") -> str:
    """A compact kernel that is safe. Every tile of every phase waits for all of the phase before it.

    With `tagged`, activations are handed over by tagged words, and only queries, keys and values by counters. With `barrier`, there is
    one counter, which every SM signals after each phase, and each phase waits for what it has risen to by then.
    """
    d, h, half, part = s.hidden, s.head_dim, s.head_dim // 2, s.rows // 2
    group = s.heads // s.kv_heads
    flag = " tagged" if handoff == "tagged" else ""
    parts = half // part
    norm = f"""
    %x = task.load @x[layer*2, 0 : 1, 0 : {d}] : tensor<1x{d}xf32>
    %g = task.load @norm[layer, 0 : {d}] : tensor<{d}xf32>
    %n = task.rms_norm %x, %g {{eps = 1.0e-5 : f64}} : (tensor<1x{d}xf32>, tensor<{d}xf32>)"""

    def projection(name: str, heads: int, rope: bool, *targets: str) -> str:
        size = f"1x2x{part}"
        rotated = f"""
    %f = task.load @freq[part*{part} : {part}] : tensor<{part}xf32>
    %r = task.rope %y, %f : (tensor<{size}xf32>, tensor<{part}xf32>)"""
        stores = "".join(
            f"\n    task.store %{'r' if rope else 'y'}, @{target}, head, 0 : 2, part*{part} : {part}] : tensor<{size}xf32>"
            for target in targets
        )
        return f"""
  task.family @{name}_proj (layer = {s.layers}, head = {heads}, part = {parts}) {{{norm}
    %w = task.stream @w{name}[layer, head, 0 : 2, part*{part} : {part}, 0 : {d}] : tensor<2x{part}x{d}xbf16>
    %y = task.matmul %n, %w : (tensor<1x{d}xf32>, tensor<2x{part}x{d}xbf16>) -> tensor<{size}xf32>{rotated if rope else ""}{stores}
  }}"""

    def wait(counter: str) -> str:
        return f"queue.wait @{counter} all"

    phases = [
        (
            "x_done[layer*2]",
            [("q_proj", s.heads * parts), ("k_proj", s.kv_heads * parts), ("v_proj", s.kv_heads * parts)],
            "qkv_done[layer]",
        ),
        ("qkv_done[layer]", [("attn", s.heads)], "a_done[layer]"),
        ("a_done[layer]", [("o", d // s.rows)], "x_done[layer*2 + 1]"),
        ("x_done[layer*2 + 1]", [("up", s.mlp // part)], "m_done[layer]"),
        ("m_done[layer]", [("down", d // s.rows)], "x_done[layer*2 + 2]"),
    ]
    body, stream = "", ""
    for number, (waited, runs, signalled) in enumerate(phases):
        offset, lines = 0, ""
        for name, count in runs:
            lines += f"\n      queue.run @{name}[layer] on cyclic {offset}"
            stream += f"\n      queue.fetch @{name}[layer] on cyclic {offset}"
            offset += count
        by_counter = handoff == "counter" or waited.startswith("qkv")
        before = f"\n      {wait(waited)}" if by_counter else ""
        after = f"\n      queue.signal @{signalled}" if handoff == "counter" or signalled.startswith("qkv") else ""
        if handoff == "barrier":
            body += f"\n      queue.wait @bar[0] >= layer*{5 * s.sms} + {(number + 1) * s.sms}{lines}\n      queue.signal @bar[0]"
        else:
            body += f"\n    queue.phase {{{before}{lines}{after}\n    }}"
    first, last = "      queue.run @emb[] on cyclic 0", "      queue.run @head[] on cyclic 0"
    end = "      queue.run @argmax[] on cyclic 0"
    if handoff == "barrier":
        total = (5 * s.layers + 1) * s.sms
        first += "\n      queue.signal @bar[0]"
        last = f"      queue.wait @bar[0] >= {total}\n{last}\n      queue.signal @bar[0]"
        end = f"      queue.wait @bar[0] all\n{end}"
    else:
        if handoff == "counter":
            first += "\n      queue.signal @x_done[0]"
            last = f"      queue.wait @x_done[{2 * s.layers}] all\n{last}"
        first = f"    queue.phase {{\n{first}\n    }}"
        last = f"    queue.phase {{\n{last}\n      queue.signal @logits_done[0]\n    }}"
        end = f"    queue.phase {{\n      queue.wait @logits_done[0] all\n{end}\n    }}"
    return f"""queue.kernel @decoder target "{s.target}" sms {s.sms} max_seq {s.max_seq} tokens 1 ring #amk.ring<stages = 10, bytes = 16384, in_flight = 3> {{
  task.buffer @token input : tensor<1xi32>
  task.buffer @embed weight from #amk.checkpoint<"embed"> : tensor<{s.vocab}x{d}xbf16>
  task.buffer @norm weight from #amk.checkpoint<"{{layer}}.norm"> : tensor<{s.layers}x{d}xf32>
  task.buffer @freq weight from #amk.rope_frequencies<head_dim = {h}, theta = 10000.0> : tensor<{half}xf32>
  task.buffer @wq weight from #amk.checkpoint<"{{layer}}.q"> : tensor<{s.layers}x{s.heads}x2x{half}x{d}xbf16>
  task.buffer @wk weight from #amk.checkpoint<"{{layer}}.k"> : tensor<{s.layers}x{s.kv_heads}x2x{half}x{d}xbf16>
  task.buffer @wv weight from #amk.checkpoint<"{{layer}}.v"> : tensor<{s.layers}x{s.kv_heads}x2x{half}x{d}xbf16>
  task.buffer @wo weight from #amk.checkpoint<"{{layer}}.o"> : tensor<{s.layers}x{d}x{s.heads}x2x{half}xbf16>
  task.buffer @wgate weight from #amk.checkpoint<"{{layer}}.gate"> : tensor<{s.layers}x{s.mlp}x{d}xbf16>
  task.buffer @wup weight from #amk.checkpoint<"{{layer}}.up"> : tensor<{s.layers}x{s.mlp}x{d}xbf16>
  task.buffer @wdown weight from #amk.checkpoint<"{{layer}}.down"> : tensor<{s.layers}x{d}x{s.mlp}xbf16>
  task.buffer @x scratch{flag} : tensor<{2 * s.layers + 1}x1x{d}xf32>
  task.buffer @q scratch : tensor<{s.layers}x1x{s.heads}x2x{half}xf32>
  task.buffer @kn scratch : tensor<{s.layers}x1x{s.kv_heads}x2x{half}xf32>
  task.buffer @vn scratch : tensor<{s.layers}x1x{s.kv_heads}x2x{half}xf32>
  task.buffer @kc state : tensor<{s.layers}x{s.max_seq}x{s.kv_heads}x2x{half}xbf16>
  task.buffer @vc state : tensor<{s.layers}x{s.max_seq}x{s.kv_heads}x2x{half}xbf16>
  task.buffer @a scratch{flag} : tensor<{s.layers}x1x{s.heads}x2x{half}xf32>
  task.buffer @m scratch{flag} : tensor<{s.layers}x1x{s.mlp}xf32>
  task.buffer @logits output : tensor<1x{s.vocab}xf32>
  task.buffer @next output : tensor<1xi32>
  task.family @emb () {{
    %ids = task.load @token[0 : 1] : tensor<1xi32>
    %e = task.gather %ids, @embed[0 : {s.vocab}, 0 : {d}] : (tensor<1xi32>) -> tensor<1x{d}xf32>
    task.store %e, @x[0, 0 : 1, 0 : {d}] : tensor<1x{d}xf32>
  }}{projection("q", s.heads, True, "q[layer, 0 : 1")}{projection("k", s.kv_heads, True, "kn[layer, 0 : 1", "kc[layer, pos : 1")}{projection("v", s.kv_heads, False, "vn[layer, 0 : 1", "vc[layer, pos : 1")}
  task.family @attn (layer = {s.layers}, kv = {s.kv_heads}, sub = {group}) {{
    %q = task.load @q[layer, 0 : 1, kv*{group} + sub : 1, 0 : 2, 0 : {half}] : tensor<1x1x2x{half}xf32>
    %k = task.stream @kc[layer, 0 : pos, kv : 1, 0 : 2, 0 : {half}] : tensor<?x1x2x{half}xbf16>
    %v = task.stream @vc[layer, 0 : pos, kv : 1, 0 : 2, 0 : {half}] : tensor<?x1x2x{half}xbf16>
    %kn = task.load @kn[layer, 0 : 1, kv : 1, 0 : 2, 0 : {half}] : tensor<1x1x2x{half}xf32>
    %vn = task.load @vn[layer, 0 : 1, kv : 1, 0 : 2, 0 : {half}] : tensor<1x1x2x{half}xf32>
    %o = task.attention %q, %k, %v, %kn, %vn {{scale = 0.5 : f64}} : (tensor<1x1x2x{half}xf32>, tensor<?x1x2x{half}xbf16>, tensor<1x1x2x{half}xf32>)
    task.store %o, @a[layer, 0 : 1, kv*{group} + sub : 1, 0 : 2, 0 : {half}] : tensor<1x1x2x{half}xf32>
  }}
  task.family @o (layer = {s.layers}, tile = {d // s.rows}) {{
    %a = task.load @a[layer, 0 : 1, 0 : {s.heads}, 0 : 2, 0 : {half}] : tensor<1x{s.heads}x2x{half}xf32>
    %w = task.stream @wo[layer, tile*{s.rows} : {s.rows}, 0 : {s.heads}, 0 : 2, 0 : {half}] : tensor<{s.rows}x{s.heads}x2x{half}xbf16>
    %y = task.matmul %a, %w : (tensor<1x{s.heads}x2x{half}xf32>, tensor<{s.rows}x{s.heads}x2x{half}xbf16>) -> tensor<1x{s.rows}xf32>
    %x = task.load @x[layer*2, 0 : 1, tile*{s.rows} : {s.rows}] : tensor<1x{s.rows}xf32>
    %z = task.add %x, %y : tensor<1x{s.rows}xf32>
    task.store %z, @x[layer*2 + 1, 0 : 1, tile*{s.rows} : {s.rows}] : tensor<1x{s.rows}xf32>
  }}
  task.family @up (layer = {s.layers}, tile = {s.mlp // part}) {{{norm.replace("layer*2,", "layer*2 + 1,")}
    %w = task.stream @wgate[layer, tile*{part} : {part}, 0 : {d}] : tensor<{part}x{d}xbf16>
    %a = task.matmul %n, %w : (tensor<1x{d}xf32>, tensor<{part}x{d}xbf16>) -> tensor<1x{part}xf32>
    %u = task.stream @wup[layer, tile*{part} : {part}, 0 : {d}] : tensor<{part}x{d}xbf16>
    %b = task.matmul %n, %u : (tensor<1x{d}xf32>, tensor<{part}x{d}xbf16>) -> tensor<1x{part}xf32>
    %m = task.silu_mul %a, %b : tensor<1x{part}xf32>
    task.store %m, @m[layer, 0 : 1, tile*{part} : {part}] : tensor<1x{part}xf32>
  }}
  task.family @down (layer = {s.layers}, tile = {d // s.rows}) {{
    %a = task.load @m[layer, 0 : 1, 0 : {s.mlp}] : tensor<1x{s.mlp}xf32>
    %w = task.stream @wdown[layer, tile*{s.rows} : {s.rows}, 0 : {s.mlp}] : tensor<{s.rows}x{s.mlp}xbf16>
    %y = task.matmul %a, %w : (tensor<1x{s.mlp}xf32>, tensor<{s.rows}x{s.mlp}xbf16>) -> tensor<1x{s.rows}xf32>
    %x = task.load @x[layer*2 + 1, 0 : 1, tile*{s.rows} : {s.rows}] : tensor<1x{s.rows}xf32>
    %z = task.add %x, %y : tensor<1x{s.rows}xf32>
    task.store %z, @x[layer*2 + 2, 0 : 1, tile*{s.rows} : {s.rows}] : tensor<1x{s.rows}xf32>
  }}
  task.family @head (tile = {s.vocab // s.rows}) {{
    %x = task.load @x[{2 * s.layers}, 0 : 1, 0 : {d}] : tensor<1x{d}xf32>
    %w = task.stream @embed[tile*{s.rows} : {s.rows}, 0 : {d}] : tensor<{s.rows}x{d}xbf16>
    %y = task.matmul %x, %w : (tensor<1x{d}xf32>, tensor<{s.rows}x{d}xbf16>) -> tensor<1x{s.rows}xf32>
    task.store %y, @logits[0 : 1, tile*{s.rows} : {s.rows}] : tensor<1x{s.rows}xf32>
  }}
  task.family @argmax () {{
    %x = task.load @logits[0 : 1, 0 : {s.vocab}] : tensor<1x{s.vocab}xf32>
    %i = task.argmax %x : tensor<1x{s.vocab}xf32> -> tensor<1xi32>
    task.store %i, @next[0 : 1] : tensor<1xi32>
  }}
  queue.counter @x_done[{2 * s.layers + 1}]
  queue.counter @qkv_done[{s.layers}]
  queue.counter @a_done[{s.layers}]
  queue.counter @m_done[{s.layers}]
  queue.counter @logits_done[1]
  queue.counter @bar[1]
  queue.program sms 0 to {s.sms} stream {{
    task.for layer = 0 to {s.layers} {{{stream}
    }}
    queue.fetch @head[] on cyclic 0
  }} body {{
{first}
    task.for layer = 0 to {s.layers} {{{body}
    }}
{last}
{end}
  }}
}}
"""
