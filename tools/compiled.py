"""CUDA kernels that are compiled once: the cache in front of NVRTC, and compiled models as folders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp
from xdsl.parser import Parser

from ..amk_ir.errors import ArtifactError
from ..amk_ir.targets import Target
from ..backends.cuda.backend import CudaBackend
from ..backends.cuda.compile import CompiledKernel, CubinCompiler
from ..backends.cuda.nvrtc import Cubin, compile_cubin, nvrtc_version, parse_resources
from ..backends.cuda.pack import packed_weights
from ..frontends.checkpoint import Checkpoint
from ..frontends.import_model import ImportedModel
from ..passes.verify_schedule import VerifiedKernel, verify
from ..runtime.artifacts import Artifact, is_artifact, read_artifact, write_artifact
from ..runtime.backend import Executable, Progress, no_progress
from ..runtime.cache import CompileCache, compiler_fingerprint
from ..runtime.compile import find_kernel, module_text, new_context, plan

PLAN, SOURCE, CUBIN, LOG, WEIGHTS = "plan.mlir", "kernel.cu", "kernel.cubin", "kernel.log", "weights.bin"
_PIECE = 1 << 26


class CachedCompiler:
    """NVRTC behind the compile cache. `compiled`: how many cubins were not found there."""

    def __init__(self, cache: CompileCache | None = None):
        self.cache = cache or CompileCache()
        self.compiled = 0

    def __call__(self, source: str, target: Target, kernel: str) -> Cubin:
        """The cubin of `source`; CompileError as `compile_cubin`, StorageError if it cannot be stored."""
        key = self.cache.key("cubin", source, target.name, kernel, str(nvrtc_version()))
        files = self.cache.get(key)
        if files is not None:
            return stored_cubin(files[CUBIN], files[LOG], kernel)
        cubin = compile_cubin(source, target, kernel)
        self.compiled += 1
        self.cache.put(key, {CUBIN: cubin.image, LOG: cubin.log.encode()})
        return cubin


def stored_cubin(image: bytes, log: bytes, kernel: str) -> Cubin:
    """A cubin from its image and the compiler's log."""
    text = log.decode()
    return Cubin(image, parse_resources(text, kernel), text)


@dataclass(frozen=True)
class CompileResult:
    """What `compile_model` wrote. from_cache: nothing had to be compiled."""

    artifact: Artifact
    from_cache: bool


def compile_model(
    model: ImportedModel,
    target: Target,
    folder: Path,
    *,
    sms: int | None = None,
    with_weights: bool = True,
    progress: Progress = no_progress,
) -> CompileResult:
    """Compiles `model` into `folder`, which appears whole or not at all; needs no GPU.

    A folder that already holds exactly this is checked and left as it is.

    Raises:
        CompileError, ScheduleError, StorageError, ArtifactError, CheckpointError: see the modules below.
    """
    progress("compiling", 0, 2)
    kernel = plan(model.module, target, sms)
    progress("compiling", 1, 2)
    compiler = CachedCompiler()
    compiled = CudaBackend(compiler=compiler).compile(kernel)
    progress("compiling", 2, 2)
    text = module_text(ModuleOp([kernel.kernel.clone()]))
    facts = _facts(model, kernel, compiled, with_weights)
    if is_artifact(folder) and _is_same(existing := read_artifact(folder, progress), facts):
        return CompileResult(existing, from_cache=compiler.compiled == 0)
    files = {
        PLAN: text.encode(),
        SOURCE: compiled.source.encode(),
        CUBIN: compiled.image,
        LOG: compiled.log.encode(),
    }
    contents: dict[str, Any] = dict(files)
    if with_weights and model.checkpoint is not None:
        contents[WEIGHTS] = _bytes_of(packed_weights(compiled.plan, model.checkpoint, progress))
    return CompileResult(write_artifact(folder, facts, contents), from_cache=compiler.compiled == 0)


def _facts(
    model: ImportedModel, kernel: VerifiedKernel, compiled: CompiledKernel, with_weights: bool
) -> dict[str, Any]:
    """What the manifest says of a compiled model: enough to tell whether another compile would be the same."""
    plan, resources = compiled.plan, compiled.resources
    weights = None
    if with_weights and model.checkpoint is not None:
        weights = {
            "bytes": plan.weight_bytes,
            "regions": [[region.parameter, region.offset, region.size] for region in plan.weight_regions],
            "from": _stamps(model.checkpoint),
        }
    return {
        "model": model.name,
        "target": plan.target,
        "sms": plan.grid,
        "threads": plan.threads,
        "max_seq": plan.max_seq,
        "vocab": model.config.vocab,
        "weight_dtype": model.weight_dtype,
        "kv_dtype": model.kv_dtype,
        "registers": resources.registers,
        "shared_memory": plan.dynamic_shared + resources.static_shared,
        "schedule": kernel.digest,
        "amk": compiler_fingerprint(),
        "nvrtc": ".".join(map(str, nvrtc_version())),
        "weights": weights,
    }


def _stamps(checkpoint: Checkpoint) -> dict[str, list[int]]:
    """Size and modification time of the files whose weights were packed."""
    return {str(p.resolve()): [p.stat().st_size, p.stat().st_mtime_ns] for p in checkpoint.files}


def _is_same(artifact: Artifact, facts: Mapping[str, Any]) -> bool:
    return all(artifact.manifest.get(name) == value for name, value in facts.items())


def _bytes_of(pieces: Iterator[NDArray[np.uint8]]) -> Iterator[memoryview]:
    for piece in pieces:
        yield np.ascontiguousarray(piece).data


def load_compiled(folder: Path, progress: Progress = no_progress) -> tuple[Executable, Artifact]:
    """Loads what `compile_model` wrote on this machine's GPU. The plan is verified again before anything is launched.

    Raises:
        ArtifactError: not a compiled model, a changed file, no weights, or one compiled by another version of AMK.
        DeviceError: no GPU, another architecture, or no room.
    """
    artifact = read_artifact(folder, progress)
    if WEIGHTS not in artifact.manifest["files"]:
        raise ArtifactError(f"{folder}: was compiled with --no-weights and cannot be run; compile it with them")
    if artifact.manifest.get("amk") != compiler_fingerprint():  # weights may be packed in another way
        raise ArtifactError(f"{folder}: was compiled by another version of AMK; compile the model again")
    kernel = verify(find_kernel(_parse(artifact.path(PLAN))))
    source = artifact.read(SOURCE).decode()
    compiled = CudaBackend(compiler=_stored_compiler(artifact, source)).compile(kernel)
    if compiled.source != source:
        raise ArtifactError(f"{folder}: {SOURCE} is not the source of {PLAN}; compile the model again")
    weights = np.memmap(artifact.path(WEIGHTS), np.uint8, mode="r")
    pieces = (weights[start : start + _PIECE] for start in range(0, len(weights), _PIECE))
    return CudaBackend().load_packed(kernel, compiled, pieces), artifact


def _stored_compiler(artifact: Artifact, source: str) -> CubinCompiler:
    """A compiler that knows the artifact's cubin, and asks the cache for others: kernels that were tried and spilled."""
    others = CachedCompiler()

    def compiler(wanted: str, target: Target, kernel: str) -> Cubin:
        if wanted == source:
            return stored_cubin(artifact.read(CUBIN), artifact.read(LOG), kernel)
        return others(wanted, target, kernel)

    return compiler


def _parse(path: Path) -> ModuleOp:
    return Parser(new_context(), path.read_text(), str(path)).parse_module()
