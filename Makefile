# Two commands do everything on a machine with only Python:
#   make demo   installs pinned versions into .venv, runs the main job and says where the report is
#   make test   lint, types, layers, doctests and the quick test suite
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

export TOKENIZERS_PARALLELISM := false
export HF_HUB_OFFLINE := 1
# Compiled tests are kept: without them each process of the tests rewrites every file again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test integration test-slow conformance lint types layers quick notebooks format clean

demo: $(STAMP)
	$(BIN)/domainformer quickstart --output runs/demo --overwrite

test: lint types layers quick integration

# torch first and pinned: a looser requirement would let another package pull a second build of it.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $(STAMP)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

layers: $(STAMP)
	$(BIN)/lint-imports

# Two processes with one thread each; a file's tests stay together, for they share what it trained.
# Files run as they are found: the many short doctests come last, so that both end together.
quick: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadfile --no-loadscope-reorder --durations=15

# What starts another program (Ray, Spark, a hub, killed trainings, exporters) or runs a whole chain.
integration: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadfile -m integration --durations=5 tests

test-slow: $(STAMP)
	$(BIN)/pytest -q -m slow --durations=15

# transformers' own common tests on our model and tokenizers, from its source distribution.
conformance: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 -c tests/conformance/pytest.ini tests/conformance

# Run the notebooks and store what they print.
notebooks: $(STAMP)
	$(BIN)/python examples/execute.py

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
