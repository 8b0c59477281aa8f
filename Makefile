# The verbs that people and CI share. On a fresh clone each does its own set-up.
#   make PYTHON=/path/to/python3.12 VENV=/elsewhere/venv ARGS="-k metrics" test

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
ARGS ?=
WORKERS ?= 2
HOST ?= 127.0.0.1
PORT ?= 8000
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check install
LOCK = uv pip compile pyproject.toml --quiet --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header --no-annotate

.PHONY: install check test test-fast demo serve lock clean

install: $(STAMP)

$(STAMP): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"WatchNext needs Python 3.11 or later, this is {v.major}.{v.minor}: make PYTHON=... $@")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): a few minutes the first time"
	$(PIP) --require-hashes --requirement requirements/dev.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: install
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile $(ARGS)

test-fast: install
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile -m "not slow" $(ARGS)

demo: install
	$(BIN)/watchnext demo $(SOURCE)

serve: install
	$(BIN)/watchnext serve --host $(HOST) --port $(PORT)

# Every environment gets the same versions: dev holds all, the others are cut from it.
lock:
	$(BIN)/$(LOCK) --extra train --extra bfloat16 --extra dev --output-file requirements/dev.txt
	$(BIN)/$(LOCK) --extra train --constraints requirements/dev.txt --output-file requirements/train.txt
	$(BIN)/$(LOCK) --constraints requirements/dev.txt --output-file requirements/serve.txt
	$(BIN)/$(LOCK) --extra bfloat16 --constraints requirements/dev.txt --output-file requirements/bfloat16.txt

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
