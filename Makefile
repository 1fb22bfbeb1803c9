# Every target makes its own environment in .venv when that is missing or out of date.
PYTHON ?= python3
PIP := .venv/bin/pip install --quiet --disable-pip-version-check
PROTOS := $(wildcard proto/vedette/v1/*.proto)
ARGS ?=
# Whole systems wait for much of their time, hence a worker more than there are cores.
WORKERS ?= $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 1)))
# A file is one worker's; a worker that dies is not replaced, for pytest-xdist 3.8 may then wait for ever.
ON_ALL_CORES := --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder --max-worker-restart=0 --durations=25 --durations-min=5

.PHONY: demo test check bench soak proto format clean

demo: .venv/demo.installed  ## the whole system on this machine; options in ARGS="--headless --seconds 120"
	.venv/bin/vedette demo $(ARGS)

test: .venv/dev.installed  ## all tests, on all cores; a part of them on one with ARGS="tests/edge -k spool"
	.venv/bin/python -m pytest $(or $(ARGS),$(ON_ALL_CORES))

check: .venv/dev.installed  ## style, types, import rules, generated code
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/python scripts/generate_protobuf.py --check

bench: .venv/dev.installed  ## ratios against a named peer or limit, in one run each
	.venv/bin/python -m benchmarks $(ARGS)

SOAK_MINUTES ?= 30
soak: .venv/dev.installed  ## the agent for half an hour on a bad line; ARGS="--json FILE --picture FILE"
	.venv/bin/python -m tests.system.soak --minutes $(SOAK_MINUTES) $(ARGS)

proto: .venv/dev.installed  ## generate the protobuf modules anew
	.venv/bin/python scripts/generate_protobuf.py

format: .venv/dev.installed  ## put the code into shape
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

clean:  ## remove the environment and what tools left behind
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# PyTorch first and pinned: resolving it with the rest may bring a build with gigabytes of GPU libraries.
.venv/torch.installed:
	$(PYTHON) -m venv .venv
	$(PIP) "torch==2.13.0"
	touch $@

.venv/demo.installed: pyproject.toml | .venv/torch.installed
	$(PIP) --editable ".[demo]"
	touch $@

.venv/dev.installed: pyproject.toml | .venv/torch.installed
	$(PIP) --editable ".[dev]"
	touch $@ .venv/demo.installed
