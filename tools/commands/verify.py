"""Prove that a schedule is safe in every execution, or say what is wrong. docs/verify.md has an example.

Exit status: 0 all kernels of the file are safe (with --fix, those that it writes), 2 one is not."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..progress import ProgressBar
from .kernel_file import read_kernels
from .options import positive

if TYPE_CHECKING:
    from xdsl.ir import Operation

    from ...dialects.queue import KernelOp
    from ...dialects.schedule import Schedule
    from ...passes.verifier import Diagnostic
    from ...passes.verifier.redundancy import RedundantWaits

NAME = "verify"
HELP = "prove a schedule (.mlir) safe, or say what is wrong"

VERSION = 1
"""Of what --json prints."""

MAX_LINES = 40
"""Lines about what --fix added; a person reads no more."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE.mlir", type=Path, help="a file with queue.kernels")
    parser.add_argument(
        "--target", metavar="TARGET", help="check against this target, not the one that the kernel names"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON (docs/verify.md)")
    parser.add_argument(
        "--witness", metavar="FILE", type=Path, help="write an execution that goes wrong, for amk replay"
    )
    parser.add_argument(
        "--redundant", action="store_true", help="of a safe schedule: list waits that could be left out, each alone"
    )
    parser.add_argument(
        "--tries", metavar="N", type=positive, default=1000, help="waits to try with --redundant (default: 1000)"
    )

    parser.add_argument(
        "--fix",
        metavar="OUT.mlir",
        type=Path,
        help="add the waits and signals that a schedule with races lacks, and write the safe schedule",
    )


def run(args: argparse.Namespace) -> int:
    from ...amk_ir.errors import UsageError
    from ...amk_ir.targets import TARGETS

    if args.target is not None and args.target not in TARGETS:
        raise UsageError(f"--target: expected one of {', '.join(TARGETS)}, found '{args.target}'")
    try:
        kernels = read_kernels(args.file)
    except (UsageError, OSError) as e:
        if args.json:
            reason = f"{args.file}: {e.strerror}" if isinstance(e, OSError) else str(e)
            print(json.dumps(_report(args.file, [], reason), indent=2))
        raise
    with ProgressBar() as progress:
        results = [_verify(kernel, args, progress) for kernel in kernels]
    if args.json:
        print(json.dumps(_report(args.file, results), indent=2))
    else:
        for result in results:
            print("\n".join(_text(args.file, result)))
    if args.witness is not None:
        _write_witness(args.witness, results)
    if args.fix is not None and all(r["fix"]["safe"] for r in results):
        _write_module(args.fix, kernels[0])
        return 0
    return 0 if all(r["accepted"] for r in results) else 2


def _report(file: Path, results: list[dict[str, Any]], error: str | None = None) -> dict[str, Any]:
    accepted = error is None and all(r["accepted"] for r in results)
    return {"amk_verify": VERSION, "file": str(file), "accepted": accepted, "error": error, "kernels": results}


def _verify(kernel: KernelOp, args: argparse.Namespace, progress: ProgressBar) -> dict[str, Any]:
    """The entry of a kernel in the report."""
    from xdsl.dialects.builtin import StringAttr

    from ...dialects.schedule import Schedule
    from ...passes.verifier import check_schedule
    from ...passes.verifier.check import content_hash
    from ...passes.verifier.redundancy import redundant_waits

    own = kernel.properties["target"]
    if args.target is not None:
        kernel.properties["target"] = StringAttr(args.target)
    start = time.perf_counter()
    schedule = Schedule.from_kernel(kernel)
    diagnostics = check_schedule(schedule)
    seconds = time.perf_counter() - start
    redundant = redundant_waits(schedule, args.tries, progress) if args.redundant and not diagnostics else None
    target = kernel.target.data
    kernel.properties["target"] = own  # a witness is of the kernel in the file
    result = {
        "kernel": kernel.sym_name.data,
        "digest": content_hash(kernel),
        "target": target,
        "accepted": not diagnostics,
        "seconds": round(seconds, 6),
        "counts": _counts(schedule),
        "diagnostics": [_diagnostic(d) for d in diagnostics],
        "redundant": None if redundant is None else _redundant(redundant),
        "fix": None,
    }
    if args.fix is not None:  # last: it changes the kernel
        kernel.properties["target"] = StringAttr(target)
        result["fix"] = _fix(kernel)
        kernel.properties["target"] = own
    return result


def _fix(kernel: KernelOp) -> dict[str, Any]:
    """Makes a kernel safe, and says what that took or why it cannot be done."""
    from xdsl.utils.exceptions import PassFailedException

    from ...passes.insert_missing_sync import insert_missing_sync

    try:
        edit = insert_missing_sync(kernel)
    except PassFailedException as e:
        return {"safe": False, "counters": 0, "signals": 0, "waits": 0, "added": [], "refused": str(e)}
    return {
        "safe": True,
        "counters": len(edit.counters),
        "signals": len(edit.signals),
        "waits": len(edit.waits),
        "added": list(edit.describe()),
        "refused": None,
    }


def _counts(schedule: Schedule) -> dict[str, int]:
    from ...dialects.schedule import EventKind

    kinds = schedule.body.kind
    return {
        "sms": schedule.num_sms,
        "tasks": int((kinds == EventKind.RUN).sum()),
        "waits": int((kinds == EventKind.WAIT).sum()),
        "signals": int((kinds == EventKind.SIGNAL).sum()),
        "events": len(kinds),
        "fetches": len(schedule.stream),
        "counters": len(schedule.counters),
    }


def _diagnostic(d: Diagnostic) -> dict[str, Any]:
    witness = d.witness
    if witness is not None:
        without = None
    elif d.failure is None:
        without = "it is not the order of execution that is wrong"
    else:
        without = (
            "none was found; the rejection may be one that is not exact (docs/semantics.md), or too large to search"
        )
    return {
        "rule": d.rule.value,
        "message": d.message,
        "execution": d.execution,
        "remedy": d.remedy,
        "occurrences": d.occurrences,
        "ops": [str(op) for op in dict.fromkeys(d.ops) if not op.regions],
        "sms": list(d.sms),
        "tasks": list(d.tasks),
        "regions": list(d.regions),
        "text": str(d),
        "witness": None if witness is None else witness.to_json(),
        "no_witness": without,
    }


def _redundant(found: RedundantWaits) -> dict[str, Any]:
    waits = [{"op": str(w.op), "events": w.events, "sm": w.sm, "event": w.event} for w in found.waits]
    return {"waits": waits, "tried": found.tried, "total": found.total}


def _text(file: Path, result: dict[str, Any]) -> list[str]:
    counts, name = result["counts"], f"{file}: schedule @{result['kernel']}"
    if result["accepted"]:
        lines = [
            f"{name} is safe on {result['target']}: {counts['tasks']:,} tasks, {counts['events']:,} events, "
            f"{counts['sms']} SMs; decided in {result['seconds']:.2f} s"
        ]
        if (found := result["redundant"]) is not None:
            lines.append(f"  {len(found['waits'])} of {found['tried']} waits could be left out, each alone")
            if found["tried"] < found["total"]:
                lines.append(f"  {found['total'] - found['tried']} waits were not tried (--tries {found['total']})")
            lines += [
                f"  `{w['op']}`: {w['events']:,} events, the first is SM {w['sm']}, event {w['event']}"
                for w in found["waits"]
            ]
        return lines + _fix_text(result["fix"])
    lines = [f"{name} is rejected"]
    for d in result["diagnostics"]:
        lines.append(d["text"])
        if (witness := d["witness"]) is not None:
            events = sum(count for order in witness["orders"] for _, count in order)
            lines.append(f"  witness: {events:,} event{'s' * (events != 1)}, {witness['failure']}")
        else:
            lines.append(f"  witness: none: {d['no_witness']}")
    return lines + _fix_text(result["fix"])


def _fix_text(fix: dict[str, Any] | None) -> list[str]:
    """What --fix did to a kernel; nothing without --fix."""
    from ...passes.verifier.diagnostics import plural

    if fix is None:
        return []
    if not fix["safe"]:
        return [f"not fixed: {fix['refused'].splitlines()[0]}"]
    if not fix["added"]:
        return ["fixed: nothing to add"]
    counts = [plural(fix[f"{noun}s"], noun) for noun in ("counter", "signal", "wait")]
    lines = [f"fixed: added {', '.join(counts)}", *(f"  {line}" for line in fix["added"][:MAX_LINES])]
    if len(fix["added"]) > MAX_LINES:
        lines.append(f"  and {len(fix['added']) - MAX_LINES} more (--json lists them)")
    return lines


def _write_module(path: Path, op: Operation) -> None:
    """The module around an operation, as text."""
    from ...runtime.files import write_atomically

    while (parent := op.parent_op()) is not None:
        op = parent
    write_atomically(path, f"{op!s}\n".encode())


def _write_witness(path: Path, results: list[dict[str, Any]]) -> None:
    """The first witness of all diagnostics."""
    import sys

    from ...passes.verifier import Witness
    from ...runtime.files import write_atomically

    found = [d["witness"] for r in results for d in r["diagnostics"] if d["witness"] is not None]
    if found:
        text = Witness.from_text(json.dumps(found[0])).to_text()
        write_atomically(path, text.encode())
    elif any(not r["accepted"] for r in results):
        print(f"amk: no witness was written to {path}: no rejection has one", file=sys.stderr)
