# Each target sets up what it needs: Python 3.11 or newer, make and git are enough; uv is used where it is.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Databases that run as servers: most of their code is reached by the integration tests alone.
OF_SERVERS := */stores/postgresql/*,*/stores/mysql/*,*/stores/mongodb/*,*/stores/clickhouse/*
# Files as a whole: tests of one file may build on each other.
PARALLEL := $(BIN)/python -m pytest -n auto --dist loadfile
INSTALL := install --quiet --editable '.[all]' --group dev

# Another Python is taken from the command line or the environment; uv finds a fitting one by itself.
ifneq ($(origin PYTHON),file)
UV_PYTHON := --python '$(PYTHON)'
endif

# Images of containers set it, and a thousand processes of the tests would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo tracing unit test matrix test-clickhouse check style mypy sbom docs bench screenshots clean new-venv

help: ## Show these lines
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-17s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMP) ## Run the README's example on a few hundred requests and show what was kept and delivered
	@$(BIN)/python -m examples.demo

tracing: $(STAMP) ## Run the example with OpenTelemetry: a span, a log line and a record with the same id
	@$(BIN)/python -m examples.tracing

unit: $(STAMP) ## Run the unit tests but for the slow ones, in parallel: the inner loop
	$(PARALLEL) -m 'not slow' tests/unit

test: check ## Check, then run all tests, and show what of the package the quick ones reach
	$(PARALLEL) -m 'not slow' --cov --cov-report= tests/unit
	$(BIN)/python -m coverage report --omit='$(OF_SERVERS)' --fail-under=93
	$(BIN)/python -m coverage report --include='$(OF_SERVERS)' --fail-under=40
	$(PARALLEL) --no-loadscope-reorder -m slow tests/integration tests/processes tests/unit

check: $(STAMP) ## Check style, layers, types and the links of the docs
	@$(MAKE) --no-print-directory --jobs=2 --output-sync mypy style docs

style: $(STAMP)
	$(BIN)/codespell
	$(BIN)/zizmor --offline --quiet .github
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/basedpyright

mypy: $(STAMP)
	$(BIN)/mypy
	$(BIN)/mypy --platform win32 src
	$(BIN)/python -m mypy.stubtest apscheduler influxdb_client --ignore-missing-stub --mypy-config-file mypy.ini

matrix: $(STAMP) ## Run the tests with other Pythons, Flasks, OpenTelemetries: ARGS="--session lowest" is one
	$(BIN)/python -m nox $(ARGS)

sbom: $(STAMP) ## Write down what an installation consists of, as CycloneDX in dist/
	rm -rf build/sbom && $(PYTHON) -m venv build/sbom && build/sbom/bin/python -m pip install --quiet '.[all]'
	mkdir -p dist && $(BIN)/python -m cyclonedx_py environment build/sbom/bin/python --output-file dist/sbom.cdx.json

test-clickhouse: $(STAMP) ## Run the tests of ClickHouse, on its engine in an environment of its own: nearly a gigabyte
	$(BIN)/python -m nox --reuse-venv=yes --session clickhouse

docs: $(STAMP) ## Build the docs into build/docs, without the net; a warning fails
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs

screenshots: $(STAMP) ## Make the pictures of the viewer in docs/images, by Debian's Chromium
	@$(BIN)/python -m examples.screenshots

bench: $(STAMP) ## Measure speed, briefly with ARGS=--small; the figures go to benchmarks/results/
	@$(BIN)/python -m benchmarks $(ARGS)

clean: ## Remove the environment and all that was made
	rm -rf $(VENV) .nox dist build benchmarks/results
	rm -rf .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml
	@echo 'Setting up $(VENV), which takes a minute'
	@if command -v uv > /dev/null; then \
	    { [ -x $(BIN)/python ] || uv venv --quiet $(UV_PYTHON) $(VENV); } && \
	    uv pip $(INSTALL) --python $(BIN)/python; \
	else \
	    { $(BIN)/python -m pip --version > /dev/null 2>&1 || $(MAKE) --no-print-directory new-venv; } && \
	    $(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1' && \
	    $(BIN)/python -m pip $(INSTALL); \
	fi
	@touch $@

new-venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null || { \
	    echo "Python 3.11 or newer is needed, and '$(PYTHON)' is not: name one, as in 'make PYTHON=python3.12', or install uv." >&2; \
	    exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { \
	    echo "'$(PYTHON)' cannot make virtual environments: install its venv package (on Debian: apt install python3-venv) or uv." >&2; \
	    exit 1; }
	@$(PYTHON) -m venv $(VENV)
