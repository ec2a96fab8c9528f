# What continuous integration runs, piece by piece. `make setup` once, `make check` before a change is offered.
PYTHON ?= .venv/bin/python

.PHONY: setup check test lint types layers

setup:
	python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e '.[dev]'

check: lint types layers test

test:
	$(PYTHON) -m pytest -n logical

lint:
	$(PYTHON) -m ruff check . && $(PYTHON) -m ruff format --check .

types:
	$(PYTHON) -m mypy

layers:
	.venv/bin/lint-imports
