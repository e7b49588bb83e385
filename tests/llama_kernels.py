"""Hand-written task programs and queue kernels of Llama models, independent of the passes, as text.

Every family is tiled by `tiles`; each phase waits for all of the one before it. The kernel is what a person would write
for a few virtual SMs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amk.amk_ir.dtypes import bf16_from_f32


@dataclass(frozen=True)
class LlamaShape:
    """Sizes of a model. `tiles`: tiles of each projection that is not tiled by heads."""

    vocab: int = 37
    hidden: int = 24
    wide: int = 40
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    half: int = 3
    max_seq: int = 16
    tokens: int = 1
    tiles: int = 3
    element: str = "f32"


SMOLLM2 = LlamaShape(vocab=49152, hidden=576, wide=1536, layers=30, heads=9, kv_heads=3, half=32, max_seq=2048, tiles=4)


class RandomWeights:
    """A provider of random tensors of the given shapes, by name."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], seed: int = 0):
        random = np.random.default_rng(seed)
        self.tensors: dict[str, NDArray[np.float32]] = {}
        for name, shape in shapes.items():
            values = random.standard_normal(shape, np.float32)
            self.tensors[name] = 1 + 0.2 * values if len(shape) == 1 else values * np.float32(shape[-1] ** -0.5)

    def load(self, name: str, dtype: Any = "f32") -> NDArray[Any]:
        """The tensor, as the checkpoints of the frontends return it."""
        values = self.tensors[name]
        return values if dtype == "f32" else bf16_from_f32(values)


