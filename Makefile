# What people run is what is checked: see `make help`. Everything is installed into .venv.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := $(CURDIR)/.venv/bin
# Lets protos/generate.py find buf.
export PATH := $(BIN):$(PATH)

# One more than there are processors, for tests also wait; each may take 1.5 GB, so at most six.
WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN); echo $$((n < 5 ? n + 1 : 6)))
SIDE_BY_SIDE := --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help install demo corpus test test-long images test-deploy test-deploy-fast check protos bench clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: .venv/installed ## Everything into .venv, in the versions of constraints.txt

# The build backend is constrained too; older pips know neither that nor dependency groups.
.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Demiurge needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Installing into .venv: a few minutes, once"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade --constraint constraints.txt pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt \
		--build-constraint constraints.txt --editable '.[all]' --group dev
	@touch $@

demo: install ## From the example recordings to a piece
	$(BIN)/python examples/demo.py

corpus: install ## Hours of music to train predictors on, from packages of Debian
	$(BIN)/python examples/fetch_corpora.py

test: install ## Every test that takes seconds, side by side (WORKERS=n)
	$(BIN)/python -m pytest -m "not slow and not containers" $(SIDE_BY_SIDE)

test-long: install ## The tests that take minutes
	$(BIN)/python -m pytest -m "slow and not containers" --timeout=3600

images: install ## The image of each noun, with the torch of this machine where it is for CPUs
	$(BIN)/python deploy/docker/build.py

test-deploy: install ## Images, compose and what breaks them: needs Docker; all of it takes an hour
	$(BIN)/python -m pytest tests/deploy -m containers --timeout=3600

test-deploy-fast: install ## The half of that which takes minutes
	$(BIN)/python -m pytest tests/deploy -m "containers and not slow" --timeout=900

check: install ## Lint, types, import walls, and the contract with its generated code
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python protos/generate.py --check

protos: install ## Generate Python from the contract again
	$(BIN)/python protos/generate.py

bench: install ## Each benchmark in turn; ratios within one run
	@for benchmark in tests/benchmarks/bench_*.py; do \
		echo "== $$benchmark"; $(BIN)/python "$$benchmark" || exit 1; \
	done

clean: ## Removes what was installed, cached and made by the demo
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
