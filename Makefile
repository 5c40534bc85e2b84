# make demo and make test are the two commands of a newcomer; each creates .venv if need be.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Real data sets beside the checkout, when they are there; tests and benchmarks that need them skip otherwise.
ifneq ($(wildcard ../shared/data),)
export OPENWORK_DATA ?= $(abspath ../shared/data)
endif

BENCH := solver_table step_time fused_step coupled_step loop_overhead zoo shrunk_latency dwf_cost slice_step mast_traffic \
	am_cost am_scaling sharded_traffic
REPRODUCE := identification mnist_logistic fashion_nuclear fashion_lenet5 sides \
	dwf_oracles dwf_reference dwf_frontier dwf_gated \
	mast_a5a mast_variance_reduction mast_bounds mast_fashion am_paper \
	am_sign am_group_lasso compare_fashion compare_digits compare_resume compare_targets

.PHONY: help demo test test-quick lint types format bench gpu reproduce $(BENCH) $(REPRODUCE) clean
.NOTPARALLEL:  # two benchmarks at once would time each other

help:
	@echo "make demo       train RAMDA on digits, shrink the model and write the HTML report"
	@echo "make test       format check, lint, types, tests: what CI runs"
	@echo "make test-quick the tests without the slow ones"
	@echo "make bench      solver, step times, loop overhead, shrinking: tables in benchmarks/results"
	@echo "make gpu        tests and measurements that need a GPU (ten minutes): tables in build/gpu-out"
	@echo "make reproduce  published experiments (many hours): tables in benchmarks/results"
	@echo "make lint | types | format | clean"

# torch first and alone: see requirements/torch.txt. Files are compiled when they are first imported, the others never.
$(INSTALLED): requirements/torch.txt requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "openwork needs Python >= 3.11; say which one: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --no-compile --requirement requirements/torch.txt
	$(BIN)/pip install --no-compile --requirement requirements/dev.txt
	$(BIN)/pip install --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(INSTALLED)
	@n=1; while [ -e runs/demo-$$n ]; do n=$$((n + 1)); done; \
	$(BIN)/openwork train --out runs/demo-$$n && \
	$(BIN)/openwork shrink runs/demo-$$n && \
	$(BIN)/openwork report runs/demo-$$n && \
	echo "Report: $(CURDIR)/runs/demo-$$n/report.html"

# Each process takes a half in order and, when done, from the other's end, so that what a file's tests share is made once.
PYTEST := $(BIN)/pytest -n 2 --dist worksteal

test: lint types
	$(PYTEST)

test-quick: $(INSTALLED)
	$(PYTEST) -m "not slow"

lint: $(INSTALLED)
	$(BIN)/ruff format --check
	$(BIN)/ruff check

# Both at once: each uses one core.
types: $(INSTALLED)
	@$(BIN)/pyright --project pyright-strict.json & strict=$$!; $(BIN)/pyright && wait $$strict

format: $(INSTALLED)
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: $(BENCH)
	$(BIN)/python benchmarks/readme_table.py

gpu: $(INSTALLED)
	PYTHON=$(BIN)/python bash benchmarks/gpu.sh

reproduce: $(REPRODUCE)
	$(BIN)/python benchmarks/readme_table.py

# Each writes its table and its command under benchmarks/results; `make step_time` runs one alone.
$(BENCH) $(REPRODUCE): $(INSTALLED)
	$(BIN)/python benchmarks/$@.py

clean:
	rm -rf build *.egg-info .pytest_cache .ruff_cache .hypothesis
	find openwork tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
