"""What the verifier allows and this emitter does not do: refused here, before any source is written.

The verifier proves a schedule for tasks that run one after the other on their SM, each of which reads all it needs before
it writes. The emitter executes the tasks of one run together, their loads shared and hoisted, and publishes tagged words
one by one. Both give the same results unless a task touches what it, or another task of its run, writes. Products of runs
that share their activations may be made together, too; but what each run stores, and reads for that, follows the run before.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...amk_ir.access import Access
from ...amk_ir.attrs import BufferKind
from ...amk_ir.errors import CompileError
from ...amk_ir.linear import POSITION
from ...dialects.queue import KernelOp, RunOp
from ...dialects.task import FamilyOp
from .context import attentions_of


def check_hazards(kernel: KernelOp) -> None:
    """CompileError for runs and families that would not be executed as they were verified."""
    for family in kernel.families.values():
        for store in family.stores:
            tagged = kernel.buffers[store.region.buffer].tagged is not None
            if tagged and any(POSITION in d.start.names | d.size.names for d in store.region.dims):
                raise CompileError(
                    f"family @{family.sym_name.data}: {store.region} stores tagged words that depend on the position: a tag "
                    "is one bit of the epoch, which tells only words apart that every step writes; hand over by a counter"
                )
    for family in kernel.families.values():
        for problem in _family_problems(kernel, family):
            raise CompileError(f"family @{family.sym_name.data}: {problem}")
    for op in kernel.walk():
        if isinstance(op, RunOp):
            family = kernel.families[op.family_name]
            bound = frozenset(family.domain.names[: len(op.indices.data)])
            for load in family.loads:
                for store in family.stores:
                    if may_overlap(load.region, store.region, bound):
                        raise CompileError(
                            f"'queue.run @{op.family_name}': its tasks run together, but {store.region} is stored where "
                            f"{load.region} is loaded; store to another buffer, or to another slot of a leading index "
                            "that the run binds"
                        )


def may_overlap(load: Access, store: Access, bound: frozenset[str]) -> bool:
    """Whether a task may load what it, or another task with the same `bound` indices, stores; True when in doubt."""
    if load.buffer != store.buffer:
        return False
    for a, b in zip(load.dims, store.dims, strict=True):
        distance = b.start - a.start
        same_for_all = distance.is_constant and a.start.names <= bound | {POSITION}
        if same_for_all and a.size.is_constant and distance.constant >= a.size.constant:
            return False
        if same_for_all and b.size.is_constant and -distance.constant >= b.size.constant:
            return False
    return True


def _family_problems(kernel: KernelOp, family: FamilyOp) -> Iterator[str]:
    state = [x.region for x in family.loads if kernel.buffers[x.region.buffer].kind.data is BufferKind.STATE]
    tagged = [x.region for x in family.stores if kernel.buffers[x.region.buffer].tagged is not None]
    if state and tagged and not attentions_of(family):
        yield (
            f"it stores tagged words ({tagged[0]}) while other words of {state[0]} may still be loading, and who reads "
            "the tags may overwrite those; hand over by a counter"
        )
