"""What the fuzzers start from: the chunks of the lit tests, and kernels lowered from a tiny model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from io import StringIO
from pathlib import Path

from xdsl.dialects.builtin import ModuleOp
from xdsl.parser import Parser
from xdsl.passes import PassPipeline
from xdsl.printer import Printer
from xdsl.utils.exceptions import DiagnosticException, ParseError, UnregisteredConstructException

from amk.passes.expand_queues import ExpandQueuesPass
from amk.passes.graph_to_queue import GraphToQueuePass
from amk.passes.graph_to_task import GraphToTaskPass
from amk.runtime.compile import module_text, new_context

LIT = Path(__file__).parents[1] / "lit"

TARGETS = (("reference", 2), ("sm_80", 3), ("sm_90a", 4))
"""(target, SMs) of the lowered kernels."""


@cache
def seeds() -> tuple[str, ...]:
    """All seeds in custom syntax, in a fixed order. Some are invalid on purpose."""
    return (*lit_chunks(), *lowered())


@cache
def lit_chunks() -> tuple[str, ...]:
    """Every chunk of every lit file, without its comments."""
    found: dict[str, None] = {}
    for file in sorted(LIT.rglob("*.mlir")):
        for chunk in file.read_text(encoding="utf-8").split("// -----"):
            text = re.sub(r"^\s*//.*\n", "", chunk, flags=re.MULTILINE).strip() + "\n"
            if len(text) > 1:
                found[text] = None
    return tuple(found)


@cache
def lowered() -> tuple[str, ...]:
    """The model of the lit tests as tasks, and as compact and explicit kernels of a few SMs."""
    return tuple(_lowered())


def _lowered() -> Iterator[str]:
    context = new_context()
    model = Parser(context, (LIT / "passes/Inputs/tiny_llama.mlir").read_text(encoding="utf-8")).parse_module()
    tasks = model.clone()
    PassPipeline((GraphToTaskPass(),)).apply(context, tasks)
    yield module_text(tasks)
    for target, sms in TARGETS:
        kernel = model.clone()
        PassPipeline((GraphToQueuePass(target=target, sms=sms),)).apply(context, kernel)
        yield module_text(kernel)
        PassPipeline((ExpandQueuesPass(),)).apply(context, kernel)
        yield module_text(kernel)


@cache
def valid() -> tuple[int, ...]:
    """The numbers of the seeds that are valid IR."""
    return tuple(number for number in range(len(seeds())) if _module(seeds()[number]) is not None)


def _module(text: str) -> ModuleOp | None:
    try:
        module: ModuleOp = Parser(new_context(), text).parse_module()
        module.verify()
    except (ParseError, DiagnosticException, UnregisteredConstructException):
        return None
    return module


@cache
def generic(seed: int) -> str:
    """A seed in generic syntax; as it is where it is not valid."""
    text = seeds()[seed]
    if (module := _module(text)) is None:
        return text
    out = StringIO()
    Printer(stream=out, print_generic_format=True).print_op(module)
    return out.getvalue() + "\n"
