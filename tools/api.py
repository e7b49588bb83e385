"""The Python API: models to kernels and text in one call each. The floors below do the work; this chooses backends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from ..amk_ir.dtypes import FloatType
from ..amk_ir.errors import TargetError, UsageError
from ..amk_ir.targets import Target, get_target
from ..backends.cuda.limits import MOST_TOKENS
from ..frontends.import_model import ImportedModel, import_model
from ..runtime.backend import Backend, Progress, no_progress
from ..runtime.compile import far_position
from ..runtime.sampling import Sampling
from ..runtime.session import Session, check_chunk_fits, check_division, check_steps_per_launch

if TYPE_CHECKING:
    from ..frontends.tokenizer import Tokenizer
    from ..runtime.pass_options import PassOptions
    from .compile_model import CompileResult

BackendName: TypeAlias = Literal["reference", "cuda"]


def default_dtype(backend: BackendName) -> FloatType:
    """The dtype of weights and caches that suits a backend."""
    return "f32" if backend == "reference" else "bf16"


def encode_prompt(tokenizer: Tokenizer, text: str, *, chat: bool = False, system: str | None = None) -> list[int]:
    """The ids of `text` as it is, or as the user's message in the model's chat template."""
    if not chat:
        return tokenizer.encode(text)
    messages = [{"role": "user", "content": text}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return tokenizer.apply_chat(messages)


def make_backend(name: BackendName, steps_per_launch: int = 1) -> Backend:
    """The backend called `name`, for kernels that can run so many steps a launch."""
    if name == "reference":
        from ..backends.reference.backend import ReferenceBackend

        return ReferenceBackend()
    from ..backends.cuda.backend import CudaBackend
    from .cached_compiler import CachedCompiler

    return CudaBackend(compiler=CachedCompiler(), token_loop=steps_per_launch > 1)


def choose_target(backend: BackendName, name: str | None = None) -> Target:
    """The target called `name`, or else the one that `backend` runs on.

    Raises TargetError (an unknown target, or not one of the backend) or DeviceError (no GPU to ask).
    """
    if backend == "reference":
        return get_target(name or "reference")
    if name is None:
        from ..backends.cuda.backend import detect_target

        return detect_target()
    target = get_target(name)
    if not target.is_cuda:
        raise TargetError(f"target '{name}' is not a GPU, but the backend is cuda; leave --target out")
    return target


def compile(
    model: ImportedModel | str | Path,
    target: Target | str = "sm_90a",
    directory: str | Path = "model.amk",
    *,
    sms: int | None = None,
    options: PassOptions | None = None,
    with_weights: bool = True,
    token_loop: bool = False,
    chunk: int = 1,
    far_from: int | None = None,
    progress: Progress = no_progress,
) -> CompileResult:
    """Compiles `model` for a GPU into `directory`: plans, kernels, packed weights, manifest. Needs no GPU.

    sms: size of the grid (default: all SMs of the target). options: of the passes (default: without `sms`, what
    `amk tune` found; {}: those of the passes). with_weights: pack them too. token_loop: make kernels that can run
    several steps a launch. chunk, far_from: as in `open_session`, decide which kernels there are beside the first.
    """
    from .compile_model import compile_model, session_shape

    if not isinstance(model, ImportedModel):
        model = import_model(model, weight_dtype="bf16", kv_dtype="bf16")
    if not isinstance(target, Target):
        target = choose_target("cuda", target)
    return compile_model(
        model,
        target,
        Path(directory),
        sms=sms,
        options=options,
        with_weights=with_weights,
        shape=session_shape(model, token_loop=token_loop, chunk=chunk, far_from=far_from),
        progress=progress,
    )


def open_compiled(
    directory: str | Path,
    model: ImportedModel | None = None,
    *,
    steps_per_launch: int = 1,
    chunk: int | None = None,
    far_from: int | None = None,
    progress: Progress = no_progress,
) -> Session:
    """Loads on this machine's GPU what `compile` wrote, and returns a session.

    model: what it must have been compiled from; ArtifactError says what differs. steps_per_launch: as in `open_session`;
    more than one needs a model that was compiled with the token loop. chunk: as it was compiled, or 1 to take prompts
    token by token. far_from: another position for the kernel for long contexts than the one chosen then.
    """
    check_steps_per_launch(steps_per_launch)
    check_division(chunk, far_from, MOST_TOKENS)
    from .compiled import load_compiled

    executable, artifact = load_compiled(Path(directory), progress, model, steps_per_launch > 1, chunk, far_from)
    return Session(
        executable,
        vocab_size=artifact.manifest["vocab"],
        max_seq=artifact.manifest["max_seq"],
        steps_per_launch=steps_per_launch,
    )


def open_session(
    model: ImportedModel | str | Path,
    backend: BackendName = "reference",
    *,
    target: Target | str | None = None,
    sms: int | None = None,
    options: PassOptions | None = None,
    steps_per_launch: int = 1,
    chunk: int = 1,
    far_from: int | None = None,
    progress: Progress = no_progress,
) -> Session:
    """Compiles `model`, loads its weights and returns a session: token ids in, token ids out.

    target: what to compile for (default: what the backend runs on). sms: size of the grid (default: all SMs). options:
    of the passes (default: without `sms`, what `amk tune` found; {}: those of the passes). steps_per_launch: tokens that
    one launch generates at most; more than one takes the best token always. chunk: tokens of a prompt that are run at
    once; more than one takes a second kernel. far_from: position from which a kernel takes over that divides attention
    among more SMs (default: that of `runtime.compile.far_position` with the backend cuda, never with the reference backend).
    """
    from .tuned import choose_options

    check_steps_per_launch(steps_per_launch)
    check_division(chunk, far_from, MOST_TOKENS if backend == "cuda" else None)
    if not isinstance(model, ImportedModel):
        dtype = default_dtype(backend)
        model = import_model(model, weight_dtype=dtype, kv_dtype=dtype)
    if model.checkpoint is None:
        raise UsageError(f"{model.name}: was imported from a configuration alone and has no weights to run")
    check_chunk_fits(chunk, model.max_seq)
    if not isinstance(target, Target):
        target = choose_target(backend, target)
    choice = choose_options(model, target, sms=sms, options=options)
    if far_from is None:
        far_from = far_position(model.config) if target.is_cuda else model.max_seq
    with choice.blamed():
        kernel = choice.plan(model, target)
        several = choice.plan_chunk(model, target, chunk) if chunk > 1 else None
        far = (choice.plan_far(model, target), far_from) if far_from < model.max_seq else None
        executable = make_backend(backend, steps_per_launch).load(
            kernel, model.checkpoint, progress, chunk=several, far=far
        )
    return Session(executable, vocab_size=model.config.vocab, max_seq=model.max_seq, steps_per_launch=steps_per_launch)


def generate(
    model: ImportedModel | str | Path,
    prompt: str,
    *,
    chat: bool = False,
    system: str | None = None,
    max_tokens: int | None = None,
    sampling: Sampling | None = None,
    backend: BackendName = "reference",
) -> Iterator[str]:
    """Generates text and yields it piece by piece, up to the model's end of text or `max_tokens`.

    Use `open_session` to generate more than once: this compiles and loads the model each time.
    """
    if not isinstance(model, ImportedModel):
        dtype = default_dtype(backend)
        model = import_model(model, weight_dtype=dtype, kv_dtype=dtype)
    tokenizer = model.load_tokenizer()
    ids = encode_prompt(tokenizer, prompt, chat=chat, system=system)
    stream = tokenizer.stream()
    with open_session(model, backend) as session:
        for token in session.generate(ids, max_tokens, sampling, stop=tokenizer.eos_ids):
            if piece := stream.push(token):
                yield piece
        if piece := stream.finish():
            yield piece
