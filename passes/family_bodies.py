"""Small edits of programs and task bodies that the fusions share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Attribute, Block, Operation, SSAValue
from xdsl.rewriter import Rewriter
from xdsl.utils.exceptions import PassFailedException

from ..amk_ir.attrs import AccessAttr
from ..amk_ir.linear import Linear
from ..dialects import task
from .tiling import RULES


def programs(module: ModuleOp) -> tuple[task.ProgramOp, ...]:
    """The task programs of a module."""
    return tuple(op for op in module.ops if isinstance(op, task.ProgramOp))


def steps_have_one_token(module: ModuleOp) -> bool:
    """Whether a step of any task program of a module has a single token."""
    return all(program.tokens.value.data == 1 for program in programs(module))


@dataclass
class ProgramIndex:
    """Who is called where, who reads and who writes what, in one program as it is now."""

    program: task.ProgramOp
    buffers: dict[str, task.BufferOp] = field(init=False)
    families: dict[str, task.FamilyOp] = field(init=False)
    calls: dict[str, list[task.CallOp]] = field(init=False)
    readers: dict[str, list[str]] = field(init=False)
    """Names of the families that read a buffer."""
    writers: dict[str, list[str]] = field(init=False)

    def __post_init__(self) -> None:
        self.buffers = self.program.buffers
        self.families = self.program.families
        self.calls = {name: [] for name in self.families}
        self.readers = {name: [] for name in self.buffers}
        self.writers = {name: [] for name in self.buffers}
        for op in self.program.order.walk():
            if isinstance(op, task.CallOp):
                self.calls[op.family.string_value()].append(op)
        for name, family in self.families.items():
            for buffer in {op.region.buffer for op in family.loads}:
                self.readers[buffer].append(name)
            for buffer in {op.region.buffer for op in family.stores}:
                self.writers[buffer].append(name)

    def only_call(self, family: str) -> task.CallOp | None:
        """The call of a family that is called exactly once."""
        calls = self.calls[family]
        return calls[0] if len(calls) == 1 else None


def insert_before(call: task.CallOp, family: task.FamilyOp, added: task.FamilyOp, *buffers: task.BufferOp) -> None:
    """Adds a family and its call, with equal indices, before `family` and its `call`; and `buffers` after all others."""
    program = family.parent
    assert program is not None and call.parent is not None
    last_buffer = [op for op in program.ops if isinstance(op, task.BufferOp)][-1]
    program.insert_ops_after(buffers, last_buffer)
    program.insert_op_before(added, family)
    call.parent.insert_op_before(task.CallOp(added.sym_name.data, call.indices.data), call)


def kind(op: Operation) -> str:
    """The name of a task op as pass options spell it: `rms_norm`."""
    return op.name.removeprefix("task.")


def check_kinds(pass_name: str, kinds: Sequence[str], *others: str, option: str = "ops") -> None:
    """PassFailedException, which names `option`, unless all `kinds` are names of computing task ops or of `others`."""
    known = sorted(
        {op.name.removeprefix("task.") for op in RULES if op not in (task.LoadOp, task.StreamOp)} | {*others}
    )
    if unknown := [k for k in kinds if k not in known]:
        raise PassFailedException(
            f"{pass_name}: unknown kind '{unknown[0]}' in {option}, expected some of {', '.join(known)}"
        )


def is_before(first: Operation, last: Operation) -> bool:
    """Whether both are in one block, `first` earlier."""
    return first.parent is not None and first.parent is last.parent and first.is_before_in_block(last)


def signature(value: SSAValue) -> tuple[object, ...]:
    """Equal for values of task bodies that are computed alike from the same regions."""
    op = value.owner
    assert isinstance(op, Operation)  # task bodies have no arguments
    properties = tuple(sorted(op.properties.items(), key=lambda item: item[0]))
    return op.name, properties, *(signature(operand) for operand in op.operands)


def clone_before(
    ops: tuple[Operation, ...], target: Operation, indices: Mapping[str, Linear]
) -> dict[SSAValue, SSAValue]:
    """Clones `ops` before `target` with the domain indices of their accesses replaced; old values to new ones."""
    values: dict[SSAValue, SSAValue] = {}
    for op in ops:
        copy = op.clone(values)
        access = copy.properties.get("access")
        if isinstance(access, AccessAttr):
            copy.properties["access"] = AccessAttr(access.data.substitute(indices))
        assert target.parent is not None
        target.parent.insert_op_before(copy, target)
    return values


def merge_duplicates(block: Block) -> None:
    """Removes loads and computations of a task body that an earlier op of it does already.

    A load is not repeated if nothing was stored to its buffer since. xDSL's CSE would stop at every stream.
    """
    known: dict[tuple[object, ...], Operation] = {}
    for op in tuple(block.ops):
        if isinstance(op, task.StoreOp):
            known = {key: o for key, o in known.items() if op.region.buffer not in _buffers_read(o)}
            continue
        if isinstance(op, task.StreamOp):
            continue
        properties: tuple[tuple[str, Attribute], ...] = tuple(sorted(op.properties.items(), key=lambda item: item[0]))
        key = (op.name, tuple(op.operands), properties, tuple(op.result_types))
        if (existing := known.get(key)) is None:
            known[key] = op
        else:
            Rewriter.replace_op(op, [], existing.results)


def _buffers_read(op: Operation) -> set[str]:
    return {op.region.buffer} if isinstance(op, task.LoadOp | task.GatherOp) else set()
