# groundup. `make help` lists the targets. Needs Python 3.11 or newer, and make; everything else goes into .venv.

VENV ?= .venv
WORKERS ?= 2
# On a Linux machine without a GPU, TORCH_INDEX=URL takes PyTorch's CPU build from the index of that address.
TORCH_INDEX ?=
# The first Python that is new enough; PYTHON=/path/to/python chooses another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
USER_READY := $(VENV)/.ready-user
DEV_READY := $(VENV)/.ready-dev
# Every test process computes on one thread: the processes share the cores, and results do not depend on the machine.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
PYTEST := $(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
CODE := src tests

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help quickstart setup test test-all lint format bench gpu docs clean

help: ## what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

quickstart: $(USER_READY) ## install, then text -> trained, measured, talking model in minutes
	$(BIN)/groundup quickstart

setup: $(DEV_READY) ## .venv with everything that tests and checks need

test: lint ## checks and the fast tests
	$(PYTEST) -m "not slow and not cuda" --catalogue=.catalogue/results.json

test-all: lint ## checks and every test; writes docs/catalogue.json
	$(PYTEST) -m "not cuda" --catalogue=docs/catalogue.json

lint: $(DEV_READY) ## format, lint, spelling, types
	$(BIN)/ruff format --check --quiet $(CODE)
	$(BIN)/ruff check --quiet $(CODE)
	$(BIN)/codespell
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(DEV_READY) ## let ruff put the code into shape
	$(BIN)/ruff check --fix-only --quiet $(CODE)
	$(BIN)/ruff format --quiet $(CODE)

bench: $(DEV_READY) ## measure the start of the command line (groundup bench --help lists the others)
	$(BIN)/groundup bench startup

gpu: $(DEV_READY) ## the tests and benchmarks that need a CUDA device
	@$(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || \
		{ echo "make gpu: PyTorch sees no CUDA device here (torch.cuda.is_available() is False); nothing was run." >&2; exit 1; }
	$(BIN)/python -m pytest -m cuda --catalogue=.catalogue/cuda.json
	$(BIN)/groundup doctor
	$(BIN)/groundup bench train --device cuda
	$(BIN)/groundup bench generate --device cuda

docs: $(DEV_READY) ## check that links, commands and code in the documents hold
	$(ONE_THREAD) $(BIN)/python -m pytest -q tests/unit/house/test_documents.py

clean: ## remove the environment, caches and results of tests
	rm -rf $(VENV) .catalogue .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then echo "make: no Python 3.11 or newer was found ($$(python3 --version 2>&1)): install one, or say PYTHON=/path/to/python" >&2; exit 1; fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: $(PYTHON) is $$($(PYTHON) --version 2>&1); groundup needs 3.11 or newer" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "make: Python's venv module is missing (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }

# torch comes first and alone, so that its one build (CPU where the index offers it) is chosen once and then kept.
$(VENV)/.ready-torch: constraints.txt | $(BIN)/python
	@echo "installing torch into $(VENV) ..."
	$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	@touch $@

$(USER_READY): pyproject.toml constraints.txt $(VENV)/.ready-torch
	@echo "installing groundup into $(VENV) ..."
	$(PIP) -e '.[plots,fast,track,check]'
	@touch $@

$(DEV_READY): pyproject.toml constraints.txt $(VENV)/.ready-torch
	@echo "installing groundup with everything for tests into $(VENV) ..."
	$(PIP) -e '.[dev]'
	@touch $@ $(USER_READY)
