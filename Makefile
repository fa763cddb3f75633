# `make help` lists what there is. Two commands on a fresh machine: `make demo` and `make test`. They need Python, its venv module
# and make; everything else is installed into the environments below.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check

CASES ?= 3.10-2.0 3.11-2.0 3.11-2.1 3.13-2.0 3.13-2.1

.PHONY: help demo demo-postgresql migrations test test-against-stock test-cases test-placement test-sqlalchemy20 test-oldest test-python313 coverage test-long test-cancel test-checkpoints test-kills test-replica-kills test-pgbouncer test-other-engines test-sqlalchemy-suite test-sqlalchemy20-suite lint types types-sqlalchemy20 clean
.PHONY: bench bench-busy bench-docs bench-copy bench-fresh bench-large bench-pythons bench-cancel bench-instructions bench-least bench-opening bench-pragmas bench-live bench-processes bench-wal bench-wal-hour

## To begin with

help:  ## what there is to make
	@awk -F ':.*## ' '/^## /{print "\n" substr($$0, 4)} /^[a-z0-9-]+:.*## /{printf "  make %-26s%s\n", $$1, $$2}' Makefile

demo: $(VENV)/.demo  ## a shop with a web server, customers and jobs; its books must balance
	$(BIN)/python -m examples.shop

demo-postgresql: $(VENV)/.demo-postgresql  ## the same shop on PostgreSQL, with a replica that lags
	$(BIN)/python -m examples.shop.postgresql

# An old database with 100,000 rows, and the application that upgrades it.
migrations: $(VENV)/.dev  ## an old database, and the application that upgrades it
	rm -f migrations_example/example.db*
	cd migrations_example && ../$(BIN)/python -m fill && ../$(BIN)/python -m app

## Before each commit

# Each environment remembers what has failed in it by itself: they may run at the same time.
cache = -o cache_dir=$(or $(CACHE),$(1)/.pytest)
test: $(VENV)/.dev  ## the tests, half an hour; ARGS=tests/turn runs some of them
	$(BIN)/python -m pytest $(call cache,$(VENV)) $(ARGS)

lint: $(VENV)/.dev  ## ruff
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.dev  ## mypy --strict
	$(BIN)/mypy

types-sqlalchemy20: .venv-sqlalchemy20/.dev  ## the types of the public names, with SQLAlchemy 2.0
	.venv-sqlalchemy20/bin/mypy --follow-imports silent --cache-dir .venv-sqlalchemy20/.mypy tests/test_typing.py

## More tests

# Other versions, where these make a difference: not the turn, the log, copies, which know none of
# them, nor servers that freeze or fall, which drivers notice: the oldest ones are tried. Of a test with many cases one in ONE_IN runs, each version others; `make test` runs all, and
# so does ONE_IN=1, before a release.
ONE_IN ?= 8
FALLING := $(addprefix tests/servers/test_,failover.py frozen.py frozen_life.py promotion.py)
VERSIONED := tests/closures tests/compat tests/doors tests/driver tests/execution \
	$(filter-out %_browser.py %_history.py,$(wildcard tests/integrations/test_*.py)) tests/placement \
	tests/real_programs $(filter-out $(FALLING),$(wildcard tests/servers/test_*.py)) tests/sessions tests/sqlite tests/transactions tests/test_closing.py \
	tests/test_database.py tests/test_disconnect.py tests/test_exit.py tests/test_fastapi.py tests/test_fork.py \
	tests/test_loops.py tests/test_migrations_example.py tests/test_repr.py tests/test_task_factories.py
versioned = -m pytest $(call cache,$(@:test-%=.venv-%)) $(or $(ARGS),--one-in $(ONE_IN) $(VERSIONED))

test-sqlalchemy20: .venv-sqlalchemy20/.dev  ## the newest SQLAlchemy 2.0.x, where versions matter; ONE_IN=1 runs all cases
	.venv-sqlalchemy20/bin/python $(versioned)

test-oldest: .venv-oldest/.dev  ## the oldest versions that pyproject.toml admits, in the same way; Python 3.10, if it is there
	.venv-oldest/bin/python $(versioned) $(if $(ARGS),,$(FALLING))

test-python313: .venv-python313/.dev  ## Python 3.13, in the same way
	.venv-python313/bin/python $(versioned)

