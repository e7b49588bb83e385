"""Generate text. Tokens are printed as they come; the text ends at the model's end-of-sequence token.

Without a GPU this runs the verified queue kernel in the NumPy reference backend."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..progress import ProgressBar
from ..streams import require_stdin
from .options import add_model, add_pass_options, add_target, hide_torch, import_named, natural, pass_options, positive

if TYPE_CHECKING:
    from ...frontends.import_model import ImportedModel

NAME = "generate"
HELP = "generate text"
_DEFAULT_TOKENS = 256
_TextT = TypeVar("_TextT", str, str | None)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser, weights=None)
    parser.add_argument("--prompt", metavar="TEXT", required=True, help="the prompt; - reads it from stdin")
    parser.add_argument("--chat", action="store_true", help="put the prompt into the model's chat template")
    parser.add_argument("--system", metavar="TEXT", default=argparse.SUPPRESS, help="system message, with --chat")
    parser.add_argument(
        "--max-tokens",
        metavar="N",
        type=natural,
        default=argparse.SUPPRESS,
        help=f"tokens to generate at most (default: {_DEFAULT_TOKENS}, or fewer if max_seq leaves less room)",
    )
    parser.add_argument(
        "--backend",
        choices=["reference", "cuda"],
        default="reference",
        help="what runs the kernel (default: reference)",
    )
    add_target(parser)
    add_pass_options(parser)
    parser.add_argument(
        "--compiled",
        metavar="DIR",
        type=Path,
        default=argparse.SUPPRESS,
        help="run what `amk compile` wrote of MODEL, with --backend cuda",
    )
    parser.add_argument(
        "--steps-per-launch",
        metavar="K",
        type=positive,
        default=1,
        help="tokens that one launch generates, one after the other; greedy only (default: 1)",
    )
    parser.add_argument(
        "--chunk",
        metavar="T",
        type=positive,
        default=argparse.SUPPRESS,
        help="tokens of the prompt that are run at once, up to 8 with --backend cuda (default: 1, or as --compiled has it)",
    )
    parser.add_argument(
        "--far-from",
        metavar="POSITION",
        type=positive,
        default=argparse.SUPPRESS,
        help="from where on more SMs share the work of attention (default with --backend cuda: as in amk compile, or as "
        "--compiled has it)",
    )
    sampling = parser.add_argument_group("sampling", "Greedy unless a temperature is given.")
    sampling.add_argument(
        "--temperature", metavar="T", type=float, default=0.0, help="0, the default, takes the best token"
    )
    sampling.add_argument("--top-k", metavar="K", type=natural, default=0, help="only the K best tokens (default: all)")
    sampling.add_argument(
        "--top-p",
        metavar="P",
        type=float,
        default=1.0,
        help="only the best tokens whose probabilities reach P (default: all)",
    )
    sampling.add_argument("--seed", metavar="N", type=natural, default=argparse.SUPPRESS, help="repeatable draws")
    parser.add_argument("--stats", action="store_true", help="print speed to stderr at the end")


def run(args: argparse.Namespace) -> None:
    hide_torch()
    from ...amk_ir.errors import UsageError
    from ...backends.cuda.limits import MOST_TOKENS
    from ...runtime.sampling import Sampling
    from ...runtime.session import check_division, check_request, check_steps_per_launch
    from ..api import choose_target, default_dtype, encode_prompt, open_compiled, open_session

    # Everything that can be refused is refused before the long work begins.
    compiled: Path | None = getattr(args, "compiled", None)
    check_division(getattr(args, "chunk", None), None, MOST_TOKENS if args.backend == "cuda" else None)
    if compiled is not None:
        if args.backend != "cuda":
            raise UsageError("--compiled goes with --backend cuda")
        for name in ("target", "sms", "set", "weights", "head", "embedding", "keep", "importance", "kv", "max_seq"):
            if name in args:
                option = name.replace("_", "-")
                raise UsageError(f"--compiled goes without --{option}, which was chosen when {compiled} was compiled")
    target = None if compiled is not None else choose_target(args.backend, getattr(args, "target", None))
    options = pass_options(args)
    sampling = Sampling(args.temperature, args.top_k, args.top_p, getattr(args, "seed", None))
    check_steps_per_launch(args.steps_per_launch, sampling)
    text = _text("--prompt -", _read_prompt()) if args.prompt == "-" else _text("--prompt", args.prompt)
    if not text:
        raise UsageError("--prompt: the prompt is empty")
    if "system" in args and not args.chat:
        raise UsageError("--system needs --chat: only a chat template has a place for it")
    if compiled is None:
        model = import_named(args, default_dtype(args.backend))
    else:
        model = _import_as_compiled(args, compiled)
    tokenizer = model.load_tokenizer()
    prompt = encode_prompt(tokenizer, text, chat=args.chat, system=_text("--system", getattr(args, "system", None)))
    count: int | None = getattr(args, "max_tokens", None)
    check_request(prompt, count, model.config.vocab, model.max_seq)

    with ProgressBar() as progress:
        if compiled is not None:
            session = open_compiled(
                compiled,
                model,
                steps_per_launch=args.steps_per_launch,
                chunk=getattr(args, "chunk", None),
                far_from=getattr(args, "far_from", None),
                progress=progress,
            )
        else:
            session = open_session(
                model,
                args.backend,
                target=target,
                sms=getattr(args, "sms", None),
                options=options,
                steps_per_launch=args.steps_per_launch,
                chunk=getattr(args, "chunk", 1),
                far_from=getattr(args, "far_from", None),
                progress=progress,
            )
    with session:
        if count is None:
            count = min(_DEFAULT_TOKENS, session.max_seq - len(prompt))
        stream = tokenizer.stream()
        start = time.perf_counter()
        times: list[float] = []
        for token in session.generate(prompt, count, sampling, stop=tokenizer.eos_ids):
            times.append(time.perf_counter())
            sys.stdout.write(stream.push(token))
            sys.stdout.flush()
        sys.stdout.write(stream.finish() + ("\n" if count else ""))
        sys.stdout.flush()
    if args.stats or sys.stderr.isatty():
        print(_stats(len(prompt), start, times), file=sys.stderr)


def _import_as_compiled(args: argparse.Namespace, compiled: Path) -> ImportedModel:
    """MODEL with what was chosen when `compiled` was."""
    from ...amk_ir.errors import ArtifactError, UsageError
    from ...amk_ir.weight_choice import NONE
    from ..compiled_folder import read_compiled

    chosen = read_compiled(compiled)
    args.kv, args.max_seq = chosen.kv_dtype, chosen.max_seq
    choice = chosen.quantization
    args.weights = chosen.weight_dtype if choice.weights == NONE else choice.weights
    args.head, args.embedding, args.keep = choice.head, choice.embedding, list(choice.keep)
    try:
        return import_named(args, chosen.weight_dtype)
    except UsageError as e:
        raise ArtifactError(f"{compiled}: was compiled from another model than {args.model}, which refuses: {e}") from e


def _read_prompt() -> str:
    from ...amk_ir.errors import UsageError

    try:
        return require_stdin("--prompt -").read()
    except UnicodeDecodeError as e:
        raise UsageError(f"--prompt -: not {e.encoding} text ({e.reason})") from e


def _text(option: str, text: _TextT) -> _TextT:
    """`text` if it is Unicode: in some locales Python lets bytes through that are not, as lone surrogates."""
    from ...amk_ir.errors import UsageError

    try:
        (text or "").encode()
    except UnicodeEncodeError as e:
        raise UsageError(f"{option}: not UTF-8 text") from e
    return text


def _stats(prompt_tokens: int, start: float, times: Sequence[float]) -> str:
    """One line about speed; `times` are when the tokens came."""
    if not times:
        return f"[prompt: {prompt_tokens} tokens; no text]"
    # The time of the first token is that of the prompt.
    speed = f", {(len(times) - 1) / (times[-1] - times[0]):.1f} tokens/s" if len(times) > 1 else ""
    return f"[prompt: {prompt_tokens} tokens in {times[0] - start:.2f} s; text: {len(times)} tokens{speed}]"
