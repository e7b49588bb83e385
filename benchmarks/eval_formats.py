"""Perplexity and KL divergence of every weight format: SmolLM2-135M-Instruct on the text of `amk eval`, in NumPy.

python benchmarks/eval_formats.py --json benchmarks/results/FILE.json
"""

from __future__ import annotations

import argparse

import environment

import amk
from amk.runtime.evaluation import split_windows
from amk.runtime.weight_formats import parse_weight_format
from amk.tools.commands.eval_ import DEFAULT_TEXT
from amk.tools.evaluate import Result, evaluate
from amk.tools.progress import ProgressBar

FORMATS = (
    "bf16",
    "int8",
    "int8:g128",
    "int8:zp",
    "int8:g128:zp",
    "int8:g32:f16",
    "fp8",
    "fp8:g128",
    "fp8:b128x128",
    "int4:g128",
    "int4:g128:zp",
    "int4:g64",
    "int4:g64:zp",
    "int4:g32",
    "int4:g32:zp",
    "int4:g32:min:f16",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--limit", type=int, help="first tokens of the text (default: all)")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()

    model = amk.import_model(options.model, max_seq=options.context)
    assert model.checkpoint is not None
    ids = model.load_tokenizer().encode(DEFAULT_TEXT.read_text(encoding="utf-8"))
    windows = split_windows(ids, options.context, options.limit)
    record: list[dict[str, object]] = []

    def report(result: Result) -> None:
        progress.close()
        suffix = " outer" if outer else ""
        record.append(
            {
                "format": result.name,
                "outer": outer,
                "matrix_bytes": result.nbytes,
                **result.metrics,
                "seconds": round(result.seconds, 2),
            }
        )
        m = result.metrics
        print(
            f"{result.name + suffix:<24} {result.nbytes / 1e6:7.1f} MB  perplexity {m['perplexity']:.4f} "
            f"{m['change']:+.3%} +- {m['change_error']:.3%}  "
            f"KL {m['kl_mean']:.3e} (max {m['kl_max']:.2e})  top-1 {m['top1_agreement']:.1%}",
            flush=True,
        )

    with ProgressBar() as progress:
        for outer in (False, True):
            names = FORMATS if not outer else ("int8", "fp8", "int4:g32:zp")
            formats = {name: parse_weight_format(name) for name in names}
            evaluate(model, formats, windows, outer=outer, progress=progress, report=report)
    environment.write(
        options.json,
        "eval_formats",
        {
            "model": options.model,
            "stored_as": sorted({info.dtype for info in model.checkpoint.tensors.values()}),
            "text": DEFAULT_TEXT.name,
            "windows": [len(window) for window in windows],
            "formats": record,
        },
    )


if __name__ == "__main__":
    main()
