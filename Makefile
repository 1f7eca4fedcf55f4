# Every target does its own set-up: a virtual environment in .venv, the build, the dependencies.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip --disable-pip-version-check --quiet
# Hold what pip installs, and what it builds with, to the pinned versions (old and new pip read
# different variables; a relative path, because pip splits the value at spaces).
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
SOURCES := $(shell find csrc index optimize service loaders client -type f -not -path '*/.*' -not -path '*/__pycache__/*' -not -name '*.so') CMakeLists.txt pyproject.toml constraints.txt

.PHONY: demo test docs test-slow test-native lint examples bench constraints clean help
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(VENV)/.installed  ## near-duplicate URLs and related genes over HTTP, measured (about a minute after the build)
	@$(BIN)/closeby demo

test: $(VENV)/.installed-test  ## the fast tests
	@$(BIN)/python -m pytest -q -m 'not slow and not cluster' -n auto

test-slow: $(VENV)/.installed-test  ## the slow tests
	@$(BIN)/python -m pytest -q -m 'slow and not cluster' -n auto --dist worksteal

test-cluster: $(VENV)/.installed-cluster  ## the tests that need PostgreSQL, object storage and Ray (from packages; a few minutes)
	@$(BIN)/python -m pytest -q -m cluster

test-native: $(VENV)/.installed-test  ## the tests of the kernels under AddressSanitizer and UndefinedBehaviourSanitizer
	@tests/native/run_sanitized.sh $(BIN)/python

lint: $(VENV)/.installed-lint  ## style, types, import contracts, Docker files
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/hadolint docker/Dockerfile
	@$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker/compose.yaml

examples: $(VENV)/.installed-test  ## run every example against a server of its own
	@$(BIN)/python -m pytest -q tests/test_examples.py

docs: $(VENV)/.installed-docs  ## the pages of docs/ and the Python API's reference, as HTML in build/docs
	@$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	@$(BIN)/python -m pdoc -d google -o build/docs/api closeby.index closeby.optimize closeby.client closeby.loaders
	@echo "closeby: build/docs/index.html"

# The page shows what there is, also where a command failed; make then fails for it.
bench: $(VENV)/.installed-peers  ## every table and figure that needs no other data (about an hour and a half)
	@$(BIN)/python -m benchmarks all; failed=$$?; $(BIN)/python -m benchmarks page && exit $$failed

constraints: $(BIN)/python  ## pin the versions anew: writes constraints.txt
	@env -u PIP_CONSTRAINT -u PIP_BUILD_CONSTRAINT $(BIN)/python .ci/write_constraints.py

clean:  ## remove the environment and everything built
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("closeby needs Python 3.11 or newer; set PYTHON=python3.11 (this is %d.%d)" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed; on Debian or Ubuntu: apt-get install python3-venv python3-dev g++ make"; exit 1; }

$(VENV)/.installed: $(SOURCES) | $(BIN)/python
	@echo "closeby: building and installing into $(VENV) (a few minutes the first time)"
	@$(PIP) install .
	@touch $@

# The project is installed by now, so these add an extra's packages without building it again.
$(VENV)/.installed-test: $(VENV)/.installed
	@$(PIP) install 'closeby[test]'
	@touch $@

$(VENV)/.installed-cluster: $(VENV)/.installed-test
	@$(PIP) install 'closeby[cluster,test-cluster]'
	@touch $@

$(VENV)/.installed-lint: $(VENV)/.installed-test
	@$(PIP) install 'closeby[lint]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	@$(PIP) install 'closeby[docs]'
	@touch $@

$(VENV)/.installed-peers: $(VENV)/.installed
	@$(PIP) install 'closeby[peers]'
	@touch $@
