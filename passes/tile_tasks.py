"""`tile-tasks`: split the tasks of a program along the dimensions of what they store."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

from ..amk_ir.access import Dim
from ..amk_ir.attrs import DomainAttr
from ..amk_ir.linear import POSITION, Linear
from ..amk_ir.quantized_type import stream_bits
from ..dialects import task
from .effects import Effects, EffectTable
from .family_bodies import ProgramIndex, programs
from .tiling import NotTileableError, Tile, tiled_body

Domain = tuple[tuple[str, int], ...]

_QUERIES = 8
"""Queries that the attention of one task computes at a time."""
_WEIGHT_BITS = 2**21
"""Bits of the weights of a widened tile, at most: SMs that differ by a task should not differ by much."""
_UNEVEN = 33 / 32
"""How many times the rows of the SM with the most tasks wider tiles may take."""


@dataclass(frozen=True)
class TileTasksPass(ModulePass):
    """Tiles every family that allows it; new domain indices follow the old ones, so calls need not change.

    - with matmuls: along the output rows, so that one task streams `rows` rows of all its weights together (gate and
      up: half each). Of [heads, 2, half] outputs, a task takes `rows / 2` pairs of one head, or whole heads.
      With `sms` > 0, tiles are widened, in steps of `rows` up to `widest`, where the SM with the
      most tasks gets hardly more rows than before: wider tiles cost less a row.
    - attention: one KV head a task; with several tokens, of the heads that share it as many as have 8 queries.
      Other families (embedding, elementwise): `columns` columns.
    - `tasks` > 0: instead, tile sizes such that a family has at most (and about) that many tasks.
    - argmax, norms and what cannot be tiled stay one task. The last tile of a ragged dimension is cut by a limit.
    """

    name = "tile-tasks"

    rows: int = 8
    tasks: int = 0
    columns: int = 64
    widest: int = 32
    sms: int = 0

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        options = (
            ("rows", self.rows, 1),
            ("columns", self.columns, 1),
            ("tasks", self.tasks, 0),
            ("widest", self.widest, 1),
            ("sms", self.sms, 0),
        )
        for option, value, least in options:
            if value < least:
                raise PassFailedException(f"tile-tasks: {option} must be at least {least}, found {value}")
        for program in programs(op):
            index = ProgramIndex(program)
            table = EffectTable(program)
            for name, family in index.families.items():
                bound = {len(call.indices.data) for call in index.calls[name]}
                if bound == {len(family.domain.data)} and _independent(table, family):
                    self._tile(family)

    def _tile(self, family: task.FamilyOp) -> None:
        shapes = {task.shape_of(op.value) for op in family.stores}
        if len(shapes) != 1:
            return  # one tile for all stores needs equal shapes
        (shape,) = shapes
        attention = next((op for op in family.body.block.ops if isinstance(op, task.AttentionOp)), None)
        if attention is not None:
            tile, indices = self._attention_tile(attention)
        else:
            size = self._rows(family, shape[1:]) if family.streams else self.columns
            tile, indices = self._output_tile(shape[1:], size)
        queries, query_indices = ((), ()) if attention is None else self._query_tile(attention)
        indices = (*indices, *query_indices)
        if not indices or {n for n, _ in indices} & {*family.domain.names, POSITION}:
            return
        try:
            body = family.body.block
            if tile:
                body = tiled_body(body, dict.fromkeys(family.stores, (None, *tile)))
            if queries:
                stores = [op for op in body.ops if isinstance(op, task.StoreOp)]
                body = tiled_body(body, dict.fromkeys(stores, (None, *queries)))
        except NotTileableError:
            return
        domain = DomainAttr((*family.domain.data, *indices))
        family.properties["domain"] = domain
        family.body.detach_block(family.body.block).erase()
        family.body.add_block(body)

    def _rows(self, family: task.FamilyOp, shape: tuple[int, ...]) -> int:
        """Rows of each weight of a streaming family that one task takes."""
        streams = len(family.streams)
        least = max(1, self.rows // streams)
        if not self.sms:
            return least

        def most(size: int) -> int:
            """Rows of the SM with the most tasks."""
            _, indices = self._output_tile(shape, size)
            return ceil(prod(extent for _, extent in indices) / self.sms) * size

        length = max(prod(op.region.tile_shape) for op in family.streams) // prod(shape)
        bits = max(stream_bits(op.result.type.get_element_type()) for op in family.streams)
        widest = min(self.widest, _WEIGHT_BITS // (bits * length))
        sizes = [rows // streams for rows in range(self.rows, widest + 1, self.rows) if rows % streams == 0]
        return max((size for size in sizes if most(size) <= most(least) * _UNEVEN), default=least)

    def _output_tile(self, shape: tuple[int, ...], size: int) -> tuple[Tile, Domain]:
        """About `size` elements of an output [columns] or [heads, 2, half], and the indices that number the tiles."""
        match shape:
            case (extent,):
                return _join(_slice("tile", extent, ceil(extent / self.tasks) if self.tasks else size))
            case (heads, 2, half):
                if self.tasks:
                    whole, part = ceil(heads / self.tasks), ceil(half / max(1, self.tasks // heads))
                else:
                    whole, part = max(1, size // (2 * half)), max(1, size // 2)
                if part >= half:
                    return _join(_slice("head", heads, whole), (None, ()), (None, ()))
                return _join(_slice("head", heads, 1), (None, ()), _slice("part", half, part))
            case _:
                return (), ()

    def _attention_tile(self, op: task.AttentionOp) -> tuple[Tile, Domain]:
        heads, kv_heads = task.shape_of(op.q)[1], task.shape_of(op.k)[1]
        least = ceil(kv_heads / self.tasks) if self.tasks else 1
        size = next(d for d in range(least, kv_heads + 1) if kv_heads % d == 0)
        if size == kv_heads:
            return (), ()
        group = heads // kv_heads * size
        tile = (Dim(Linear.of("kv_head") * group, Linear(constant=group)), None, None)
        return tile, (("kv_head", kv_heads // size),)

    def _query_tile(self, op: task.AttentionOp) -> tuple[Tile, Domain]:
        """Of the heads of one KV head, as many as have at most `_QUERIES` queries."""
        tokens, heads, _, _ = task.shape_of(op.q)
        group = heads // task.shape_of(op.k)[1]
        if self.tasks or tokens == 1 or tokens * group <= _QUERIES:
            return (), ()
        size = next(d for d in range(max(1, _QUERIES // tokens), 0, -1) if group % d == 0)
        heads_tile, indices = _slice("query", group, size)
        return (() if heads_tile is None else (heads_tile, None, None)), indices


def _slice(index: str, extent: int, size: int) -> tuple[Dim | None, Domain]:
    """Tiles of `size` elements along a dimension. A single head needs no dimension for heads; others are kept."""
    if size >= extent:
        return None, ()
    count = ceil(extent / size)
    limit = None if extent % size == 0 else extent
    return Dim(Linear.of(index) * size, Linear(constant=size), limit, kept=index != "head" or size > 1), (
        (index, count),
    )


def _join(*dims: tuple[Dim | None, Domain]) -> tuple[Tile, Domain]:
    return tuple(d for d, _ in dims), tuple(entry for _, indices in dims for entry in indices)


def _independent(table: EffectTable, family: task.FamilyOp) -> bool:
    """Whether no task reads what a task of the same call writes, so that tiles may run in any order."""
    indices = [Linear.of(name) for name in family.domain.names]
    effects = table.family(family.sym_name.data, indices)
    ranges = {n: (0, e - 1) for n, e in family.domain.data} | {POSITION: (0, table.holder.max_pos)}
    return not Effects(reads=effects.reads).conflicts(Effects(writes=effects.writes), ranges)
