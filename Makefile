# Each target creates the environment .venv if it is missing or older than pyproject.toml.
PYTHON ?= python3
# Compile only the modules that are imported: pip would spend most of a minute on all of them. The tests' modules, too:
# otherwise each of their workers would compile all of them.
COMPILE := .venv/bin/python -c "import fastapi, flwr.server, jinja2, nncf, onnxruntime, openvino, sklearn.ensemble, torch.onnx"
PIP := .venv/bin/pip install --quiet --disable-pip-version-check --no-compile
PROTOS := $(wildcard proto/vedette/v1/*.proto)
ARGS ?=
# One worker per core for tests that compute, and two more for tests that wait (tests/scheduling.py).
WORKERS ?= $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 2)))
# Do not replace a worker that dies: pytest-xdist 3.8 may hang afterwards.
ON_ALL_CORES := --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder --max-worker-restart=0 --durations=25 --durations-min=5

# The tests start hundreds of processes. Without bytecode on disk, each one compiles every module again.
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test test-long check bench soak screenshots proto format clean

demo: .venv/demo.installed  ## run the whole system on this machine; options in ARGS="--headless --seconds 120"
	.venv/bin/vedette demo $(ARGS)

test: .venv/dev.installed  ## run the tests on all cores, or selected ones on one core with ARGS="tests/edge -k spool"
	.venv/bin/python -m pytest $(or $(ARGS),$(ON_ALL_CORES))

test-long: .venv/dev.installed  ## run all tests, including those that take minutes: 200 kills, the soak test, vedette bench edge
	.venv/bin/python -m pytest --long $(or $(ARGS),$(ON_ALL_CORES))

check: .venv/dev.installed  ## check style, types, import rules and generated code
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy --num-workers=2
	.venv/bin/lint-imports
	.venv/bin/python scripts/generate_protobuf.py --check

bench: .venv/dev.installed  ## run the benchmarks; select with ARGS="NAME ..."
	.venv/bin/python -m benchmarks $(ARGS)

SOAK_MINUTES ?= 30
soak: .venv/dev.installed  ## run the agent on an unreliable link for SOAK_MINUTES (30); ARGS="--json FILE --picture FILE"
	.venv/bin/python -m tests.system.soak --minutes $(SOAK_MINUTES) $(ARGS)

screenshots: .venv/dev.installed  ## make the pictures of the console's pages in docs/images/console
	.venv/bin/python -m scripts.capture_console

proto: .venv/dev.installed  ## generate the protobuf modules
	.venv/bin/python scripts/generate_protobuf.py

format: .venv/dev.installed  ## fix style and format the code
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

clean:  ## remove the environment, build output and tool caches
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .cache

# Install PyTorch first and pinned: together with the other packages, pip may choose a build with gigabytes of GPU libraries.
.venv/torch.installed:
	$(PYTHON) -m venv .venv
	$(PIP) "torch==2.13.0"
	touch $@

.venv/demo.installed: pyproject.toml | .venv/torch.installed
	$(PIP) --editable ".[demo]"
	$(COMPILE)
	touch $@

.venv/dev.installed: pyproject.toml | .venv/torch.installed
	$(PIP) --editable ".[dev]"
	$(COMPILE)
	-.venv/bin/python -m pytest --collect-only --quiet --quiet > /dev/null
	touch $@ .venv/demo.installed
