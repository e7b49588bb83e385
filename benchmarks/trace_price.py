"""What tracing costs: the summaries of traces in one file.

    for d in phases stages; do amk trace llama-3.2-1b --detail $d --repeat 200 -o llama-3.2-1b-$d.npz; done
    python benchmarks/trace_price.py llama-3.2-1b-*.npz --json FILE

Each trace has the times of the untraced and of the traced kernel, taken by turns in one run.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from amk.runtime.files import write_atomically
from amk.tools.trace.raw import read_raw
from amk.tools.trace.summary import summarise, summary_json
from amk.tools.trace.timeline import align


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", metavar="TRACE", nargs="+", type=Path)
    parser.add_argument("--json", metavar="FILE", type=Path)
    options = parser.parse_args()
    results = []
    print("| model | detail | events an SM | untraced | traced | slower | quartiles, untraced | traced |")
    print("|---|---|---|---|---|---|---|---|")
    for path in options.traces:
        timeline = align(read_raw(path))
        result = summary_json(timeline, summarise(timeline))
        results.append(result)
        spread = [
            " to ".join(f"{q:.1f}" for q in statistics.quantiles(result[key], n=4)[::2])
            for key in ("untraced_us", "traced_us")
        ]
        print(
            f"| {result['model']} | {result['detail']} | {result['events'] / result['sms']:.0f} "
            f"| {result['median_untraced_us']:.1f} µs | {result['median_traced_us']:.1f} µs "
            f"| {100 * result['overhead']:.1f}% | {spread[0]} | {spread[1]} |"
        )
    if options.json is not None:
        write_atomically(options.json, json.dumps({"traces": results}, indent=1).encode() + b"\n")


if __name__ == "__main__":
    main()
