"""A model compiled into a folder. What was compiled before is found in the compile cache, without running a pass."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..amk_ir.errors import ArtifactError
from ..amk_ir.targets import Target
from ..backends.cuda.limits import MOST_TOKENS
from ..backends.cuda.nvrtc import nvrtc_version
from ..frontends.import_model import ImportedModel
from ..runtime.artifacts import Artifact, Content, check_writable, read_artifact, write_artifact
from ..runtime.backend import Progress, no_progress
from ..runtime.cache import CompileCache, compiler_fingerprint
from ..runtime.compile import far_position, module_text
from ..runtime.session import check_chunk_fits, check_division
from .compiled_folder import WEIGHTS, SessionShape, graph_digest, importance_digest, weight_stamps
from .tuned import Choice, choose_options

if TYPE_CHECKING:
    from ..backends.cuda.backend import SessionKernels
    from ..runtime.pass_options import PassOptions

_FACTS = "facts.json"
"""A file of cache entries: what the manifest says of the kernels."""


@dataclass(frozen=True)
class CompileResult:
    """What `compile_model` wrote. from_cache: nothing had to be compiled. choice: the pass options."""

    artifact: Artifact
    from_cache: bool
    choice: Choice


def session_shape(
    model: ImportedModel, *, token_loop: bool = False, chunk: int = 1, far_from: int | None = None
) -> SessionShape:
    """The kernels of a session with `model`. far_from: None for that of `far_position`; none from max_seq on.

    Raises UsageError: less than one token, more than a GPU's kernel or the KV cache can take, or position 0.
    """
    check_division(chunk, far_from, MOST_TOKENS)
    check_chunk_fits(chunk, model.max_seq)
    position = far_position(model.config) if far_from is None else far_from
    return SessionShape(token_loop, chunk, position if position < model.max_seq else None)


def compile_model(
    model: ImportedModel,
    target: Target,
    folder: Path,
    *,
    sms: int | None = None,
    options: PassOptions | None = None,
    with_weights: bool = True,
    shape: SessionShape | None = None,
    progress: Progress = no_progress,
) -> CompileResult:
    """Compiles `model` into `folder`, which appears whole or not at all; needs no GPU. sms, options: `choose_options`.

    shape: the kernels that the folder is to have (None: `session_shape` of the model). A folder that already holds exactly
    this is checked and left as it is; a damaged one is replaced.

    Raises:
        ArtifactError, StorageError: nothing can be written into `folder`; before anything else is done.
        CompileError, ScheduleError, CheckpointError: see the modules below.
    """
    check_writable(folder)
    shape = shape or session_shape(model)
    choice = choose_options(model, target, sms=sms, options=options)
    found = _find_or_build(choice, model, target, shape, progress)
    facts = _facts(model, shape, choice, found.facts, with_weights, progress)
    if (existing := _intact(folder, progress)) is not None and _is_same(existing, facts):
        return CompileResult(existing, found.from_cache, choice)
    contents: dict[str, Content] = dict(found.files)
    if with_weights and model.checkpoint is not None:
        contents[WEIGHTS] = _packed(found.kernels or _restore(found.files, shape), model, progress)
    return CompileResult(write_artifact(folder, facts, contents), found.from_cache, choice)


@dataclass(frozen=True)
class _Found:
    """Files and facts of the kernels; the kernels themselves if they were not in the cache."""

    files: Mapping[str, bytes]
    facts: Mapping[str, Any]
    from_cache: bool
    kernels: SessionKernels | None


def _find_or_build(
    choice: Choice, model: ImportedModel, target: Target, shape: SessionShape, progress: Progress
) -> _Found:
    cache = CompileCache()
    key = cache.key(
        "session",
        module_text(model.module),
        f"{target.name} {target.num_sms} {choice.sms}",
        json.dumps(dict(choice.options), sort_keys=True),
        f"{shape.token_loop} {shape.chunk} {shape.far_from is not None}",  # the position is not in the kernels
        str(nvrtc_version()),
    )
    if (stored := cache.get(key)) is not None and _FACTS in stored:
        return _Found({n: c for n, c in stored.items() if n != _FACTS}, json.loads(stored[_FACTS]), True, None)
    from .cached_compiler import CachedCompiler
    from .session_kernels import build, facts_of, files_of

    compiler = CachedCompiler(cache)
    kernels = build(choice, model, target, shape, compiler, progress)
    files, facts = files_of(kernels), facts_of(kernels)
    cache.put(key, {**files, _FACTS: json.dumps(facts).encode()})
    return _Found(files, facts, compiler.compiled == 0, kernels)


def _restore(files: Mapping[str, bytes], shape: SessionShape) -> SessionKernels:
    from .cached_compiler import CachedCompiler
    from .session_kernels import restore

    return restore(files.__getitem__, shape, "compile cache", CachedCompiler())


def _packed(kernels: SessionKernels, model: ImportedModel, progress: Progress) -> Iterator[memoryview]:
    from ..backends.cuda.pack import packed_weights

    assert model.checkpoint is not None, "the caller has looked"
    for piece in packed_weights(kernels.step[1].plan, model.checkpoint, progress):
        yield np.ascontiguousarray(piece).data


def _facts(
    model: ImportedModel,
    shape: SessionShape,
    choice: Choice,
    kernels: Mapping[str, Any],
    with_weights: bool,
    progress: Progress,
) -> dict[str, Any]:
    """What the manifest says of a compiled model: enough to tell whether another compile would be the same."""
    facts = dict(kernels)
    weights = {"bytes": facts.pop("weight_bytes"), "regions": facts.pop("weight_regions")}
    has_weights = with_weights and model.checkpoint is not None
    return {
        "model": model.name,
        "graph": graph_digest(model),
        **facts,
        "vocab": model.config.vocab,
        "weight_dtype": model.weight_dtype,
        "quantization": model.quantization.as_json(),
        "importance": importance_digest(model.checkpoint) if has_weights and model.checkpoint is not None else None,
        "kv_dtype": model.kv_dtype,
        "token_loop": shape.token_loop,
        "chunk": shape.chunk,
        "far_from": shape.far_from,
        "amk": compiler_fingerprint(),
        "nvrtc": ".".join(map(str, nvrtc_version())),
        "weights": {**weights, "from": weight_stamps(model.checkpoint, progress)}
        if has_weights and model.checkpoint is not None
        else None,
        "options": dict(choice.options),
    }


def _intact(folder: Path, progress: Progress) -> Artifact | None:
    """The compiled model in `folder`, if there is one and it is as it was written."""
    try:
        return read_artifact(folder, progress)
    except ArtifactError:
        return None


def _is_same(artifact: Artifact, facts: Mapping[str, Any]) -> bool:
    return all(artifact.manifest.get(name) == value for name, value in facts.items())
