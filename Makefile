# Every target sets up what it needs in .venv, once, and again when pyproject.toml changes.
#
#   make demo      run the quickstart on the embedded server; build/quickstart.html shows it
#   make lab       open JupyterLab on the notebooks
#   make serve     serve Lyceum's API on this machine
#   make check     lint, format, types, spelling, plain English
#   make quick     check, most unit tests, and ten tests with real kernels
#   make test      check, then every test but the exhaustive ones; this is what CI runs
#   make test-all  the same with the exhaustive ones: once a week, and before a release
#   make fuzz      ten minutes of generated requests to the server
#   make faults    kill the server 200 times under 20 000 callbacks; fill its disk; turn its clock
#   make bench     measure against %%script, %%px and a plain cell

PYTHON ?= python3
BIN := .venv/bin

# Most tests wait for other processes most of the time: more workers than cores keep the cores busy.
WORKERS ?= 3
# A module stays on one worker, so that its fixtures are made once.
PARALLEL = $(BIN)/pytest --dist loadscope --no-loadscope-reorder
# With an inspecting proxy, the system's certificates are the trusted ones.
export UV_SYSTEM_CERTS ?= true
# Hundreds of processes import this package; without its bytecode each of them compiles it again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo lab serve check check-types check-text quick test test-all test-alone test-engine \
  test-browser fuzz faults bench

help:
	@sed -n 's/^#   //p' Makefile

demo: .venv/installed-demo
	@$(BIN)/lyceum-magic demo notebooks/quickstart.ipynb --output-dir build

lab: .venv/installed-dev
	$(BIN)/jupyter lab notebooks

serve: .venv/installed-demo
	$(BIN)/lyceum-magic serve

check: .venv/installed-dev
	+$(MAKE) --no-print-directory --jobs 2 --output-sync=target check-types check-text

check-types:
	$(BIN)/mypy

check-text:
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/codespell
	$(BIN)/pytest -q -o addopts='-p no:nbval -p no:schemathesis' tests/test_language.py

# One or two of each main path through a real kernel and the embedded server.
QUICK := $(addprefix tests/integration/,\
  test_kernel.py::test_each_line_comes_before_the_next_one_is_printed \
  test_kernel.py::test_the_value_of_the_last_line_is_shown_and_lines_count_as_in_the_notebook \
  test_kernel.py::test_no_raise_lets_the_notebook_go_on \
  test_kernel.py::test_a_typing_error_is_shown_as_python_shows_it_and_starts_nothing \
  test_kernel.py::test_an_interrupt_aborts_the_run_and_leaves_no_process \
  test_values.py::test_values_go_in_and_come_out \
  test_values.py::test_files_go_there_and_come_back_beside_the_notebook \
  test_errors.py::test_the_exception_is_at_hand \
  test_detached.py::test_a_detached_cell_returns_at_once_and_its_outputs_follow \
  test_callback_cells.py::test_a_url_is_tried)

quick: check
	$(PARALLEL) -n 2 -m 'not exhaustive and not other_python and not not_quick' $(QUICK) \
	  tests/unit tests/test_architecture.py tests/test_samples.py

# Without an engine and with one: both wait much of their time, so they run at once. The browser
# comes after the engine, whose tests end first.
test: SELECT := -m 'not exhaustive'
test test-all: check
	+$(MAKE) --no-print-directory --jobs 2 --output-sync=target SELECT="$(SELECT)" test-alone test-browser

# The longest modules come first, and the quick ones fill what is left at the end.
test-alone:
	$(PARALLEL) $(SELECT) -n $(WORKERS) tests/faults tests/attacks tests/integration tests/unit \
	  tests/test_architecture.py tests/test_samples.py

# Each worker has a network of its own, or an engine too.
test-engine:
	$(PARALLEL) $(SELECT) --tx 'popen//python=tests/tools/network-namespace $(BIN)/python' tests/network
	PYTHON=$(BIN)/python $(PARALLEL) $(SELECT) \
	  --tx '2*popen//python=tests/tools/docker-engine $(BIN)/python' tests/containers

test-browser: test-engine
	$(BIN)/pytest $(SELECT) tests/browser

fuzz: .venv/installed-dev
	FUZZ_S=600 PYTHON=$(BIN)/python tests/tools/docker-engine $(BIN)/pytest tests/containers/test_fuzz.py

faults: .venv/installed-dev
	$(BIN)/python -m tests.faults.report

bench: .venv/installed-dev
	$(BIN)/python -m tests.benchmarks.bench

# Compiled, so that the first cell need not wait for it. pip is slower; it takes over where uv finds
# no index, because pip's own settings name one.
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
