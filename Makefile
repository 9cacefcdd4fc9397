# One entry point for each habit; `make help` lists them. CI runs the same (.ci/run).
# Copyright 2026 The dscache authors. SPDX-License-Identifier: Apache-2.0

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PROJECTS := handlers/sdk . builder handlers/dataset-handlers
TESTS ?=
SECONDS ?= 60
SEED ?= 0
SEEDS ?= 1000000000

.DEFAULT_GOAL := help
.PHONY: help demo test stress check docs bench up down lock clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(READY)  ## the whole story on this machine: a store, a builder, a dataset, a training run
	$(BIN)/python demo/run.py

test: $(READY)  ## everything that has to be there, then all tests (TESTS="-k word" for some)
	@infra/tools
	@$(BIN)/python -m dscache.devstack.build > /dev/null
	@PYTHONPATH=tests $(BIN)/python -m support.gotools toxiproxy mc > /dev/null
	@rm -rf .coverage
	@$(BIN)/coverage run -m pytest $(TESTS)

stress: $(READY)  ## damaged input for every decoder, for a while (SECONDS=60 SEED=0 SEEDS=N)
	@PYTHONPATH=tests $(BIN)/python -m fuzz --seconds $(SECONDS) --seed $(SEED) --seeds $(SEEDS)

check: $(READY)  ## ruff, formatting, types and the documentation site
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@$(MAKE) --no-print-directory docs

# A fresh environment each time: a cached page would not repeat its warnings.
docs: $(READY)  ## the documentation site, in build/docs; a dead link is an error
	@rm -rf build/docs
	$(BIN)/sphinx-build --quiet --fresh-env --fail-on-warning --doctree-dir build/doctrees docs build/docs

bench: $(READY)  ## every figure of docs/benchmarks.md
	@$(BIN)/python -m dscache.devstack.build > /dev/null
	@PYTHONPATH=tests $(BIN)/python -m support.gotools toxiproxy mc rclone > /dev/null
	$(BIN)/python -m benchmarks

up: $(READY)  ## a local store and builder (ARGS="--raw photos=DIR")
	$(BIN)/dscache up $(ARGS)

down: $(READY)  ## stop them (ARGS=--delete removes their data)
	$(BIN)/dscache down $(ARGS)

lock: $(READY)  ## write requirements/dev.txt anew from dev.in: newest versions, with hashes
	$(BIN)/uv pip compile --quiet --upgrade --generate-hashes --universal --python-version 3.11 \
	  --no-header --no-emit-index-url --no-emit-find-links \
	  requirements/dev.in --output-file requirements/dev.txt

clean:  ## remove everything that is made in the checkout
	rm -rf $(VENV) build dist .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

# The environment is exactly what the lock says, then our own projects from the checkout. The stamp
# makes a warm run cost nothing; it is written last, so an interrupted run is done again.
$(READY): requirements/dev.txt pyproject.toml builder/pyproject.toml \
          handlers/sdk/pyproject.toml handlers/dataset-handlers/pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || { sed -n '/^uv==/,/[^\\]$$/p' $< > $(VENV)/uv.txt && \
	  $(BIN)/python -m pip install --quiet --no-deps --require-hashes -r $(VENV)/uv.txt; }
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip sync --quiet --require-hashes requirements/dev.txt
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --no-deps \
	  --build-constraint requirements/dev.txt $(foreach project,$(PROJECTS),--editable $(project))
	@touch $@