def weight_shapes(s: LlamaShape) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors that the programs name."""
    rows, kv = s.heads * 2 * s.half, s.kv_heads * 2 * s.half
    shapes: dict[str, tuple[int, ...]] = {"embed": (s.vocab, s.hidden), "norm": (s.hidden,)}
    for i in range(s.layers):
        shapes |= {
            f"{i}.attn_norm": (s.hidden,),
            f"{i}.mlp_norm": (s.hidden,),
            f"{i}.q": (rows, s.hidden),
            f"{i}.k": (kv, s.hidden),
            f"{i}.v": (kv, s.hidden),
            f"{i}.o": (s.hidden, rows),
            f"{i}.gate": (s.wide, s.hidden),
            f"{i}.up": (s.wide, s.hidden),
            f"{i}.down": (s.hidden, s.wide),
        }
    return shapes


def _parts(n: int, tiles: int) -> str:
    """`tile*size : size to n`, ragged unless `tiles` divides n."""
    size = -(-n // tiles)
    return f"tile*{size} : {size}" + ("" if size * tiles == n else f" to {n}")


def buffers_and_families(s: LlamaShape, tagged: bool = False) -> str:
    """The buffers and families, in which program and kernel agree."""
    T, H, W, V, h, L, e = s.tokens, s.hidden, s.wide, s.vocab, s.half, s.layers, s.element
    tag = " tagged" if tagged else ""
    size = {n: -(-n // s.tiles) for n in (H, W, V)}
    group = s.heads // s.kv_heads

    def layered(name: str, dims: str) -> str:
        return f'task.buffer @{name} weight from #amk.checkpoint<"{{layer}}.{name}"> : tensor<{L}x{dims}x{e}>\n'

    def projection(name: str, count: int) -> str:
        store = {
            "q": f"task.store %r, @query[layer, 0 : {T}, head, 0 : 2, 0 : {h}] : tensor<{T}x2x{h}xf32>",
            "k": appended("k", "%r"),
            "v": appended("v", "%y"),
        }[name]
        rope = f"%f = task.load @inv_freq[0 : {h}] : tensor<{h}xf32>\n"
        rope += f"%r = task.rope %y, %f : (tensor<{T}x2x{h}xf32>, tensor<{h}xf32>)\n"
        return f"""task.family @{name}_proj (layer = {L}, head = {count}) {{
            {normed("attn_norm", "layer, ")}
            %w = task.stream @{name}[layer, head, 0 : 2, 0 : {h}, 0 : {H}] : tensor<2x{h}x{H}x{e}>
            %y = task.matmul %n, %w : (tensor<{T}x{H}xf32>, tensor<2x{h}x{H}x{e}>) -> tensor<{T}x2x{h}xf32>
            {"" if name == "v" else rope}{store}
        }}\n"""

    def appended(name: str, value: str) -> str:
        return f"""task.store {value}, @{name}_new[layer, 0 : {T}, head, 0 : 2, 0 : {h}] : tensor<{T}x2x{h}xf32>
            task.store {value}, @{name}_cache[layer, pos : {T}, head, 0 : 2, 0 : {h}] : tensor<{T}x2x{h}xf32>"""

    def normed(norm: str, layer: str, x: str = "x[layer, ") -> str:
        return f"""%x = task.load @{x}0 : {T}, 0 : {H}] : tensor<{T}x{H}xf32>
            %g = task.load @{norm}[{layer}0 : {H}] : tensor<{H}x{e}>
            %n = task.rms_norm %x, %g {{eps = 1.0e-5 : f64}} : (tensor<{T}x{H}xf32>, tensor<{H}x{e}>)"""

    return f"""
    task.buffer @token input : tensor<{T}xi32>
    task.buffer @embed weight from #amk.checkpoint<"embed"> : tensor<{V}x{H}x{e}>
    task.buffer @norm weight from #amk.checkpoint<"norm"> : tensor<{H}x{e}>
    task.buffer @inv_freq weight from #amk.rope_frequencies<head_dim = {2 * h}, theta = 10000.0> : tensor<{h}xf32>
    {layered("attn_norm", f"{H}")}{layered("mlp_norm", f"{H}")}
    {layered("q", f"{s.heads}x2x{h}x{H}")}{layered("k", f"{s.kv_heads}x2x{h}x{H}")}{layered("v", f"{s.kv_heads}x2x{h}x{H}")}
    {layered("o", f"{H}x{s.heads}x2x{h}")}{layered("gate", f"{W}x{H}")}{layered("up", f"{W}x{H}")}{layered("down", f"{H}x{W}")}
    task.buffer @k_cache state : tensor<{L}x{s.max_seq}x{s.kv_heads}x2x{h}x{e}>
    task.buffer @v_cache state : tensor<{L}x{s.max_seq}x{s.kv_heads}x2x{h}x{e}>
    task.buffer @x scratch{tag} : tensor<{L + 1}x{T}x{H}xf32>
    task.buffer @x_mid scratch{tag} : tensor<{L}x{T}x{H}xf32>
    task.buffer @query scratch : tensor<{L}x{T}x{s.heads}x2x{h}xf32>
    task.buffer @k_new scratch : tensor<{L}x{T}x{s.kv_heads}x2x{h}xf32>
    task.buffer @v_new scratch : tensor<{L}x{T}x{s.kv_heads}x2x{h}xf32>
    task.buffer @attn scratch{tag} : tensor<{L}x{T}x{s.heads}x2x{h}xf32>
    task.buffer @act scratch{tag} : tensor<{L}x{T}x{W}xf32>
    task.buffer @logits output : tensor<{T}x{V}xf32>
    task.buffer @next_token output : tensor<{T}xi32>
    task.family @embedding (tile = {s.tiles}) {{
        %ids = task.load @token[0 : {T}] : tensor<{T}xi32>
        %e = task.gather %ids, @embed[0 : {V}, {_parts(H, s.tiles)}] : (tensor<{T}xi32>) -> tensor<{T}x{size[H]}xf32>
        task.store %e, @x[0, 0 : {T}, {_parts(H, s.tiles)}] : tensor<{T}x{size[H]}xf32>
    }}
    {projection("q", s.heads)}{projection("k", s.kv_heads)}{projection("v", s.kv_heads)}
    task.family @attention (layer = {L}, head = {s.kv_heads}) {{
        %q = task.load @query[layer, 0 : {T}, head*{group} : {group}, 0 : 2, 0 : {h}] : tensor<{T}x{group}x2x{h}xf32>
        %k = task.stream @k_cache[layer, 0 : pos, head : 1, 0 : 2, 0 : {h}] : tensor<?x1x2x{h}x{e}>
        %v = task.stream @v_cache[layer, 0 : pos, head : 1, 0 : 2, 0 : {h}] : tensor<?x1x2x{h}x{e}>
        %kn = task.load @k_new[layer, 0 : {T}, head : 1, 0 : 2, 0 : {h}] : tensor<{T}x1x2x{h}xf32>
        %vn = task.load @v_new[layer, 0 : {T}, head : 1, 0 : 2, 0 : {h}] : tensor<{T}x1x2x{h}xf32>
        %o = task.attention %q, %k, %v, %kn, %vn {{scale = {(2 * h) ** -0.5} : f64}} : (tensor<{T}x{group}x2x{h}xf32>, tensor<?x1x2x{h}x{e}>, tensor<{T}x1x2x{h}xf32>)
        task.store %o, @attn[layer, 0 : {T}, head*{group} : {group}, 0 : 2, 0 : {h}] : tensor<{T}x{group}x2x{h}xf32>
    }}
    task.family @o_proj (layer = {L}, tile = {s.tiles}) {{
        %a = task.load @attn[layer, 0 : {T}, 0 : {s.heads}, 0 : 2, 0 : {h}] : tensor<{T}x{s.heads}x2x{h}xf32>
        %w = task.stream @o[layer, {_parts(H, s.tiles)}, 0 : {s.heads}, 0 : 2, 0 : {h}] : tensor<{size[H]}x{s.heads}x2x{h}x{e}>
        %y = task.matmul %a, %w : (tensor<{T}x{s.heads}x2x{h}xf32>, tensor<{size[H]}x{s.heads}x2x{h}x{e}>) -> tensor<{T}x{size[H]}xf32>
        %x = task.load @x[layer, 0 : {T}, {_parts(H, s.tiles)}] : tensor<{T}x{size[H]}xf32>
        %r = task.add %x, %y : tensor<{T}x{size[H]}xf32>
        task.store %r, @x_mid[layer, 0 : {T}, {_parts(H, s.tiles)}] : tensor<{T}x{size[H]}xf32>
    }}
    task.family @gate_up (layer = {L}, tile = {s.tiles}) {{
        {normed("mlp_norm", "layer, ", "x_mid[layer, ")}
        %wg = task.stream @gate[layer, {_parts(W, s.tiles)}, 0 : {H}] : tensor<{size[W]}x{H}x{e}>
        %wu = task.stream @up[layer, {_parts(W, s.tiles)}, 0 : {H}] : tensor<{size[W]}x{H}x{e}>
        %yg = task.matmul %n, %wg : (tensor<{T}x{H}xf32>, tensor<{size[W]}x{H}x{e}>) -> tensor<{T}x{size[W]}xf32>
        %yu = task.matmul %n, %wu : (tensor<{T}x{H}xf32>, tensor<{size[W]}x{H}x{e}>) -> tensor<{T}x{size[W]}xf32>
        %m = task.silu_mul %yg, %yu : tensor<{T}x{size[W]}xf32>
        task.store %m, @act[layer, 0 : {T}, {_parts(W, s.tiles)}] : tensor<{T}x{size[W]}xf32>
    }}
    task.family @down_proj (layer = {L}, tile = {s.tiles}) {{
        %a = task.load @act[layer, 0 : {T}, 0 : {W}] : tensor<{T}x{W}xf32>
        %w = task.stream @down[layer, {_parts(H, s.tiles)}, 0 : {W}] : tensor<{size[H]}x{W}x{e}>
        %y = task.matmul %a, %w : (tensor<{T}x{W}xf32>, tensor<{size[H]}x{W}x{e}>) -> tensor<{T}x{size[H]}xf32>
        %x = task.load @x_mid[layer, 0 : {T}, {_parts(H, s.tiles)}] : tensor<{T}x{size[H]}xf32>
        %r = task.add %x, %y : tensor<{T}x{size[H]}xf32>
        task.store %r, @x[layer + 1, 0 : {T}, {_parts(H, s.tiles)}] : tensor<{T}x{size[H]}xf32>
    }}
    task.family @head (tile = {s.tiles}) {{
        {normed("norm", "", f"x[{L}, ")}
        %w = task.stream @embed[{_parts(V, s.tiles)}, 0 : {H}] : tensor<{size[V]}x{H}x{e}>
        %y = task.matmul %n, %w : (tensor<{T}x{H}xf32>, tensor<{size[V]}x{H}x{e}>) -> tensor<{T}x{size[V]}xf32>
        task.store %y, @logits[0 : {T}, {_parts(V, s.tiles)}] : tensor<{T}x{size[V]}xf32>
    }}
    task.family @choose () {{
        %l = task.load @logits[0 : {T}, 0 : {V}] : tensor<{T}x{V}xf32>
        %n = task.argmax %l : tensor<{T}x{V}xf32> -> tensor<{T}xi32>
        task.store %n, @next_token[0 : {T}] : tensor<{T}xi32>
    }}
