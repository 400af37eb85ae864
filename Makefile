# Every target sets up what it needs in .venv, once, and again when pyproject.toml changes.
#
#   make demo     run the quickstart on the embedded server; build/quickstart.html shows it
#   make lab      open JupyterLab on the notebooks
#   make serve    serve Lyceum's API on this machine
#   make check    lint, format, types, spelling, plain English
#   make test     check, then every test, several at a time
#   make fuzz     ten minutes of made-up requests to the server
#   make faults   kill the server 200 times under 20 000 callbacks; fill its disk; turn its clock
#   make bench    measure against %%script, %%px and a plain cell

PYTHON ?= python3
BIN := .venv/bin

# Most tests wait for other processes most of the time: more workers than cores keep the cores busy.
WORKERS ?= 4
# A module stays on one worker, so that its fixtures are made once.
PARALLEL = $(BIN)/pytest --dist loadscope --no-loadscope-reorder

# A machine behind an inspecting proxy trusts what its system trusts.
export UV_SYSTEM_CERTS ?= true

.DEFAULT_GOAL := help
.PHONY: help demo lab serve check test fuzz faults bench

help:
	@sed -n 's/^#   //p' Makefile

demo: .venv/installed-demo
	@$(BIN)/lyceum-magic demo notebooks/quickstart.ipynb --output-dir build

lab: .venv/installed-dev
	$(BIN)/jupyter lab notebooks

serve: .venv/installed-demo
	$(BIN)/lyceum-magic serve

check: .venv/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/pytest -q -o addopts= tests/test_language.py

# The longest modules come first, and the quick ones fill what is left at the end. A browser and a
# JupyterLab need both cores for themselves. Of the last two runs, each worker has a network of its
# own, or an engine too.
test: check
	$(PARALLEL) -n $(WORKERS) tests/faults tests/attacks tests/integration tests/unit tests/test_architecture.py
	$(BIN)/pytest tests/browser
	$(PARALLEL) --tx 'popen//python=tests/tools/network-namespace $(BIN)/python' tests/network
	PYTHON=$(BIN)/python $(PARALLEL) --tx '2*popen//python=tests/tools/docker-engine $(BIN)/python' tests/containers

fuzz: .venv/installed-dev
	FUZZ_S=600 PYTHON=$(BIN)/python tests/tools/docker-engine $(BIN)/pytest tests/containers/test_fuzz.py

faults: .venv/installed-dev
	$(BIN)/python -m tests.faults.report

bench: .venv/installed-dev
	$(BIN)/python -m tests.benchmarks.bench

# Compiled, so that the first cell need not wait for it. pip is slower, and takes over where uv does
# not find its way: pip's own settings name an index.
.venv/installed-%: pyproject.toml | $(BIN)/uv
	$(BIN)/uv pip install --python $(BIN)/python --quiet --compile-bytecode -e '.[$*]' \
	  || $(BIN)/python -m pip install --quiet -e '.[$*]'
	@touch $@

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'Python 3.11 or later is needed; name one: make PYTHON=python3.11 ...' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo 'The venv module is missing: apt install python3-venv' >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv
