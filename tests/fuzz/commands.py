"""Which tool an input is given to: every pass with good and senseless options, pipelines, `verify`, `replay`, the rest."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from random import Random

from xdsl.passes import ModulePass

from amk.tools.registry import get_all_passes

from .mutate import NUMBERS

STOCK = ("canonicalize", "cse", "dce")
"""xDSL passes that AMK's documentation recommends."""

PIPELINES = {
    "graph": (
        "canonicalize,cse,dce",
        "graph-to-task",
        "graph-to-queue{target=reference sms=2}",
        "graph-to-task,task-to-queue{target=reference sms=2},verify-schedule",
        "graph-to-queue{target=reference sms=3},verify-schedule,expand-queues,verify-schedule",
        "graph-to-queue{target=sm_90a sms=4 handoff=counter},expand-queues",
        "convert-graph-to-task,canonicalize,fuse-into-producer,fuse-into-consumer,tile-tasks",
    ),
    "task": (
        "canonicalize,cse,dce",
        "fuse-into-producer,fuse-into-consumer,tile-tasks,task-to-queue{target=sm_86 sms=2}",
        "task-to-queue{target=reference sms=2},verify-schedule",
        "tile-tasks,place-tasks{target=sm_80 sms=2},insert-sync,plan-stream,verify-schedule",
    ),
    "queue": (
        "canonicalize,cse,dce",
        "expand-queues,expand-queues,verify-schedule",
        "insert-sync{handoff=counter},plan-stream,verify-schedule",
        "plan-stream,expand-queues,verify-schedule",
    ),
}
"""By the dialect that they start from."""

LEVELS = {
    "graph": ("convert-graph-to-task", "graph-to-queue", "graph-to-task"),
    "task": ("fuse-into-consumer", "fuse-into-producer", "place-tasks", "task-to-queue", "tile-tasks"),
    "queue": ("expand-queues", "insert-sync", "plan-stream", "verify-schedule"),
}

TEXT_OPTIONS = {
    "target": ("reference", "sm_80", "sm_86", "sm_90a", "sm_120a", "no-such"),
    "handoff": ("auto", "counter", "tagged"),
    "ops": ("rms_norm", "store,add", "none"),
}


@cache
def passes() -> dict[str, type[ModulePass]]:
    """AMK's passes by name."""
    return {name: get() for name, get in get_all_passes().items()}


def _pass(random: Random, level: str) -> str:
    """A pass with options; mostly one of the level, or one that is in no list."""
    listed = {name for names in LEVELS.values() for name in names}
    fitting = (*LEVELS[level], *STOCK, *(name for name in passes() if name not in listed))
    name = random.choice(fitting if random.random() < 0.85 else (*passes(), *STOCK))
    if name in STOCK:
        return name
    options: list[str] = []
    for field in fields(passes()[name]):
        chance = 0.7 if field.name in ("target", "sms") else 0.2
        if random.random() > chance:
            continue
        if field.name in TEXT_OPTIONS:
            value = random.choice(TEXT_OPTIONS[field.name])
        elif field.name == "sms" and random.random() < 0.9:
            value = str(random.randrange(1, 6))
        else:
            number = random.choice((*(str(n) for n in (1, 2, 3, 4, 8, 16, 512, 1024)), random.choice(NUMBERS)))
            value = number if number.lstrip("-").isdigit() and len(number) < 30 else "7"
        options.append(f"{field.name.replace('_', '-')}={value}")
    return f"{name}{{{' '.join(options)}}}" if options else name


def command(random: Random, text: str) -> list[str]:
    """Tool and arguments for a text; FILE stands for the input, OUT and OUT.mlir for files that may be written."""
    level = "queue" if "queue.kernel" in text else "task" if "task.program" in text else "graph"
    verify = 34 if level == "queue" else 1
    match random.choices(range(8), (12, 5, 26, 12, verify, 5, 2, 1))[0]:
        case 0:
            return ["amk-opt", "FILE"]
        case 1:
            return ["amk-opt", "FILE", "--print-op-generic"]
        case 2:
            return ["amk-opt", "FILE", "-p", _pass(random, level)]
        case 3:
            two = f"{_pass(random, level)},{_pass(random, level)}"
            return ["amk-opt", "FILE", "-p", random.choice((*PIPELINES[level], two))]
        case 4:
            more: list[str] = []
            if random.random() < 0.4:
                more += ["--redundant", "--tries", "5"]
            if random.random() < 0.5:
                more += ["--json"]
            if random.random() < 0.2:
                more += ["--target", random.choice(TEXT_OPTIONS["target"])]
            if random.random() < 0.6:
                more += ["--witness", "OUT"]
            if random.random() < 0.25:
                more += ["--fix", "OUT.mlir"]
            return ["amk", "verify", "FILE", *more]
        case 5:
            return ["amk-opt", "FILE", "-t", "cuda-source"]
        case 6:
            return ["amk-opt", "FILE", "--split-input-file"]
        case _:
            name = random.choice(("info", "import", "compile"))
            return ["amk", name, "FILE", *([] if name == "info" else ["-o", "OUT"])]
