# Two commands on a fresh machine: `make demo` and `make test`. They need Python, its venv module
# and make; everything else is installed into the environments below.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check

.PHONY: demo migrations test test-placement test-sqlalchemy20 test-oldest test-long test-cancel test-checkpoints test-kills lint types clean
.PHONY: bench bench-docs bench-large bench-cancel bench-instructions bench-processes bench-wal bench-wal-hour

demo: $(VENV)/.demo
	$(BIN)/python -m examples.shop

# An old database with 100,000 rows, and the application that upgrades it.
migrations: $(VENV)/.dev
	rm -f migrations_example/example.db*
	cd migrations_example && ../$(BIN)/python -m fill && ../$(BIN)/python -m app

test: $(VENV)/.dev
	$(BIN)/python -m pytest

# The newest 2.0.x, without what no version of SQLAlchemy makes a difference to; and the oldest
# versions that pyproject.toml admits.
test-sqlalchemy20: .venv-sqlalchemy20/.dev
	.venv-sqlalchemy20/bin/python -m pytest --ignore tests/backup --ignore tests/benchmarks --ignore tests/turn

# Every statement in a thread, and every statement on the event loop; `make test` learns.
test-placement: $(VENV)/.dev
	$(BIN)/python -m pytest --placement thread
	$(BIN)/python -m pytest --placement inline

test-oldest: .venv-oldest/.dev
	.venv-oldest/bin/python -m pytest

# Every way to exit and to fork, through every door; `make test` has a few of them.
test-long: $(VENV)/.dev
	$(BIN)/python -m pytest -m long

# Cancellations at random moments, through all doors: some minutes; `make test` has a short form.
# And a plainer load on a stock engine and this package's, and the statement after a long one.
test-cancel: $(VENV)/.dev
	$(BIN)/python -m tests.cancellations --count 100000 --seed 1

bench-cancel: $(VENV)/.dev
	for door in stock swap-in engines facade; do \
		$(BIN)/python -m tests.cancellations --only-mixed --door $$door --seed 1 --limit 60; \
	done
	$(BIN)/python -m benchmarks.after_cancellation

# Processes that write and checkpoint one file, and are killed now and then: three minutes;
# `make test` has a short form.
test-checkpoints: $(VENV)/.dev
	$(BIN)/python -m tests.checkpoints --seconds 180 --processes 6 --seed 1

# Processes that write one file are killed, five times a second, and the others go on: a minute;
# `make test` has a short form.
test-kills: $(VENV)/.dev
	$(BIN)/python -m tests.kills --seconds 60 --processes 6 --seed 1

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.dev
	$(BIN)/mypy

# All loads with all contenders: a quarter of an hour. And the page and the pictures, from what it
# wrote.
bench: $(VENV)/.dev
	mkdir -p build
	$(BIN)/python -m benchmarks --json build/benchmarks.json

# What a connection costs by the size of the file, up to 2 GiB: a minute, and 6 GiB of disk meanwhile.
bench-large: $(VENV)/.dev
	mkdir -p build
	$(BIN)/python -m benchmarks open-or-reuse-by-size --large --json build/large.json

bench-docs: $(VENV)/.dev
	$(BIN)/python -m benchmarks.plots build/benchmarks.json $(wildcard build/large.json)

# Python's instructions of a read and of a write, by whose they are: a few seconds.
bench-instructions: $(VENV)/.dev
	$(BIN)/python -m benchmarks.instructions

# Processes that write the same file, beside stock ones: two minutes and a half.
bench-processes: $(VENV)/.dev
	$(BIN)/python -m benchmarks.processes

# The log beside readers, and what checkpoints cost writers: some eleven minutes.
bench-wal: $(VENV)/.dev
	$(BIN)/python -m benchmarks.wal_growth
	$(BIN)/python -m benchmarks.checkpoint_latency

# Draws docs/wal_hour.png: six minutes and a half.
bench-wal-hour: $(VENV)/.dev
	$(BIN)/python -m benchmarks.wal_hour

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python $(PIP_INSTALL) --editable '.[demo]'
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python $(PIP_INSTALL) --editable '.[dev]'
	touch $@ $(VENV)/.demo

.venv-sqlalchemy20/.dev: pyproject.toml
	$(PYTHON) -m venv .venv-sqlalchemy20
	.venv-sqlalchemy20/bin/python $(PIP_INSTALL) --editable '.[dev]' 'sqlalchemy[asyncio]==2.0.*'
	touch $@

.venv-oldest/.dev: pyproject.toml tests/oldest.txt
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python $(PIP_INSTALL) --editable '.[dev]' --constraint tests/oldest.txt
	touch $@

clean:
	rm -rf .venv .venv-sqlalchemy20 .venv-oldest .mypy_cache .pytest_cache .ruff_cache
