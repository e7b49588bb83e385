"""Running models that were compiled into folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..amk_ir.errors import ArtifactError
from ..frontends.import_model import ImportedModel
from ..runtime.artifacts import Artifact, read_artifact
from ..runtime.backend import Executable, Progress, no_progress
from .cached_compiler import CachedCompiler
from .compiled_folder import WEIGHTS, SessionShape, check_model, check_version, shape_of

_PIECE = 1 << 26


def load_compiled(
    folder: Path,
    progress: Progress = no_progress,
    model: ImportedModel | None = None,
    needs_token_loop: bool = False,
    chunk: int | None = None,
    far_from: int | None = None,
) -> tuple[Executable, Artifact]:
    """Loads what `compile_model` wrote on this machine's GPU. All plans are verified again before anything is launched.

    needs_token_loop: whether launches will run several steps. chunk, far_from: see `choose_shape`.

    Raises:
        ArtifactError: not a compiled model, a changed file, no weights, one compiled by another version of AMK, or
            from another model than `model`, or without a kernel that is needed; kernels that do not belong together.
        DeviceError: no GPU, another architecture, or no room.
    """
    artifact = read_artifact(folder, progress)
    if WEIGHTS not in artifact.manifest["files"]:
        raise ArtifactError(f"{folder}: was compiled with --no-weights and cannot be run; compile it with them")
    check_version(folder, artifact.manifest)
    shape = choose_shape(folder, shape_of(folder, artifact.manifest), needs_token_loop, chunk, far_from)
    if model is not None:
        check_model(folder, artifact.manifest, model)
    from ..backends.cuda.backend import CudaBackend
    from .session_kernels import check_facts, restore

    kernels = restore(artifact.read, shape, str(folder), CachedCompiler())
    check_facts(kernels, artifact.manifest, str(folder))
    size, expected = artifact.path(WEIGHTS).stat().st_size, kernels.step[1].plan.weight_bytes
    if size != expected:
        raise ArtifactError(
            f"{folder}: expected {expected:,} bytes in {WEIGHTS}, found {size:,}; compile the model again"
        )
    weights = np.memmap(artifact.path(WEIGHTS), np.uint8, mode="r")
    pieces = (weights[start : start + _PIECE] for start in range(0, len(weights), _PIECE))
    return CudaBackend().load_session(kernels, pieces, shape.far_from or 0), artifact


def choose_shape(
    folder: Path, found: SessionShape, needs_token_loop: bool, chunk: int | None, far_from: int | None
) -> SessionShape:
    """The kernels of a folder that a session is to use.

    chunk: None for the kernel that there is, 1 for none, else the tokens that it must take. far_from: None for the position
    that was chosen when it was compiled, else another one.

    Raises ArtifactError for what the folder has no kernel for.
    """
    if needs_token_loop and not found.token_loop:
        raise ArtifactError(
            f"{folder}: was compiled for one step a launch; compile it with --token-loop, or leave --steps-per-launch out"
        )
    if chunk is not None and chunk not in (1, found.chunk):
        has = f"with --chunk {found.chunk}" if found.chunk > 1 else "without --chunk"
        raise ArtifactError(f"{folder}: was compiled {has}; compile it with --chunk {chunk}, or leave --chunk out")
    if far_from is not None and found.far_from is None:
        raise ArtifactError(
            f"{folder}: was compiled without a kernel for long contexts; compile it with --far-from {far_from}, or leave "
            "--far-from out"
        )
    return SessionShape(
        found.token_loop, found.chunk if chunk is None else chunk, found.far_from if far_from is None else far_from
    )
