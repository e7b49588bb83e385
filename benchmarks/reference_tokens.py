"""Tokens per second of the reference backend on the CPU: SmolLM2-135M-Instruct through the queue level.

python benchmarks/reference_tokens.py --json benchmarks/results/FILE.json
"""

from __future__ import annotations

import argparse
import time

import environment

import amk


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()

    model = amk.import_model(options.model)
    prompt = model.load_tokenizer().apply_chat([{"role": "user", "content": "Why is the sky blue?"}])
    start = time.perf_counter()
    with amk.open_session(model) as session:
        load_seconds = time.perf_counter() - start
        seconds: list[list[float]] = []
        for _ in range(options.repeat):
            session.reset()
            laps, last = [], time.perf_counter()
            for _ in session.generate(prompt, options.tokens):
                laps.append(time.perf_counter() - last)
                last = time.perf_counter()
            seconds.append(laps)
    # the first token of a repetition includes the prompt
    rates = [(len(laps) - 1) / sum(laps[1:]) for laps in seconds]
    print(f"load {load_seconds:.1f} s; tokens/s: {', '.join(f'{rate:.1f}' for rate in rates)}")
    environment.write(
        options.json,
        "reference_tokens",
        {
            "model": options.model,
            "prompt_tokens": len(prompt),
            "load_seconds": load_seconds,
            "seconds_per_token": seconds,
            "tokens_per_second": rates,
        },
    )


if __name__ == "__main__":
    main()