# Lines and branches, with a floor (pyproject.toml); what child processes run is counted, too. The
# report is in build/coverage/. ARGS=tests/turn measures a part, which no floor is for.
# From Python 3.14 on it is sys.monitoring that counts, which greenlets do not matter to. Before, the
# rest of a function that has awaited something in a greenlet is not seen, and so the figure is lower.
monitored = $(shell $(BIN)/python -c 'import sys; print("thread" if sys.version_info >= (3, 14) else "thread,greenlet")')
coverage: $(VENV)/.dev  ## make test, and whether it runs 95 % of the package's lines and branches
	rm -rf build/coverage && mkdir -p build/coverage
	$(BIN)/python -m coverage run --concurrency=$(monitored) -m pytest $(ARGS)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage html --quiet --fail-under 0
	$(BIN)/python -m coverage report $(if $(ARGS),--fail-under 0)

# Programs as people write them, through every door, by version of Python and SQLAlchemy, each with
# Python's SQLite and with one that a package brings; `make test` runs most of them, once. For fewer
# environments: `make test-cases CASES=3.13-2.1`.
test-cases: $(CASES:%=test-cases-%)  ## programs as people write them, on several Pythons, SQLAlchemys and SQLites
test-cases-%: .venv-cases-%/.dev
	.venv-cases-$*/bin/python -m pytest -m 'long or not long' tests/real_programs
	SQLITE_MODULE=pysqlite3 .venv-cases-$*/bin/python -m pytest -m 'long or not long' tests/real_programs

# Every statement in a thread, and every statement on the event loop; `make test` learns.
test-placement: $(VENV)/.dev  ## all statements in threads, and all on the event loop
	$(BIN)/python -m pytest --placement thread
	$(BIN)/python -m pytest --placement inline

# Every way to exit and to fork, through every door; `make test` has a few of them.
test-long: $(VENV)/.dev  ## every way to exit and to fork: some minutes
	$(BIN)/python -m pytest -m long

# Random programs on stock and here: each result, error, and the file at the end; `make test` has a short form.
test-against-stock: $(VENV)/.dev  ## 1,500 random programs, compared with stock: some minutes
	$(BIN)/python -m tests.against_stock --count 500 --seed 100

# Cancellations at random moments, through all doors, by one event loop and by several, and
# databases that are closed meanwhile: some minutes; `make test` has a short form.
test-cancel: $(VENV)/.dev  ## 100,000 random cancellations: some minutes
	$(BIN)/python -m tests.cancellations --count 100000 --seed 1
	$(BIN)/python -m tests.cancellations --count 50000 --seed 2 --loops 4
	$(BIN)/python -m tests.cancellations --closings 200 --seed 3 --loops 3

# Processes that write and checkpoint one file, and are killed now and then: three minutes;
# `make test` has a short form.
test-checkpoints: $(VENV)/.dev  ## many processes write and checkpoint one file: three minutes
	$(BIN)/python -m tests.checkpoints --seconds 180 --processes 6 --seed 1

# Processes that write one file are killed, five times a second, and the others go on: a minute;
# `make test` has a short form.
test-kills: $(VENV)/.dev  ## processes that write are killed: a minute
	$(BIN)/python -m tests.kills --seconds 60 --processes 6 --seed 1

# PGBOUNCER is the path of the program, where it is not installed with the system's packages.
test-pgbouncer: $(VENV)/.dev  ## ServerDatabase and plain engines through PgBouncer, where it is installed
	$(BIN)/python -m pytest tests/pgbouncer

test-other-engines: .venv-other-engines/.dev  ## other distributions of SQLite, and programs beside it
	.venv-other-engines/bin/python -m pytest tests/other_engines

# Readers of sessions on a replica of PostgreSQL are killed, a thousand of them: two minutes;
# `make test` has a short form.
test-replica-kills: $(VENV)/.dev  ## readers on a PostgreSQL replica are killed: two minutes
	$(BIN)/python -m tests.replica_kills --count 1000 --seed 1

# SQLAlchemy's own test suite on the stock pool and on SQLitePool, compared. ONLY=test/engine runs
# a part of it.
test-sqlalchemy-suite: $(VENV)/.dev  ## SQLAlchemy's own tests on both pools; ONLY=test/engine runs a part
	$(BIN)/python -m tests.sqlalchemy_suite $(addprefix --only ,$(ONLY))

test-sqlalchemy20-suite: .venv-sqlalchemy20/.dev  ## the same on the newest 2.0.x
	.venv-sqlalchemy20/bin/python -m tests.sqlalchemy_suite $(addprefix --only ,$(ONLY))

## Measurements