"""


def task_program(s: LlamaShape) -> str:
    """A module with the model as a `task.program`."""
    return f"""task.program @llama max_seq {s.max_seq} tokens {s.tokens} {{
    {buffers_and_families(s)}
    task.order {{
        task.call @embedding[]
        task.for layer = 0 to {s.layers} {{
            task.call @q_proj[layer] task.call @k_proj[layer] task.call @v_proj[layer]
            task.call @attention[layer] task.call @o_proj[layer] task.call @gate_up[layer] task.call @down_proj[layer]
        }}
        task.call @head[] task.call @choose[]
    }}
}}"""


def queue_kernel(s: LlamaShape, sms: int = 4, tagged: bool = False, placement: str = "cyclic") -> str:
    """A module with the model as a `queue.kernel`: hand-off by counters, or by tags where buffers are `tagged`."""

    def phase(after: str, runs: list[str], done: str, by_tags: bool = False) -> str:
        wait = f"queue.wait @{after} all" if after and not (tagged and by_tags) else ""
        signal = f"queue.signal @{done}" if done else ""
        placed = " ".join(f"queue.run @{r} on {placement} 0" for r in runs)
        return f"queue.phase {{ {wait} {placed} {signal} }}\n"

    L = s.layers
    return f"""queue.kernel @llama target "reference" sms {sms} max_seq {s.max_seq} tokens {s.tokens} ring #amk.ring<stages = 4, bytes = 16384, in_flight = 2> {{
    {buffers_and_families(s, tagged)}
    queue.counter @x_done[{L + 1}]
    queue.counter @qkv_done[{L}]
    queue.counter @attn_done[{L}]
    queue.counter @mid_done[{L}]
    queue.counter @act_done[{L}]
    queue.counter @logits_done[1]
    queue.program sms 0 to {sms} stream {{
        task.for layer = 0 to {L} {{
            {" ".join(f"queue.fetch @{f}[layer] on {placement} 0" for f in ("q_proj", "k_proj", "v_proj", "attention", "o_proj", "gate_up", "down_proj"))}
        }}
        queue.fetch @head[] on {placement} 0
    }} body {{
        {phase("", ["embedding[]"], "x_done[0]")}
        task.for layer = 0 to {L} {{
            {phase("x_done[layer]", ["q_proj[layer]", "k_proj[layer]", "v_proj[layer]"], "qkv_done[layer]", True)}
            {phase("qkv_done[layer]", ["attention[layer]"], "attn_done[layer]")}
            {phase("attn_done[layer]", ["o_proj[layer]"], "mid_done[layer]", True)}
            {phase("mid_done[layer]", ["gate_up[layer]"], "act_done[layer]", True)}
            {phase("act_done[layer]", ["down_proj[layer]"], "x_done[layer + 1]", True)}
        }}
        {phase(f"x_done[{L}]", ["head[]"], "logits_done[0]", True)}
        {phase("logits_done[0]", ["choose[]"], "")}
    }}
}}"""


def graph_model(s: LlamaShape) -> str:
    """A module with the model as a `graph.model`."""
    T, H, W, V, hd, L, e = s.tokens, s.hidden, s.wide, s.vocab, 2 * s.half, s.layers, s.element
    x, q, kv, wide = (f"tensor<{T}x{d}xf32>" for d in (H, f"{s.heads}x{hd}", f"{s.kv_heads}x{hd}", W))
    cache, logits, ids = f"tensor<{s.max_seq}x{s.kv_heads}x{hd}x{e}>", f"tensor<{T}x{V}xf32>", f"tensor<{T}xi32>"

    def weight(name: str, dims: str) -> str:
        return f'graph.weight @{name} layers {L} from #amk.checkpoint<"{{layer}}.{name}"> : tensor<{dims}x{e}>'

    return f"""graph.model @llama max_seq {s.max_seq} {{
    graph.weight @embed from #amk.checkpoint<"embed"> : tensor<{V}x{H}x{e}>
    graph.weight @norm from #amk.checkpoint<"norm"> : tensor<{H}x{e}>
    graph.weight @inv_freq from #amk.rope_frequencies<head_dim = {hd}, theta = 10000.0> : tensor<{s.half}xf32>
    {weight("attn_norm", f"{H}")} {weight("mlp_norm", f"{H}")}
    {weight("q", f"{s.heads}x{hd}x{H}")} {weight("k", f"{s.kv_heads}x{hd}x{H}")} {weight("v", f"{s.kv_heads}x{hd}x{H}")}
    {weight("o", f"{H}x{s.heads}x{hd}")} {weight("gate", f"{W}x{H}")} {weight("up", f"{W}x{H}")} {weight("down", f"{H}x{W}")}
    graph.cache @k_cache layers {L} : {cache}
    graph.cache @v_cache layers {L} : {cache}
    graph.step (%token : {ids}, %pos : index) {{
        %x0 = graph.embedding %token, @embed : ({ids}) -> {x}
        %last = graph.layers {L} (%x = %x0) : {x} {{
            %n = graph.rms_norm %x, @attn_norm {{eps = 1.0e-5 : f64}} : {x}
            %q = graph.linear %n, @q : ({x}) -> {q}
            %k = graph.linear %n, @k : ({x}) -> {kv}
            %v = graph.linear %n, @v : ({x}) -> {kv}
            %qr = graph.rope %q, @inv_freq at %pos : {q}
            %kr = graph.rope %k, @inv_freq at %pos : {kv}
            %ka = graph.cache_append %kr, @k_cache at %pos : ({kv}) -> {cache}
            %va = graph.cache_append %v, @v_cache at %pos : ({kv}) -> {cache}
            %o = graph.attention %qr, %ka, %va at %pos {{scale = {hd**-0.5} : f64}} : ({q}, {cache}, {cache}) -> {q}
            %a = graph.linear %o, @o : ({q}) -> {x}
            %mid = graph.add %x, %a : {x}
            %n2 = graph.rms_norm %mid, @mlp_norm {{eps = 1.0e-5 : f64}} : {x}
            %g = graph.linear %n2, @gate : ({x}) -> {wide}
            %u = graph.linear %n2, @up : ({x}) -> {wide}
            %m = graph.silu_mul %g, %u : {wide}
            %d = graph.linear %m, @down : ({wide}) -> {x}
            %next = graph.add %mid, %d : {x}
            graph.yield %next : {x}
        }}
        %nf = graph.rms_norm %last, @norm {{eps = 1.0e-5 : f64}} : {x}
        %logits = graph.linear %nf, @embed : ({x}) -> {logits}
        %chosen = graph.argmax %logits : {logits} -> {ids}
        graph.return %logits, %chosen : {logits}, {ids}
    }}
}}"""


def parse(text: str) -> Any:
    """The first operation of a module, verified."""
    from xdsl.context import Context
    from xdsl.dialects.builtin import Builtin
    from xdsl.parser import Parser

    from amk.tools.registry import get_all_dialects

    context = Context()
    context.load_dialect(Builtin)
    for dialect in get_all_dialects().values():
        context.load_dialect(dialect())
    module = Parser(context, text).parse_module()
    module.verify()
    return module.body.block.first_op


@dataclass
class ExplicitKernel:
    """A kernel with every event of every SM spelled out as text, so that a test can remove, move or change one."""

    head: str
    bodies: list[list[str]]
    streams: list[list[str]]

    @staticmethod
    def of(text: str) -> ExplicitKernel:
        """The explicit form of a compact kernel."""
        from amk.dialects.schedule import EventKind, Schedule

        schedule = Schedule.from_kernel(parse(text))

        def event(kind: int, ref: int, arg: int) -> str:
            if kind == EventKind.RUN:
                return f"queue.run {schedule.task_name(ref, arg)}"
            name = schedule.counter_name(ref)
            return f"queue.wait {name} >= {arg}" if kind == EventKind.WAIT else f"queue.signal {name}"

        body, stream = schedule.body, schedule.stream
        return ExplicitKernel(
            text[: text.index("queue.program")],
            [
                [event(*(int(c[i]) for c in (body.kind, body.ref, body.arg))) for i in body.range(sm)]
                for sm in range(schedule.num_sms)
            ],
            [
                [f"queue.fetch {schedule.task_name(int(stream.ref[i]), int(stream.arg[i]))}" for i in stream.range(sm)]
                for sm in range(schedule.num_sms)
            ],
        )

    def parse(self) -> Any:
        """The kernel as an operation."""
        programs = [
            f"queue.program sms {sm} to {sm + 1} stream {{ {' '.join(stream)} }} body {{ {' '.join(body)} }}"
            for sm, (body, stream) in enumerate(zip(self.bodies, self.streams, strict=True))
        ]
        return parse(self.head + "\n".join(programs) + "\n}")
