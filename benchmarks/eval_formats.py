"""Perplexity and KL divergence of every weight format: SmolLM2-135M-Instruct on the text of `amk eval`, in NumPy.

Those that gain from it are measured again with the importance of inputs on the text of `amk calibrate`, another one.

python benchmarks/eval_formats.py --json benchmarks/results/FILE.json
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import environment

import amk
from amk.frontends.importance import importance_file
from amk.runtime.evaluation import split_windows
from amk.runtime.weight_formats import parse_weight_format
from amk.tools.calibration import measure_importance
from amk.tools.commands import calibrate
from amk.tools.commands.eval_ import DEFAULT_TEXT
from amk.tools.evaluate import Result, evaluate
from amk.tools.progress import ProgressBar
from amk.tools.quantize import with_importance

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

OUTER_FORMATS = ("int8", "fp8", "int4:g32:zp")
"""Those measured with the head and the embedding too."""

CALIBRATED_FORMATS = ("int8", "int8:zp", "int4:g128", "int4:g128:zp", "int4:g64", "int4:g32", "int4:g32:zp")
"""Those measured with the importance of inputs too."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--limit", type=int, help="first tokens of the text (default: all)")
    parser.add_argument("--formats", type=lambda text: text.split(","), help="only these, in this order (default: all)")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()

    model = amk.import_model(options.model, max_seq=options.context)
    assert model.checkpoint is not None
    encode = model.load_tokenizer().encode
    windows = split_windows(encode(DEFAULT_TEXT.read_text(encoding="utf-8")), options.context, options.limit)
    text = calibrate.DEFAULT_TEXT
    calibration = split_windows(encode(text.read_text(encoding="utf-8")), options.context)
    record: list[dict[str, object]] = []

    def write() -> None:
        """After each result, as there is an hour of them."""
        environment.write(
            options.json,
            "eval_formats",
            {
                "model": options.model,
                "stored_as": sorted({info.dtype for info in model.checkpoint.tensors.values()})
                if model.checkpoint
                else [],
                "text": DEFAULT_TEXT.name,
                "windows": [len(window) for window in windows],
                "calibration": {"text": text.name, "windows": [len(window) for window in calibration]},
                "formats": sorted(record, key=_place),
            },
        )

    with ProgressBar() as progress, tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "importance.safetensors"
        file.write_bytes(importance_file(measure_importance(model, calibration, progress), {}))
        calibrated = with_importance(model, file)
        for measured, names, outer in (
            (calibrated, CALIBRATED_FORMATS, False),
            (model, FORMATS, False),
            (model, OUTER_FORMATS, True),
        ):

            def report(result: Result, outer: bool = outer, is_calibrated: bool = measured is calibrated) -> None:
                progress.close()
                if result.name == "f32 reference":
                    if record:
                        return  # the same again
                    is_calibrated = False
                record.append(
                    {
                        "format": result.name,
                        "outer": outer,
                        "calibrated": is_calibrated,
                        "matrix_bytes": result.nbytes,
                        **result.metrics,
                        "seconds": round(result.seconds, 2),
                    }
                )
                m = result.metrics
                print(
                    f"{result.name + ' calibrated' * is_calibrated + ' outer' * outer:<24} "
                    f"{result.nbytes / 1e6:7.1f} MB  perplexity {m['perplexity']:.4f} "
                    f"{m['change']:+.3%} +- {m['change_error']:.3%}  "
                    f"KL {m['kl_mean']:.3e} (max {m['kl_max']:.2e})  top-1 {m['top1_agreement']:.1%}",
                    flush=True,
                )
                write()

            if options.formats:
                names = () if outer else [name for name in options.formats if name in names]
            formats = {name: parse_weight_format(name) for name in names}
            if not formats:
                continue
            evaluate(measured, formats, windows, reference=model, outer=outer, progress=progress, report=report)


def _place(row: dict[str, object]) -> tuple[bool, int, bool]:
    """Where a row belongs in the table: in the order of FORMATS, a calibrated one after the other."""
    name = str(row["format"])
    return bool(row["outer"]), FORMATS.index(name) if name in FORMATS else -1, bool(row["calibrated"])


if __name__ == "__main__":
    main()
