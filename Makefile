# Everything runs from .venv, which uv fills from uv.lock; uv itself is fetched into .tools.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

UV_VERSION := 0.13.8
UV := .tools/bin/uv
BIN := .venv/bin
ENVIRONMENT := .venv/.synced
TESTED := .tools/tested

PACKAGES := contracts lake quality flows
FOLDERS := $(wildcard tests/unit tests/property tests/integration tests/fault tests/e2e)
SOURCES := $(shell find $(PACKAGES) tests benchmarks examples -name '*.py' 2>/dev/null) \
           $(shell find docs -name '*.md' 2>/dev/null) pyproject.toml uv.lock
# More than cores: tests also wait for servers.
WORKERS ?= 3
SEED ?= 1
STEPS ?= 1000
COVERAGE_FLOOR ?= 90

# The newest of these that Tidemark runs on.
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11; do \
	"$$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
	2>/dev/null && echo "$$name" && break; done)

# Prefect reports home unless it is told not to.
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1

# Where this is set, every process that a test starts compiles anew what it imports.
unexport PYTHONDONTWRITEBYTECODE

# Workers fill the cores; threads of Polars would only wait for one another.
RUN_TESTS = rm -f $(TESTED); \
	POLARS_MAX_THREADS=1 $(BIN)/pytest $(PACKAGES) $(FOLDERS) -n $(WORKERS) --dist loadfile --cov --cov-report=; \
	touch $(TESTED)

.PHONY: help setup demo test check coverage docs bench soak clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(ENVIRONMENT) ## Fetch uv and fill .venv from uv.lock

demo: $(ENVIRONMENT) ## Build a lake from a replayed exchange and read it back
	$(BIN)/lake demo

test: $(ENVIRONMENT) ## Run all tests except those that ask real venues
	$(RUN_TESTS)

check: $(ENVIRONMENT) ## Run what CI runs after the tests: style, types, arrows, docs, coverage
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/pytest -q tests/unit/test_architecture.py tests/unit/test_dictionary.py
	$(MAKE) --no-print-directory coverage

coverage: $(TESTED) ## Hold branch coverage to its floor; runs the tests if they are stale
	$(BIN)/coverage report --fail-under=$(COVERAGE_FLOOR)

docs: $(ENVIRONMENT) ## Render docs/tables.md and docs/errors.md from the contracts
	$(BIN)/python -c 'from contracts import dictionary as d; print(d.dictionary(), end="")' \
		> docs/tables.md
	$(BIN)/python -c 'from contracts import dictionary as d; print(d.errors(), end="")' \
		> docs/errors.md

bench: $(ENVIRONMENT) ## Measure
	$(BIN)/python -m benchmarks

soak: $(ENVIRONMENT) ## Revise, maintain and kill a lake on S3, for SEED= and STEPS=
	$(BIN)/python tests/soak.py --seed $(SEED) --steps $(STEPS) \
		--kills $$(( ($(STEPS) + 49) / 50 )) --gateway-kills $$(( ($(STEPS) + 49) / 50 ))

clean: ## Remove caches and results; .venv and .tools stay
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis htmlcov dist \
		build demo-lake bench-results $(TESTED)
	rm -f .coverage .coverage.*
	find $(PACKAGES) tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(TESTED): $(SOURCES) | $(ENVIRONMENT)
	$(RUN_TESTS)

$(ENVIRONMENT): pyproject.toml uv.lock .tools/uv-$(UV_VERSION)
	$(UV) sync --frozen --no-python-downloads --python "$(PYTHON)" --group examples \
		--compile-bytecode
	touch $@

.tools/uv-$(UV_VERSION):
	@test -n "$(PYTHON)" || { echo "Tidemark needs Python 3.11 to 3.13 on the PATH" >&2; exit 1; }
	$(PYTHON) -m venv .tools
	.tools/bin/pip install --quiet uv==$(UV_VERSION)
	touch $@
