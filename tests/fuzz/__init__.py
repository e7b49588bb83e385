"""Fuzzing of the tools: whatever a file holds, `amk` and `amk-opt` answer with a result or with one line, never a crash.

| file | what |
|---|---|
| `corpus.py` | what is mutated: every chunk of `tests/lit/`, lowered kernels, generic syntax, witnesses |
| `mutate.py` | mutations of text that know tokens, numbers, blocks and symbols, and ones that know nothing |
| `witnesses.py` | mutations of witnesses (JSON) |
| `execute.py` | one run of a tool in this process, its limits, and what counts as a finding |
| `commands.py` | which tools, passes and options an input is given to |
| `worker.py` | a process that fuzzes for some seconds, with a limited address space: `python tests/fuzz/worker.py --seconds 60` |
| `coverage_guided.py` | the same inputs steered by coverage (atheris): `python tests/fuzz/coverage_guided.py --seconds 60` |

A *finding* is: any exception but a typed error (status 1: a traceback with AMK_DEBUG=1), "out of memory" or "nested too
deeply" for an input that is neither large nor deep, more than 20 s of processor time, a pass whose result is not valid
IR, and printed text that does not parse or prints differently. Every finding is kept as a test, reduced
(`tests/unit/test_fuzz_findings.py`). `benchmarks/fuzz_tools.py` records a long run; each test run does a short one with a
fresh seed.
"""
