"""`convert-graph-to-task`: every graph op becomes a family of one task a layer, on whole tensors in buffers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar, cast

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, SymbolRefAttr, TensorType
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.traits import SymbolTable
from xdsl.utils.exceptions import PassFailedException

from ..amk_ir.access import Access, Dim
from ..amk_ir.attrs import BufferKind, CheckpointAttr, RopeFrequenciesAttr
from ..amk_ir.linear import POSITION, Linear
from ..dialects import graph, task
from .names import NameTable

LAYER = "layer"
"""The loop and domain index of `graph.layers`."""

OpT = TypeVar("OpT", bound=Operation)


@dataclass(frozen=True)
class ConvertGraphToTaskPass(ModulePass):
    """Converts each `graph.model` to a `task.program`, one family an op, neither fused nor tiled.

    Values become scratch buffers, with a leading layer dimension inside `graph.layers`; a value carried from layer to
    layer has one slot more than there are layers. Head dimensions are stored as 2 x half.
    """

    name = "convert-graph-to-task"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for model in tuple(op.ops):
            if isinstance(model, graph.ModelOp):
                program = _Conversion(model).convert()
                op.body.block.insert_op_before(program, model)
                # the whole model goes at once: its values are used only inside it
                model.detach()
                model.erase(drop_references=True, safe_erase=False)


def _fail(message: str) -> PassFailedException:
    return PassFailedException(f"convert-graph-to-task: {message}")


def _whole(size: int) -> Dim:
    return Dim(Linear(), Linear(constant=size))


@dataclass(frozen=True)
class _Home:
    """Where a value lives: one slot of a buffer, chosen by the leading single indices `slot`."""

    buffer: str
    slot: tuple[Linear, ...]
    shape: tuple[int, ...]
    """Shape of the slot, tokens first."""
    element_type: Attribute

    @property
    def access(self) -> Access:
        """The whole slot."""
        return Access(self.buffer, (*(Dim(s, kept=False) for s in self.slot), *map(_whole, self.shape)))


def _shape(value: SSAValue) -> tuple[int, ...]:
    return cast(TensorType[Attribute], value.type).get_shape()


def _stored(shape: tuple[int, ...]) -> tuple[int, ...]:
    """How a shape is stored whose last dimension is a head dimension if there are heads: [.., heads, 2, half]."""
    if len(shape) != 2:
        return shape
    heads, head_dim = shape
    if head_dim % 2:
        raise _fail(f"a head dimension is stored as 2 x half and must be even, found {heads} heads of {head_dim}")
    return heads, 2, head_dim // 2


@dataclass
class _Conversion:
    model: graph.ModelOp
    names: NameTable = field(default_factory=NameTable)
    constants: dict[str, task.BufferOp] = field(default_factory=dict[str, task.BufferOp])
    """Buffers of the weights and caches of the model, by their name."""
    buffers: list[task.BufferOp] = field(default_factory=list[task.BufferOp])
    """Buffers of values."""
    families: list[task.FamilyOp] = field(default_factory=list[task.FamilyOp])
    homes: dict[SSAValue, _Home] = field(default_factory=dict[SSAValue, _Home])
    copies: dict[Operation, list[tuple[SSAValue, _Home]]] = field(
        default_factory=dict[Operation, list[tuple[SSAValue, _Home]]]
    )
    """Values to copy to a second home before an op (a loop, a yield or the return) has its turn."""
    layers: int | None = None
    """Number of layers of the `graph.layers` being converted, None outside."""

    def convert(self) -> task.ProgramOp:
        model, step = self.model, self.model.step
        (tokens,) = _shape(step.tokens)
        declared = [op for op in model.body.block.ops if isinstance(op, graph.WeightOp | graph.CacheOp)]
        self.names.reserve(op.sym_name.data for op in declared)
        self.homes[step.tokens] = self._new_home(step.tokens, "token", BufferKind.INPUT)
        self._choose_homes(step.body.block)
        calls = self._convert_block(step.body.block)
        # weights in the order of their declaration; those that nothing uses are dropped
        constants = [b for op in declared if (b := self.constants.get(op.sym_name.data)) is not None]
        order = task.OrderOp(Region(Block(calls)))
        body = Region(Block([*constants, *self.buffers, *self.families, order]))
        return task.ProgramOp(model.sym_name.data, model.max_seq.value.data, tokens, body)

    # ---- buffers ----

    def _new_home(
        self, value: SSAValue, name: str, kind: BufferKind, slot: Linear | None = None, slots: int | None = None
    ) -> _Home:
        """A new buffer for `value`: of `slots` such values, in slot `slot`, or of this value alone."""
        rows, *dims = _shape(value)
        shape = (rows, *_stored(tuple(dims)))
        element_type = cast(TensorType[Attribute], value.type).element_type
        name = self.names.unique(name)
        self.buffers.append(
            task.BufferOp(name, kind, TensorType(element_type, shape if slots is None else (slots, *shape)))
        )
        return _Home(name, () if slot is None else (slot,), shape, element_type)

    def _weight(self, symbol: SymbolRefAttr, shape: tuple[int, ...]) -> tuple[Access, Attribute]:
        """The whole weight (of this layer), stored as `shape`, and its element type."""
        op = self._declared(symbol, graph.WeightOp)
        return self._declared_access(op, BufferKind.WEIGHT, shape, op.source)

    def _cache(self, symbol: SymbolRefAttr) -> tuple[Access, Attribute]:
        """The whole cache (of this layer) and its element type."""
        op = self._declared(symbol, graph.CacheOp)
        rows, *dims = op.type.get_shape()
        return self._declared_access(op, BufferKind.STATE, (rows, *_stored(tuple(dims))), None)

    def _declared(self, symbol: SymbolRefAttr, kind: type[OpT]) -> OpT:
        found = SymbolTable.lookup_symbol(self.model, symbol)
        assert isinstance(found, kind)  # checked by the verifiers of graph
        return found

    def _declared_access(
        self,
        op: graph.WeightOp | graph.CacheOp,
        kind: BufferKind,
        shape: tuple[int, ...],
        source: CheckpointAttr | RopeFrequenciesAttr | None,
    ) -> tuple[Access, Attribute]:
        name, element_type = op.sym_name.data, op.type.get_element_type()
        layers = () if op.layers is None else (op.layers.value.data,)
        stored = TensorType(element_type, (*layers, *shape))
        buffer = self.constants.get(name)
        if buffer is None:
            buffer = self.constants[name] = task.BufferOp(name, kind, stored, source)
        if buffer.type != stored:
            raise _fail(f"@{name} is used both as {buffer.type} and as {stored}; declare it twice")
        slot = [Dim(Linear.of(LAYER), kept=False)] if layers else []
        return Access(name, (*slot, *map(_whole, shape))), element_type

    # ---- homes of carried and returned values ----

    def _choose_homes(self, block: Block) -> None:
        """Homes that are not a buffer of their own: a value that layers carry or the step returns lives there."""
        for op in block.ops:
            if isinstance(op, graph.LayersOp):
                self._choose_carried_homes(op)
        last = block.last_op
        assert isinstance(last, graph.ReturnOp)
        for value, name in ((last.logits, "logits"), (last.next_token, "next_token")):
            self._settle(value, self._new_home(value, name, BufferKind.OUTPUT), last)

    def _choose_carried_homes(self, op: graph.LayersOp) -> None:
        """Layer l reads slot l of the carried buffer and writes slot l + 1; the result is the last slot."""
        count = op.count.value.data
        last = op.body.block.last_op
        assert isinstance(last, graph.YieldOp)
        for argument, init, result, yielded in zip(op.body.block.args, op.inits, op.outs, last.values, strict=True):
            name = init.name_hint or argument.name_hint or "carried"
            first = self._new_home(init, name, BufferKind.SCRATCH, Linear(), count + 1)
            self._settle(init, first, op)
            self.homes[argument] = replace(first, slot=(Linear.of(LAYER),))
            self._settle(yielded, replace(first, slot=(Linear.of(LAYER) + 1,)), last)
            self.homes[result] = replace(first, slot=(Linear(constant=count),))

    def _settle(self, value: SSAValue, home: _Home, user: Operation) -> None:
        """Makes `home` the place where `value` is computed, or has it copied there before `user`.

        Copied is what lives elsewhere already, or is not computed by an op of the same block as `user`.
        """
        owner = value.owner
        computed = (
            isinstance(owner, Operation) and not isinstance(owner, graph.LayersOp) and owner.parent is user.parent
        )
        if computed and value not in self.homes:
            self.homes[value] = home
        else:
            self.copies.setdefault(user, []).append((value, home))

    # ---- calls and families ----

    def _convert_block(self, block: Block) -> list[Operation]:
        """The calls for the ops of `block`; adds their families."""
        calls: list[Operation] = []
        for op in block.ops:
            calls += [self._copy(value, home) for value, home in self.copies.get(op, ())]
            if isinstance(op, graph.LayersOp):
                self.layers = op.count.value.data
                body = self._convert_block(op.body.block)
                calls.append(task.ForOp(LAYER, 0, self.layers, Region(Block(body))))
                self.layers = None
            elif not isinstance(op, graph.YieldOp | graph.ReturnOp):
                calls += self._convert_op(op)
        return calls

    def _add_family(self, name: str, ops: Sequence[Operation]) -> task.CallOp:
        """A family of one task (a layer), and the call of it."""
        name = self.names.unique(name)
        for op in ops:
            if isinstance(op, task.LoadOp | task.StreamOp):
                op.result.name_hint = op.region.buffer
        domain = () if self.layers is None else ((LAYER, self.layers),)
        self.families.append(task.FamilyOp(name, domain, Region(Block(ops))))
        return task.CallOp(name, [Linear.of(index) for index, _ in domain])

    def _home(self, value: SSAValue) -> _Home:
        """The home of a value that an op reads."""
        if (home := self.homes.get(value)) is None:
            raise _fail(f"only attention reads a cache, found a use of '{value.name_hint or value}'")
        return home

    def _result_home(self, value: SSAValue, default: str) -> _Home:
        """The home of a value that an op computes: a buffer of its own if it has none yet."""
        if value not in self.homes:
            slot = None if self.layers is None else Linear.of(LAYER)
            name = value.name_hint or default
            self.homes[value] = self._new_home(value, name, BufferKind.SCRATCH, slot, self.layers)
        return self.homes[value]

    def _load(self, value: SSAValue) -> task.LoadOp:
        home = self._home(value)
        return task.LoadOp(home.access, home.element_type)

    def _copy(self, value: SSAValue, home: _Home) -> task.CallOp:
        load = self._load(value)
        return self._add_family(f"copy_{home.buffer}", [load, task.StoreOp(load.result, home.access)])

    def _convert_op(self, op: Operation) -> list[Operation]:
        kind = op.name.removeprefix("graph.")
        (result,) = op.results
        match op:
            case graph.CacheAppendOp():
                return [self._convert_append(op)]
            case graph.LinearOp(bias=SymbolRefAttr()):
                return self._convert_linear_with_bias(op)
            case graph.LinearOp():
                weight = op.weight.string_value()
                home = self._result_home(result, f"{weight}_out")
                return [self._linear(op, home)]
            case _:
                pass
        body = self._body(op)
        body[-1].results[0].name_hint = result.name_hint
        home = self._result_home(result, f"{kind}_out")
        name = kind if result.name_hint is None else f"{kind}_{result.name_hint}"
        return [self._add_family(name, [*body, task.StoreOp(body[-1].results[0], home.access)])]

    def _linear(self, op: graph.LinearOp, home: _Home) -> task.CallOp:
        shape = (*_stored(_shape(op.result)[1:]), *_stored(_shape(op.x)[1:]))
        access, element_type = self._weight(op.weight, shape)
        x, w = self._load(op.x), task.StreamOp(access, element_type)
        y = task.MatmulOp(x.result, w.result)
        y.result.name_hint = op.result.name_hint
        name = op.result.name_hint or op.weight.string_value().removesuffix("_proj")
        return self._add_family(f"linear_{name}", [x, w, y, task.StoreOp(y.result, home.access)])

    def _convert_linear_with_bias(self, op: graph.LinearOp) -> list[Operation]:
        assert op.bias is not None
        name = op.result.name_hint or op.weight.string_value().removesuffix("_proj")
        slot = None if self.layers is None else Linear.of(LAYER)
        product = self._new_home(op.result, f"{name}_unbiased", BufferKind.SCRATCH, slot, self.layers)
        linear = self._linear(op, product)
        home = self._result_home(op.result, f"{name}_biased")
        access, element_type = self._weight(op.bias, _stored(_shape(op.result)[1:]))
        x, bias = task.LoadOp(product.access, product.element_type), task.LoadOp(access, element_type)
        y = task.BiasAddOp(x.result, bias.result)
        y.result.name_hint = op.result.name_hint
        return [linear, self._add_family(f"bias_add_{name}", [x, bias, y, task.StoreOp(y.result, home.access)])]

    def _convert_append(self, op: graph.CacheAppendOp) -> task.CallOp:
        cache = op.cache.string_value()
        if cache in self.constants:
            raise _fail(f"cache @{cache} is appended to more than once")
        access, _ = self._cache(op.cache)
        rows = Dim(Linear.of(POSITION), Linear(constant=_shape(op.rows)[0]))
        region = _with_positions(access, rows, self.layers)
        load = self._load(op.rows)
        return self._add_family(f"append_{cache}", [load, task.StoreOp(load.result, region)])

    def _load_cache(self, value: SSAValue) -> tuple[task.StreamOp, task.LoadOp]:
        """The rows of a cache that earlier steps appended, and those that this one does."""
        if not isinstance(value.owner, graph.CacheAppendOp):
            raise _fail("attention reads keys and values from graph.cache_append only")
        access, element_type = self._cache(value.owner.cache)
        earlier = Dim(Linear(), Linear.of(POSITION))
        return task.StreamOp(_with_positions(access, earlier, self.layers), element_type), self._load(value.owner.rows)

    def _body(self, op: Operation) -> list[Operation]:
        """The loads of `op` and, last, the op that computes its result."""
        match op:
            case graph.EmbeddingOp():
                ids = self._load(op.ids)
                access, _ = self._weight(op.table, self._declared(op.table, graph.WeightOp).type.get_shape())
                return [ids, task.GatherOp(ids.result, access)]
            case graph.RmsNormOp():
                if len(_shape(op.x)) != 2:
                    raise _fail(f"rms_norm is supported over [T, width], found {op.x.type}")
                access, element_type = self._weight(op.weight, _shape(op.x)[-1:])
                x, weight = self._load(op.x), task.LoadOp(access, element_type)
                return [x, weight, task.RmsNormOp(x.result, weight.result, op.eps.value.data)]
            case graph.RopeOp():
                access, element_type = self._weight(op.frequencies, (_shape(op.x)[-1] // 2,))
                x, frequencies = self._load(op.x), task.LoadOp(access, element_type)
                return [x, frequencies, task.RopeOp(x.result, frequencies.result)]
            case graph.AttentionOp():
                q, (k, k_new), (v, v_new) = self._load(op.q), self._load_cache(op.k), self._load_cache(op.v)
                operands = (q.result, k.result, v.result, k_new.result, v_new.result)
                return [q, k, v, k_new, v_new, task.AttentionOp(*operands, op.scale.value.data)]
            case graph.AddOp() | graph.SiluMulOp():
                lhs, rhs = self._load(op.lhs), self._load(op.rhs)
                kind = task.AddOp if isinstance(op, graph.AddOp) else task.SiluMulOp
                return [lhs, rhs, kind(lhs.result, rhs.result)]
            case graph.ArgmaxOp():
                x = self._load(op.x)
                return [x, task.ArgmaxOp(x.result)]
            case _:
                raise _fail(f"no conversion for '{op.name}'")


def _with_positions(access: Access, positions: Dim, layers: int | None) -> Access:
    """The cache access with its dimension of positions, the first of the layer's slot, replaced."""
    dims = list(access.dims)
    dims[0 if layers is None else 1] = positions
    return Access(access.buffer, tuple(dims))
