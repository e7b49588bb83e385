"""CUDA kernels that are compiled once: the cache in front of NVRTC, and compiled models as folders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.parser import Parser

from ..amk_ir.dtypes import FloatType
from ..amk_ir.errors import ArtifactError
from ..amk_ir.targets import Target
from ..amk_ir.weight_choice import WeightChoice
from ..backends.cuda.backend import CudaBackend
from ..backends.cuda.compile import CompiledKernel, CubinCompiler
from ..backends.cuda.nvrtc import Cubin, compile_cubin, nvrtc_version, parse_resources
from ..backends.cuda.pack import packed_weights
from ..frontends.checkpoint import Checkpoint
from ..frontends.import_model import ImportedModel
from ..passes.verify_schedule import VerifiedKernel, verify
from ..runtime.artifacts import Artifact, file_digest, read_artifact, read_manifest, write_artifact
from ..runtime.backend import Executable, Progress, no_progress
from ..runtime.cache import CompileCache, compiler_fingerprint, digest
from ..runtime.compile import find_kernel, module_text, new_context
from ..runtime.footprint import model_of
from ..runtime.pass_options import PassOptions
from .tuned import Choice, choose_options

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
    """What `compile_model` wrote. from_cache: nothing had to be compiled. choice: the pass options."""

    artifact: Artifact
    from_cache: bool
    choice: Choice


def compile_model(
    model: ImportedModel,
    target: Target,
    folder: Path,
    *,
    sms: int | None = None,
    options: PassOptions | None = None,
    with_weights: bool = True,
    token_loop: bool = False,
    progress: Progress = no_progress,
) -> CompileResult:
    """Compiles `model` into `folder`, which appears whole or not at all; needs no GPU. sms, options: `choose_options`.

    token_loop: make a kernel that can run several steps a launch. A folder that already holds exactly this is checked and
    left as it is; a damaged one is replaced.

    Raises:
        CompileError, ScheduleError, StorageError, ArtifactError, CheckpointError: see the modules below.
    """
    progress("compiling", 0, 2)
    choice = choose_options(model, target, sms=sms, options=options)
    compiler = CachedCompiler()
    with choice.blamed():
        kernel = choice.plan(model, target)
        progress("compiling", 1, 2)
        compiled = CudaBackend(compiler=compiler, token_loop=token_loop).compile(kernel)
    progress("compiling", 2, 2)
    text = module_text(ModuleOp([kernel.kernel.clone()]))
    facts = _facts(model, kernel, compiled, with_weights, progress) | {"options": dict(choice.options)}
    if (existing := _intact(folder, progress)) is not None and _is_same(existing, facts):
        return CompileResult(existing, compiler.compiled == 0, choice)
    files = {
        PLAN: text.encode(),
        SOURCE: compiled.source.encode(),
        CUBIN: compiled.image,
        LOG: compiled.log.encode(),
    }
    contents: dict[str, Any] = dict(files)
    if with_weights and model.checkpoint is not None:
        contents[WEIGHTS] = _bytes_of(packed_weights(compiled.plan, model.checkpoint, progress))
    return CompileResult(write_artifact(folder, facts, contents), compiler.compiled == 0, choice)


def _facts(
    model: ImportedModel, kernel: VerifiedKernel, compiled: CompiledKernel, with_weights: bool, progress: Progress
) -> dict[str, Any]:
    """What the manifest says of a compiled model: enough to tell whether another compile would be the same."""
    plan, resources = compiled.plan, compiled.resources
    weights = None
    if with_weights and model.checkpoint is not None:
        weights = {
            "bytes": plan.weight_bytes,
            "regions": [[region.parameter, region.offset, region.size] for region in plan.weight_regions],
            "from": _stamps(model.checkpoint, progress),
        }
    return {
        "model": model.name,
        "graph": _graph_digest(model),
        "target": plan.target,
        "sms": plan.grid,
        "threads": plan.threads,
        "max_seq": plan.max_seq,
        "vocab": model.config.vocab,
        "weight_dtype": model.weight_dtype,
        "quantization": model.quantization.as_json(),
        "importance": _importance_digest(model.checkpoint) if with_weights else None,
        "kv_dtype": model.kv_dtype,
        "registers": resources.registers,
        "shared_memory": plan.dynamic_shared + resources.static_shared,
        "token_loop": plan.token_loop is not None,
        "schedule": kernel.digest,
        "amk": compiler_fingerprint(),
        "nvrtc": ".".join(map(str, nvrtc_version())),
        "weights": weights,
    }


def _importance_digest(checkpoint: Checkpoint | None) -> str | None:
    """Of the file that decided, beside the checkpoint, how its matrices are quantised; None if there is none."""
    file = None if checkpoint is None else checkpoint.importance_file
    return None if file is None else file_digest(file)


def _graph_digest(model: ImportedModel) -> str:
    """Of the model in the graph dialect: its mathematics, shapes, dtypes and the names of its weights. Not of its own
    name, which is that of its folder."""
    module = model.module.clone()
    model_of(module).properties["sym_name"] = StringAttr("model")
    return digest(module_text(module).encode())


def _stamp(path: Path) -> list[int]:
    return [path.stat().st_size, path.stat().st_mtime_ns]


def _stamps(checkpoint: Checkpoint, progress: Progress) -> dict[str, list[int | str]]:
    """Size, modification time and SHA-256 of the files whose weights were packed."""
    found: dict[str, list[int | str]] = {}
    for done, path in enumerate(checkpoint.files):
        progress("checking weights", done, len(checkpoint.files))
        found[str(path.resolve())] = [*_stamp(path), file_digest(path)]
    progress("checking weights", len(checkpoint.files), len(checkpoint.files))
    return found


def _intact(folder: Path, progress: Progress) -> Artifact | None:
    """The compiled model in `folder`, if there is one and it is as it was written."""
    try:
        return read_artifact(folder, progress)
    except ArtifactError:
        return None


def _is_same(artifact: Artifact, facts: Mapping[str, Any]) -> bool:
    return all(artifact.manifest.get(name) == value for name, value in facts.items())


def _bytes_of(pieces: Iterator[NDArray[np.uint8]]) -> Iterator[memoryview]:
    for piece in pieces:
        yield np.ascontiguousarray(piece).data


@dataclass(frozen=True)
class Chosen:
    """What was chosen when a model was compiled, and how the model has to be imported to be the same."""

    weight_dtype: FloatType
    kv_dtype: FloatType
    max_seq: int
    quantization: WeightChoice


def read_compiled(folder: Path) -> Chosen:
    """The choices in the manifest of a compiled model; ArtifactError if it has none, or another version of AMK made it."""
    manifest = read_manifest(folder)
    _check_version(folder, manifest)
    match manifest:
        case {"weight_dtype": "f32" | "bf16" as weights, "kv_dtype": "f32" | "bf16" as kv, "max_seq": int(max_seq)}:
            if (choice := WeightChoice.from_json(manifest.get("quantization"))) is not None:
                return Chosen(weights, kv, max_seq, choice)
        case _:
            pass
    raise ArtifactError(
        f"{folder}: its manifest lacks weight_dtype, kv_dtype, max_seq or quantization; compile it again"
    )


def _check_version(folder: Path, manifest: Mapping[str, Any]) -> None:
    if manifest.get("amk") != compiler_fingerprint():  # weights may be packed in another way
        raise ArtifactError(f"{folder}: was compiled by another version of AMK; compile the model again")


def check_model(folder: Path, manifest: Mapping[str, Any], model: ImportedModel) -> None:
    """Whether `folder` was compiled from `model`: the same graph, and weight files of the same content.

    Files of other names, places or times are read to find out. Raises ArtifactError, which says what differs.
    """
    again = f"compile {model.name} again, or give the model that was compiled"
    if manifest.get("graph") != _graph_digest(model):
        was = manifest.get("model")
        found = f"another graph than that of {was} now" if was == model.name else f"{was}, not from {model.name}"
        raise ArtifactError(f"{folder}: was compiled from {found} (the graphs differ); {again}")
    match manifest.get("weights"):
        case {"from": dict(stamps)}:
            files = {str(name): stamp if isinstance(stamp, list) else [] for name, stamp in stamps.items()}
        case _:
            raise ArtifactError(f"{folder}: its manifest does not say whose weights it has; {again}")
    given = () if model.checkpoint is None else model.checkpoint.files
    if all(files.get(str(path.resolve()), [])[:2] == _stamp(path) for path in given) and len(given) == len(files):
        return
    known = {stamp[2] for stamp in files.values() if len(stamp) == 3}
    for path in given:
        if file_digest(path) not in known:
            raise ArtifactError(f"{folder}: was compiled from other weights than those in {path}; {again}")
    if len(given) != len(files):
        raise ArtifactError(
            f"{folder}: was compiled from {len(files)} weight files, {model.name} has {len(given)}; {again}"
        )


def load_compiled(
    folder: Path,
    progress: Progress = no_progress,
    model: ImportedModel | None = None,
    needs_token_loop: bool = False,
) -> tuple[Executable, Artifact]:
    """Loads what `compile_model` wrote on this machine's GPU. The plan is verified again before anything is launched.

    needs_token_loop: whether launches will run several steps.

    Raises:
        ArtifactError: not a compiled model, a changed file, no weights, one compiled by another version of AMK, or
            from another model than `model`, or without the token loop that is needed.
        DeviceError: no GPU, another architecture, or no room.
    """
    artifact = read_artifact(folder, progress)
    if WEIGHTS not in artifact.manifest["files"]:
        raise ArtifactError(f"{folder}: was compiled with --no-weights and cannot be run; compile it with them")
    _check_version(folder, artifact.manifest)
    if model is not None:
        check_model(folder, artifact.manifest, model)
    token_loop = artifact.manifest.get("token_loop") is True
    if needs_token_loop and not token_loop:
        raise ArtifactError(
            f"{folder}: was compiled for one step a launch; compile it with --token-loop, or leave --steps-per-launch out"
        )
    kernel = verify(find_kernel(_parse(artifact.path(PLAN))))
    source = artifact.read(SOURCE).decode()
    compiled = CudaBackend(compiler=_stored_compiler(artifact, source), token_loop=token_loop).compile(kernel)
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