# All loads with all contenders, on all cores and pinned to one: three quarters of an hour. And the
# page and the pictures, from what it wrote. Where a process cannot be pinned: `make bench CORES=all`;
# for uvloop's event loop: `make bench BENCH=--uvloop`.
CORES ?= all 1
BENCH ?=
cores = $(CORES:%=--cores %)
bench: $(VENV)/.dev  ## all loads with all contenders, on all cores and on one: three quarters of an hour
	mkdir -p build
	$(BIN)/python -m benchmarks $(cores) $(BENCH) --json build/benchmarks.json

bench-busy: $(VENV)/.dev  ## a server's load beside three processes that never rest: six minutes
	mkdir -p build
	$(BIN)/python -m benchmarks open-loop $(cores) --beside 3 --json build/busy.json

# Short loads on each Python that is installed, with asyncio's event loop and with uvloop: two minutes
# each. For fewer of them: `make bench-pythons PYTHONS=3.13`.
PYTHONS ?= $(foreach one,3.11 3.12 3.13 3.14,$(if $(call python_of,$(one)),$(one)))
short := point-reads one-row-writes orm-get --seconds 0.3 --contender asyncio.to_thread \
	--contender SQLitePool --contender 'SQLiteDatabase, Core' --contender SQLiteDatabase \
	--contender run_read --contender run_read_core --contender run_write --contender run_write_core
bench-pythons: $(VENV)/.dev  ## short loads on every Python that is installed, and on uvloop: two minutes each
	rm -rf build/pythons
	for one in $(PYTHONS); do $(MAKE) --no-print-directory bench-python-$$one || exit 1; done
	$(BIN)/python -m benchmarks.pythons $(foreach one,$(PYTHONS),build/pythons/$(one).json build/pythons/$(one)-uvloop.json)
bench-python-%: .venv-bench-%/.dev
	mkdir -p build/pythons
	.venv-bench-$*/bin/python -m benchmarks $(short) $(cores) $(BENCH) --json build/pythons/$*.json
	.venv-bench-$*/bin/python -m benchmarks $(short) $(cores) $(BENCH) --uvloop --json build/pythons/$*-uvloop.json

# What a connection costs by the size of the file, up to 2 GiB: a minute, and 6 GiB of disk meanwhile.
bench-large: $(VENV)/.dev  ## files up to 2 GiB: a minute, and 6 GiB of disk
	mkdir -p build
	$(BIN)/python -m benchmarks open-or-reuse-by-size --large --json build/large.json

bench-docs: $(VENV)/.dev  ## docs/benchmarks.md and its pictures, from what was measured
	$(BIN)/python -m benchmarks.plots build/benchmarks.json $(wildcard build/large.json)

# Python's instructions of a read and of a write, by whose they are: a few seconds.
bench-instructions: $(VENV)/.dev  ## Python's instructions of a read and of a write
	$(BIN)/python -m benchmarks.instructions

# The least process time that any package could have behind SQLAlchemy's interface, on one core: a minute.
bench-least: $(VENV)/.dev  ## the least process time behind SQLAlchemy's interface, beside ours: a minute
	$(BIN)/python -m benchmarks.least

# A plainer load of cancellations on a stock engine and this package's, and the statement after a long one.
bench-cancel: $(VENV)/.dev  ## cancellations, beside a stock engine
	for door in stock swap-in engines facade; do \
		$(BIN)/python -m tests.cancellations --only-mixed --door $$door --seed 1 --limit 60; \
	done
	$(BIN)/python -m benchmarks.after_cancellation

# What opening and closing cost, beside stock: some seconds.
bench-opening: $(VENV)/.dev  ## what opening and closing cost, beside stock: some seconds
	$(BIN)/python -m benchmarks.opening

# temp_store and mmap_size, on a small file and on one of 2 GiB: some minutes, and 2 GiB of disk.
bench-pragmas: $(VENV)/.dev  ## temp_store and mmap_size, on files of 16 MiB and 2 GiB: some minutes
	$(BIN)/python -m benchmarks.pragmas

# 1 GiB to a PostgreSQL that it starts: some minutes, and 4 GiB of disk.
bench-copy: $(VENV)/.dev  ## copies 1 GiB to PostgreSQL: some minutes, and 4 GiB of disk
	$(BIN)/python -m benchmarks.copying

# What the live page costs beside 1,000 statements a second: half a minute.
bench-live: $(VENV)/.dev  ## what the live page costs, beside 1,000 statements a second: half a minute
	$(BIN)/python -m benchmarks.live_page

