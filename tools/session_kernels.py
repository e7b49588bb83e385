"""The kernels of a session: made from a model, written as files, and made again from those."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from xdsl.dialects.builtin import ModuleOp
from xdsl.parser import Parser
from xdsl.utils.exceptions import ParseError, VerifyException

from ..amk_ir.errors import ArtifactError, CompileError, UsageError
from ..amk_ir.targets import Target
from ..backends.cuda.backend import CudaBackend, Pair, SessionKernels
from ..backends.cuda.compile import CubinCompiler
from ..backends.cuda.nvrtc import Cubin, parse_resources
from ..frontends.import_model import ImportedModel
from ..passes.verify_schedule import VerifiedKernel, verify
from ..runtime.backend import Progress
from ..runtime.compile import find_kernel, module_text, new_context
from .compiled_folder import CUBIN, LOG, PLAN, SOURCE, Role, SessionShape, file_of
from .tuned import Choice


def build(
    choice: Choice,
    model: ImportedModel,
    target: Target,
    shape: SessionShape,
    compiler: CubinCompiler,
    progress: Progress,
) -> SessionKernels:
    """Lowers, verifies and compiles the kernels of `shape`. Raises as `runtime.compile.plan` and `compile_session`."""
    steps = len(shape.roles) + 1
    plans: dict[Role, VerifiedKernel] = {}
    with choice.blamed():
        for done, role in enumerate(shape.roles):
            progress("compiling", done, steps)
            plans[role] = (
                choice.plan_chunk(model, target, shape.chunk)
                if role == "chunk"
                else (choice.plan_far if role == "far" else choice.plan)(model, target)
            )
        progress("compiling", steps - 1, steps)
        backend = CudaBackend(compiler=compiler, token_loop=shape.token_loop)
        kernels = backend.compile_session(plans["step"], plans.get("chunk"), plans.get("far"))
    progress("compiling", steps, steps)
    return kernels


def pairs(kernels: SessionKernels) -> dict[Role, Pair]:
    """The kernels that there are."""
    found: dict[Role, Pair | None] = {"step": kernels.step, "far": kernels.far, "chunk": kernels.chunk}
    return {role: pair for role, pair in found.items() if pair is not None}


def files_of(kernels: SessionKernels) -> dict[str, bytes]:
    """The files of all kernels in a compiled folder."""
    files: dict[str, bytes] = {}
    for role, (kernel, compiled) in pairs(kernels).items():
        files |= {
            file_of(role, PLAN): module_text(ModuleOp([kernel.kernel.clone()])).encode(),
            file_of(role, SOURCE): compiled.source.encode(),
            file_of(role, CUBIN): compiled.image,
            file_of(role, LOG): compiled.log.encode(),
        }
    return files


def facts_of(kernels: SessionKernels) -> dict[str, Any]:
    """What a manifest says of the kernels: JSON values."""
    plan = kernels.step[1].plan
    return {
        "target": plan.target,
        "sms": plan.grid,
        "threads": plan.threads,
        "max_seq": plan.max_seq,
        "kernels": {
            role: {
                "schedule": kernel.digest,
                "tokens": compiled.plan.tokens,
                "registers": compiled.resources.registers,
                "shared_memory": compiled.plan.dynamic_shared + compiled.resources.static_shared,
            }
            for role, (kernel, compiled) in pairs(kernels).items()
        },
        "weight_bytes": plan.weight_bytes,
        "weight_regions": [[region.parameter, region.offset, region.size] for region in plan.weight_regions],
    }


def check_facts(kernels: SessionKernels, manifest: Mapping[str, Any], folder: str) -> None:
    """ArtifactError unless `manifest` says of each of the kernels what they are: their schedules, and where they run."""
    facts = facts_of(kernels)
    said = manifest.get("kernels")
    for role, expected in facts["kernels"].items():
        if not isinstance(said, dict) or said.get(role) != expected:
            raise ArtifactError(
                f"{folder}: its manifest does not describe {file_of(role, PLAN)}; compile the model again"
            )
    for name in ("target", "sms", "threads", "max_seq"):
        if manifest.get(name) != facts[name]:
            raise ArtifactError(
                f"{folder}: its manifest says {name} {manifest.get(name)!r}, its kernels {facts[name]!r}; compile the model again"
            )


def restore(read: Callable[[str], bytes], shape: SessionShape, folder: str, others: CubinCompiler) -> SessionKernels:
    """The kernels of `shape` from the files that `read` returns by name, their plans verified again. Needs no GPU.

    folder: what errors name. others: compiles attempts that were given up for their spills.

    Raises:
        ArtifactError: a plan that cannot be read, a source that is not that of its plan, kernels of different models or
            options, or one of another kind than `shape` says.
        ScheduleError: the verifier rejects a plan.
    """
    plans = {role: _read_plan(read(file_of(role, PLAN)), f"{folder}/{file_of(role, PLAN)}") for role in shape.roles}
    stored = {
        _text(read, file_of(role, SOURCE), folder): (
            read(file_of(role, CUBIN)),
            _text(read, file_of(role, LOG), folder),
        )
        for role in shape.roles
    }

    def compiler(source: str, target: Target, kernel: str) -> Cubin:
        if source in stored:
            image, log = stored[source]
            return Cubin(image, parse_resources(log, kernel), log)
        return others(source, target, kernel)

    backend = CudaBackend(compiler=compiler, token_loop=shape.token_loop)
    try:
        kernels = backend.compile_session(plans["step"], plans.get("chunk"), plans.get("far"))
    except (CompileError, UsageError) as e:
        raise ArtifactError(f"{folder}: its kernels do not belong together: {e}; compile the model again") from e
    for role, (_, compiled) in pairs(kernels).items():
        if compiled.source.encode() != read(file_of(role, SOURCE)):
            raise ArtifactError(
                f"{folder}: {file_of(role, SOURCE)} is not the source of {file_of(role, PLAN)}; compile the model again"
            )
    if kernels.chunk is not None and (tokens := kernels.chunk[1].plan.tokens) != shape.chunk:
        raise ArtifactError(
            f"{folder}: expected a kernel of {shape.chunk} tokens in {file_of('chunk', PLAN)}, found {tokens}; compile the "
            "model again"
        )
    return kernels


def _text(read: Callable[[str], bytes], name: str, folder: str) -> str:
    try:
        return read(name).decode()
    except UnicodeDecodeError as e:
        raise ArtifactError(
            f"{folder}/{name}: is no text ({e.reason} at byte {e.start}); compile the model again"
        ) from e


def _read_plan(content: bytes, name: str) -> VerifiedKernel:
    try:
        module = Parser(new_context(), content.decode(), name).parse_module()
        module.verify()
        kernel = find_kernel(module)
    except (ParseError, VerifyException, UnicodeDecodeError, CompileError) as e:
        reason = str(e).strip().splitlines()[-1]
        raise ArtifactError(f"{name}: is no plan of a kernel ({reason}); compile the model again") from e
    return verify(kernel)
