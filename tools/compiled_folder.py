"""What a compiled folder holds, and what its manifest says: names of files, kernels, model and weights. Imports no backend.

A folder has one to three kernels, which share `weights.bin` and the layout of the KV cache:

| kernel | files | when it runs |
|---|---|---|
| step | plan.mlir, kernel.cu, kernel.cubin, kernel.log | one token |
| far | far.plan.mlir, far.kernel.cu, ... | in place of `step` from a position on |
| chunk | chunk.plan.mlir, chunk.kernel.cu, ... | several tokens of a prompt |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from xdsl.dialects.builtin import StringAttr

from ..amk_ir.dtypes import FloatType
from ..amk_ir.errors import ArtifactError
from ..amk_ir.weight_choice import WeightChoice
from ..frontends.checkpoint import Checkpoint
from ..frontends.import_model import ImportedModel
from ..runtime.artifacts import KERNEL_FILES, KERNEL_PREFIXES, file_digest, read_manifest
from ..runtime.backend import Progress
from ..runtime.cache import compiler_fingerprint, digest
from ..runtime.compile import module_text
from ..runtime.footprint import model_of

Role: TypeAlias = Literal["step", "far", "chunk"]
ROLES: tuple[Role, ...] = ("step", "far", "chunk")
PLAN, SOURCE, CUBIN, LOG = KERNEL_FILES
WEIGHTS = "weights.bin"


def file_of(role: Role, name: str) -> str:
    """The file called `name` of the kernel `role`."""
    return KERNEL_PREFIXES[role] + name


@dataclass(frozen=True)
class SessionShape:
    """The kernels that a session has.

    token_loop: they can run several steps a launch. chunk: tokens of a prompt that one of them takes at once; 1: none does.
    far_from: position from which the kernel for long contexts is used, None if there is none.
    """

    token_loop: bool = False
    chunk: int = 1
    far_from: int | None = None

    @property
    def roles(self) -> tuple[Role, ...]:
        return tuple(r for r in ROLES if r == "step" or (self.chunk > 1 if r == "chunk" else self.far_from is not None))


@dataclass(frozen=True)
class Chosen:
    """What was chosen when a model was compiled, and how the model has to be imported to be the same."""

    weight_dtype: FloatType
    kv_dtype: FloatType
    max_seq: int
    quantization: WeightChoice
    shape: SessionShape


def read_compiled(folder: Path) -> Chosen:
    """The choices in the manifest of a compiled model; ArtifactError if it has none, or another version of AMK made it."""
    manifest = read_manifest(folder)
    check_version(folder, manifest)
    match manifest:
        case {"weight_dtype": "f32" | "bf16" as weights, "kv_dtype": "f32" | "bf16" as kv, "max_seq": int(max_seq)}:
            if (choice := WeightChoice.from_json(manifest.get("quantization"))) is not None:
                return Chosen(weights, kv, max_seq, choice, shape_of(folder, manifest))
        case _:
            pass
    raise ArtifactError(
        f"{folder}: its manifest lacks weight_dtype, kv_dtype, max_seq or quantization; compile it again"
    )


def shape_of(folder: Path, manifest: Mapping[str, Any]) -> SessionShape:
    """The kernels that a folder says to have; ArtifactError if it does not say it, or lacks a file of one."""
    match manifest:
        case {
            "token_loop": bool(token_loop),
            "chunk": int(chunk),
            "far_from": int() | None as far_from,
            "kernels": dict(kernels),
            "files": dict(files),
        } if chunk >= 1 and (far_from is None or far_from >= 1):
            shape = SessionShape(token_loop, chunk, far_from)
        case _:
            raise ArtifactError(
                f"{folder}: its manifest lacks token_loop, chunk, far_from or kernels; compile it again"
            )
    if set(kernels) != set(shape.roles):
        raise ArtifactError(
            f"{folder}: expected the kernels {', '.join(shape.roles)}, its manifest names {', '.join(kernels) or 'none'}; "
            "compile it again"
        )
    for role in shape.roles:
        for name in KERNEL_FILES:
            if file_of(role, name) not in files:
                raise ArtifactError(f"{folder}: has no {file_of(role, name)}, part of kernel {role}; compile it again")
    return shape


def check_version(folder: Path, manifest: Mapping[str, Any]) -> None:
    """ArtifactError if another version of AMK made `folder`: weights may be packed in another way."""
    if manifest.get("amk") != compiler_fingerprint():
        raise ArtifactError(f"{folder}: was compiled by another version of AMK; compile the model again")


def graph_digest(model: ImportedModel) -> str:
    """Of the model in the graph dialect: its mathematics, shapes, dtypes and the names of its weights. Not of its own
    name, which is that of its folder."""
    module = model.module.clone()
    model_of(module).properties["sym_name"] = StringAttr("model")
    return digest(module_text(module).encode())


def weight_stamps(checkpoint: Checkpoint, progress: Progress) -> dict[str, list[int | str]]:
    """Size, modification time and SHA-256 of the files whose weights were packed."""
    found: dict[str, list[int | str]] = {}
    for done, path in enumerate(checkpoint.files):
        progress("checking weights", done, len(checkpoint.files))
        found[str(path.resolve())] = [*_stamp(path), file_digest(path)]
    progress("checking weights", len(checkpoint.files), len(checkpoint.files))
    return found


def importance_digest(checkpoint: Checkpoint) -> str | None:
    """Of the file that decided, beside the checkpoint, how its matrices are quantised; None if there is none."""
    file = checkpoint.importance_file
    return None if file is None else file_digest(file)


def _stamp(path: Path) -> list[int]:
    return [path.stat().st_size, path.stat().st_mtime_ns]


def check_model(folder: Path, manifest: Mapping[str, Any], model: ImportedModel) -> None:
    """Whether `folder` was compiled from `model`: the same graph, and weight files of the same content.

    Files of other names, places or times are read to find out. Raises ArtifactError, which says what differs.
    """
    again = f"compile {model.name} again, or give the model that was compiled"
    if manifest.get("graph") != graph_digest(model):
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
