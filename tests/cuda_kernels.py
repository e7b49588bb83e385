"""A llama-shaped queue kernel as text, for tests of the CUDA backend that need no other pass."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """A model's sizes. part: rotation pairs of a QKV task; rows: weight rows of other tasks."""

    layers: int = 2
    width: int = 64
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    inner: int = 96
    vocab: int = 100
    max_seq: int = 32
    sms: int = 3
    part: int = 4
    rows: int = 8
    tokens: int = 1
    target: str = "sm_90a"
    tagged: bool = False
    bias: bool = False
    tied: bool = True
    cache: str = "f32"
    ring: tuple[int, int, int] = (4, 8192, 2)


SMOLLM2 = Shape(30, 576, 9, 3, 64, 1536, 49152, 2048, 132)
"""The sizes of SmolLM2-135M."""


def kernel_text(m: Shape) -> str:
    """The kernel: counters, or tagged words for all that a token leaves but the logits."""
    half, t = m.head_dim // 2, m.tokens
    group = m.heads // m.kv_heads
    parts = -(-half // m.part)
    assert half % m.part == 0 and m.width % m.rows == 0 and m.inner % (m.rows // 2) == 0
    tag = " tagged" if m.tagged else ""
    head = "embed" if m.tied else "head"
    vocab_tiles = -(-m.vocab // m.rows)

    def weight(name: str, entry: str, shape: str, dtype: str = "bf16") -> str:
        return f'task.buffer @{name} weight from #amk.checkpoint<"{entry}"> : tensor<{shape}x{dtype}>'

    def layer(name: str) -> str:
        return f"model.layers.{{layer}}.{name}.weight"

    def projection(name: str, count: int, rope: bool, *targets: str) -> str:
        rows = f"{t}x2x{m.part}"
        body = f"""
  task.family @{name} (layer = {m.layers}, head = {count}, part = {parts}) {{
    %x = task.load @x[layer, 0 : {t}, 0 : {m.width}] : tensor<{t}x{m.width}xf32>
    %g = task.load @attn_norm[layer, 0 : {m.width}] : tensor<{m.width}xbf16>
    %n = task.rms_norm %x, %g {{eps = 1.0e-05 : f64}} : (tensor<{t}x{m.width}xf32>, tensor<{m.width}xbf16>)
    %w = task.stream @{name}_proj[layer, head, 0 : 2, part*{m.part} : {m.part}, 0 : {m.width}] : tensor<2x{m.part}x{m.width}xbf16>
    %y = task.matmul %n, %w : (tensor<{t}x{m.width}xf32>, tensor<2x{m.part}x{m.width}xbf16>) -> tensor<{rows}xf32>"""
        last = "%y"
        if m.bias:
            body += f"""
    %b = task.load @{name}_bias[layer, head, 0 : 2, part*{m.part} : {m.part}] : tensor<2x{m.part}xbf16>
    %z = task.bias_add %y, %b : (tensor<{rows}xf32>, tensor<2x{m.part}xbf16>)"""
            last = "%z"
        if rope:
            body += f"""
    %f = task.load @inv_freq[part*{m.part} : {m.part}] : tensor<{m.part}xf32>
    %r = task.rope {last}, %f : (tensor<{rows}xf32>, tensor<{m.part}xf32>)"""
            last = "%r"
        for target in targets:
            body += f"""
    task.store {last}, @{target}, head, 0 : 2, part*{m.part} : {m.part}] : tensor<{rows}xf32>"""
        return f"{body}\n  }}"

    w, d, v = m.width, m.inner, m.vocab
    cached = f"{m.layers}x{m.max_seq}x{m.kv_heads}x2x{half}"
    buffers = [
        weight("embed", "model.embed_tokens.weight", f"{v}x{w}"),
        weight("attn_norm", layer("input_layernorm"), f"{m.layers}x{w}"),
        weight("mlp_norm", layer("post_attention_layernorm"), f"{m.layers}x{w}"),
        weight("norm", "model.norm.weight", f"{w}"),
        weight("q_proj", layer("self_attn.q_proj"), f"{m.layers}x{m.heads}x2x{half}x{w}"),
        weight("k_proj", layer("self_attn.k_proj"), f"{m.layers}x{m.kv_heads}x2x{half}x{w}"),
        weight("v_proj", layer("self_attn.v_proj"), f"{m.layers}x{m.kv_heads}x2x{half}x{w}"),
        weight("o_proj", layer("self_attn.o_proj"), f"{m.layers}x{w}x{m.heads}x2x{half}"),
        weight("gate_proj", layer("mlp.gate_proj"), f"{m.layers}x{d}x{w}"),
        weight("up_proj", layer("mlp.up_proj"), f"{m.layers}x{d}x{w}"),
        weight("down_proj", layer("mlp.down_proj"), f"{m.layers}x{w}x{d}"),
    ]
    if not m.tied:
        buffers.append(weight("head", "lm_head.weight", f"{v}x{w}"))
    if m.bias:
        for name, count in (("q", m.heads), ("k", m.kv_heads), ("v", m.kv_heads)):
            entry = f"model.layers.{{layer}}.self_attn.{name}_proj.bias"
            buffers.append(weight(f"{name}_bias", entry, f"{m.layers}x{count}x2x{half}"))
    buffers += [
        f"task.buffer @inv_freq weight from #amk.rope_frequencies<head_dim = {m.head_dim}, theta = 10000.0> : tensor<{half}xf32>",
        f"task.buffer @token input : tensor<{t}xi32>",
        f"task.buffer @x scratch{tag} : tensor<{m.layers + 1}x{t}x{w}xf32>",
        f"task.buffer @h scratch{tag} : tensor<{m.layers}x{t}x{w}xf32>",
        f"task.buffer @queries scratch{tag} : tensor<{m.layers}x{t}x{m.heads}x2x{half}xf32>",
        f"task.buffer @k_new scratch{tag} : tensor<{m.layers}x{t}x{m.kv_heads}x2x{half}xf32>",
        f"task.buffer @v_new scratch{tag} : tensor<{m.layers}x{t}x{m.kv_heads}x2x{half}xf32>",
        f"task.buffer @o scratch{tag} : tensor<{m.layers}x{t}x{m.heads}x2x{half}xf32>",
        f"task.buffer @m scratch{tag} : tensor<{m.layers}x{t}x{d}xf32>",
        f"task.buffer @k_cache state : tensor<{cached}x{m.cache}>",
        f"task.buffer @v_cache state : tensor<{cached}x{m.cache}>",
        f"task.buffer @logits output : tensor<{t}x{v}xf32>",
        f"task.buffer @next_token output : tensor<{t}xi32>",
    ]
    new, here = f"layer, 0 : {t}", f"layer, pos : {t}"
    q, kv, kv_new = f"{t}x{group}x2x{half}xf32", f"?x1x2x{half}x{m.cache}", f"{t}x1x2x{half}xf32"
    flat, up = f"{t}x{m.heads}x2x{half}xf32", m.rows // 2
    families = f"""
  task.family @embed_rows (tile = {w // m.rows}) {{
    %i = task.load @token[0 : {t}] : tensor<{t}xi32>
    %e = task.gather %i, @embed[0 : {v}, tile*{m.rows} : {m.rows}] : (tensor<{t}xi32>) -> tensor<{t}x{m.rows}xf32>
    task.store %e, @x[0, 0 : {t}, tile*{m.rows} : {m.rows}] : tensor<{t}x{m.rows}xf32>
  }}{projection("q", m.heads, True, f"queries[{new}")}{
        projection("k", m.kv_heads, True, f"k_new[{new}", f"k_cache[{here}")
    }{projection("v", m.kv_heads, False, f"v_new[{new}", f"v_cache[{here}")}
  task.family @attend (layer = {m.layers}, head = {m.kv_heads}) {{
    %q = task.load @queries[layer, 0 : {t}, head*{group} : {group}, 0 : 2, 0 : {half}] : tensor<{q}>
    %k = task.stream @k_cache[layer, 0 : pos, head : 1, 0 : 2, 0 : {half}] : tensor<{kv}>
    %v = task.stream @v_cache[layer, 0 : pos, head : 1, 0 : 2, 0 : {half}] : tensor<{kv}>
    %kn = task.load @k_new[layer, 0 : {t}, head : 1, 0 : 2, 0 : {half}] : tensor<{kv_new}>
    %vn = task.load @v_new[layer, 0 : {t}, head : 1, 0 : 2, 0 : {half}] : tensor<{kv_new}>
    %o = task.attention %q, %k, %v, %kn, %vn {{scale = {m.head_dim**-0.5!r} : f64}} : (tensor<{q}>, tensor<{
        kv
    }>, tensor<{kv_new}>)
    task.store %o, @o[layer, 0 : {t}, head*{group} : {group}, 0 : 2, 0 : {half}] : tensor<{q}>
  }}
  task.family @out (layer = {m.layers}, tile = {w // m.rows}) {{
    %o = task.load @o[layer, 0 : {t}, 0 : {m.heads}, 0 : 2, 0 : {half}] : tensor<{flat}>
    %w = task.stream @o_proj[layer, tile*{m.rows} : {m.rows}, 0 : {m.heads}, 0 : 2, 0 : {half}] : tensor<{m.rows}x{
        m.heads
    }x2x{half}xbf16>
    %y = task.matmul %o, %w : (tensor<{flat}>, tensor<{m.rows}x{m.heads}x2x{half}xbf16>) -> tensor<{t}x{m.rows}xf32>
    %x = task.load @x[layer, 0 : {t}, tile*{m.rows} : {m.rows}] : tensor<{t}x{m.rows}xf32>
    %s = task.add %x, %y : tensor<{t}x{m.rows}xf32>
    task.store %s, @h[layer, 0 : {t}, tile*{m.rows} : {m.rows}] : tensor<{t}x{m.rows}xf32>
  }}
  task.family @gate_up (layer = {m.layers}, tile = {d // up}) {{
    %x = task.load @h[layer, 0 : {t}, 0 : {w}] : tensor<{t}x{w}xf32>
    %g = task.load @mlp_norm[layer, 0 : {w}] : tensor<{w}xbf16>
    %n = task.rms_norm %x, %g {{eps = 1.0e-05 : f64}} : (tensor<{t}x{w}xf32>, tensor<{w}xbf16>)
    %a = task.stream @gate_proj[layer, tile*{up} : {up}, 0 : {w}] : tensor<{up}x{w}xbf16>
    %b = task.stream @up_proj[layer, tile*{up} : {up}, 0 : {w}] : tensor<{up}x{w}xbf16>
    %ya = task.matmul %n, %a : (tensor<{t}x{w}xf32>, tensor<{up}x{w}xbf16>) -> tensor<{t}x{up}xf32>
    %yb = task.matmul %n, %b : (tensor<{t}x{w}xf32>, tensor<{up}x{w}xbf16>) -> tensor<{t}x{up}xf32>
    %m = task.silu_mul %ya, %yb : tensor<{t}x{up}xf32>
    task.store %m, @m[layer, 0 : {t}, tile*{up} : {up}] : tensor<{t}x{up}xf32>
  }}
  task.family @down (layer = {m.layers}, tile = {w // m.rows}) {{
    %m = task.load @m[layer, 0 : {t}, 0 : {d}] : tensor<{t}x{d}xf32>
    %w = task.stream @down_proj[layer, tile*{m.rows} : {m.rows}, 0 : {d}] : tensor<{m.rows}x{d}xbf16>
    %y = task.matmul %m, %w : (tensor<{t}x{d}xf32>, tensor<{m.rows}x{d}xbf16>) -> tensor<{t}x{m.rows}xf32>
    %h = task.load @h[layer, 0 : {t}, tile*{m.rows} : {m.rows}] : tensor<{t}x{m.rows}xf32>
    %s = task.add %h, %y : tensor<{t}x{m.rows}xf32>
    task.store %s, @x[layer + 1, 0 : {t}, tile*{m.rows} : {m.rows}] : tensor<{t}x{m.rows}xf32>
  }}
  task.family @score (tile = {vocab_tiles}) {{
    %x = task.load @x[{m.layers}, 0 : {t}, 0 : {w}] : tensor<{t}x{w}xf32>
    %g = task.load @norm[0 : {w}] : tensor<{w}xbf16>
    %n = task.rms_norm %x, %g {{eps = 1.0e-05 : f64}} : (tensor<{t}x{w}xf32>, tensor<{w}xbf16>)
    %w = task.stream @{head}[tile*{m.rows} : {m.rows} to {v}, 0 : {w}] : tensor<{m.rows}x{w}xbf16>
    %y = task.matmul %n, %w : (tensor<{t}x{w}xf32>, tensor<{m.rows}x{w}xbf16>) -> tensor<{t}x{m.rows}xf32>
    task.store %y, @logits[0 : {t}, tile*{m.rows} : {m.rows} to {v}] : tensor<{t}x{m.rows}xf32>
  }}
  task.family @choose () {{
    %l = task.load @logits[0 : {t}, 0 : {v}] : tensor<{t}x{v}xf32>
    %n = task.argmax %l : tensor<{t}x{v}xf32> -> tensor<{t}xi32>
    task.store %n, @next_token[0 : {t}] : tensor<{t}xi32>
  }}"""
    counters = [f"queue.counter @{n}[{m.layers}]" for n in ("q_done", "o_done", "h_done", "m_done")]
    counters += [f"queue.counter @x_done[{m.layers + 1}]", "queue.counter @logits_done[1]"]

    def wait(counter: str) -> str:
        return f"queue.wait @{counter} all\n          " if not m.tagged else ""

    def signal(counter: str) -> str:
        return f"\n          queue.signal @{counter}" if not m.tagged else ""

    fetch = "\n        ".join(
        f"queue.fetch @{name}[layer] on {place}"
        for name, place in (
            ("q", "cyclic 0"),
            ("k", "cyclic 1"),
            ("v", "cyclic 2"),
            ("attend", "cyclic 0"),
            ("out", "cyclic 0"),
        )
    )
    declarations = "\n  ".join(buffers) + families + "\n  " + "\n  ".join(counters)
    return f"""queue.kernel @model target "{m.target}" sms {m.sms} max_seq {m.max_seq} tokens {t} ring #amk.ring<stages = {m.ring[0]}, bytes = {m.ring[1]}, in_flight = {m.ring[2]}> {{
  {declarations}
  queue.program sms 0 to {m.sms} stream {{
      task.for layer = 0 to {m.layers} {{
        {fetch}
        queue.fetch @gate_up[layer] on blocked 0
        queue.fetch @down[layer] on cyclic layer
      }}
      queue.fetch @score[] on cyclic 0
    }} body {{
      queue.phase {{
          queue.run @embed_rows[] on cyclic 0{signal("x_done[0]")}
      }}
      task.for layer = 0 to {m.layers} {{
        queue.phase {{
          {wait("x_done[layer]")}queue.run @q[layer] on cyclic 0
          queue.run @k[layer] on cyclic 1
          queue.run @v[layer] on cyclic 2{signal("q_done[layer]")}
        }}
        queue.phase {{
          {wait("q_done[layer]")}queue.run @attend[layer] on cyclic 0{signal("o_done[layer]")}
        }}
        queue.phase {{
          {wait("o_done[layer]")}queue.run @out[layer] on cyclic 0{signal("h_done[layer]")}
        }}
        queue.phase {{
          {wait("h_done[layer]")}queue.run @gate_up[layer] on blocked 0{signal("m_done[layer]")}
        }}
        queue.phase {{
          {wait("m_done[layer]")}queue.run @down[layer] on cyclic layer{signal("x_done[layer + 1]")}
        }}
      }}
      queue.phase {{
          {wait(f"x_done[{m.layers}]")}queue.run @score[] on cyclic 0
          queue.signal @logits_done[0]
      }}
      queue.phase {{
          queue.wait @logits_done[0] all
          queue.run @choose[] on cyclic 0
      }}
    }}
}}
"""