# Reads right after writes, on replicas that lag: of 100,000 pairs, how many are stale.
bench-fresh: $(VENV)/.dev  ## 100,000 reads right after writes, on replicas that lag
	$(BIN)/python -m benchmarks.freshness

# Processes that write the same file, beside stock ones: two minutes and a half.
bench-processes: $(VENV)/.dev  ## processes that write one file: two minutes and a half
	$(BIN)/python -m benchmarks.processes

# The log beside readers, and what checkpoints cost writers: some eleven minutes.
bench-wal: $(VENV)/.dev  ## the log beside readers, writers beside checkpoints: eleven minutes
	$(BIN)/python -m benchmarks.wal_growth
	$(BIN)/python -m benchmarks.checkpoint_latency

# Draws docs/wal_hour.png: six minutes and a half.
bench-wal-hour: $(VENV)/.dev  ## draws docs/wal_hour.png: six minutes and a half
	$(BIN)/python -m benchmarks.wal_hour

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python $(PIP_INSTALL) --editable '.[demo]'
	touch $@

$(VENV)/.demo-postgresql: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python $(PIP_INSTALL) --editable '.[demo-postgresql]'
	touch $@ $(VENV)/.demo

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python $(PIP_INSTALL) --editable '.[dev]'
	touch $@ $(VENV)/.demo $(VENV)/.demo-postgresql

.venv-sqlalchemy20/.dev: pyproject.toml
	$(PYTHON) -m venv .venv-sqlalchemy20
	.venv-sqlalchemy20/bin/python $(PIP_INSTALL) --editable '.[dev]' 'sqlalchemy[asyncio]==2.0.*'
	touch $@

.venv-oldest/.dev: pyproject.toml tests/oldest.txt
	$(or $(call python_of,3.10),$(PYTHON)) -m venv .venv-oldest
	.venv-oldest/bin/python $(PIP_INSTALL) --editable '.[dev]' --constraint tests/oldest.txt
	touch $@

.venv-other-engines/.dev: pyproject.toml tests/other_engines/requirements.txt
	$(PYTHON) -m venv .venv-other-engines
	.venv-other-engines/bin/python $(PIP_INSTALL) --editable '.[dev]' --requirement tests/other_engines/requirements.txt
	touch $@

.venv-python313/.dev: pyproject.toml
	$(or $(call python_of,3.13),$(error Python 3.13 is not installed)) -m venv .venv-python313
	.venv-python313/bin/python $(PIP_INSTALL) --editable '.[dev]'
	touch $@

# pyenv has a command for each version, which fails where that version is not chosen: so ask.
runs = $(shell $1 -c 0 2>/dev/null && echo $1)
python_of = $(firstword $(foreach one,python$1 $(wildcard ~/.pyenv/versions/$1.*/bin/python),$(call runs,$(one))))
# The oldest SQLite of a package, 3.36, is in a wheel for Python 3.10; the others get the newest.
sqlite_of = pysqlite3-binary$(if $(filter 3.10,$1),==0.4.6)
part = $(word $1,$(subst -, ,$2))

.PRECIOUS: .venv-bench-%/.dev .venv-cases-%/.dev
.venv-bench-%/.dev: pyproject.toml
	$(or $(call python_of,$*),$(error Python $* is not installed; PYTHONS= names the versions to try)) -m venv .venv-bench-$*
	.venv-bench-$*/bin/python $(PIP_INSTALL) --editable '.[benchmarks]'
	touch $@

.venv-cases-%/.dev: pyproject.toml tests/real_programs/requirements.txt tests/real_programs/sitecustomize.py
	$(or $(call python_of,$(call part,1,$*)),$(error Python $(call part,1,$*) is not installed; CASES= names the versions to try)) -m venv .venv-cases-$*
	.venv-cases-$*/bin/python $(PIP_INSTALL) --editable '.[dev]' 'sqlalchemy[asyncio]==$(call part,2,$*).*' \
		$(call sqlite_of,$(call part,1,$*)) --requirement tests/real_programs/requirements.txt
	cp tests/real_programs/sitecustomize.py .venv-cases-$*/lib/python$(call part,1,$*)/site-packages/
	touch $@

## To end with

clean:  ## remove the environments and what was built
	rm -rf .venv .venv-bench-* .venv-cases-* .venv-sqlalchemy20 .venv-oldest .venv-python313 build/coverage .mypy_cache .pytest_cache .ruff_cache
