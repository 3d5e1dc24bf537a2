# Every target does the set-up it needs and is quiet when there is nothing to do.
#   PYTHON=python3.12 make run     another interpreter for the environment (3.11 or newer)
#   PORT=9000 make run             another port

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
KERNELS := setup.py pyproject.toml requirements/build.in $(wildcard ext/*.pyx ext/*.pxd ext/*.h)

# What `make bench`, `make load` and `make rush` measure with.
BUYERS ?= 50000
USERS ?= 200
SECONDS ?= 30

# How many processes share the tests, each with servers of its own. Many of them wait: one more than cores.
TEST_PROCESSES ?= 3

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help run test lint format bench bench-peers-setup report chaos load rush check lock clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/run.stamp $(VENV)/build.stamp  ## Run the whole engine with a demo shop (PORT=8080); Ctrl-C stops it in order
	@exec env DOORBUSTER_PORT="$${PORT:-$${DOORBUSTER_PORT:-8080}}" $(BIN)/doorbuster up --demo

test: $(VENV)/dev.stamp $(VENV)/build.stamp  ## Run all tests on real servers of their own
	@$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile

lint: $(VENV)/dev.stamp $(VENV)/build.stamp  ## Check style, types and the directions of imports
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(VENV)/dev.stamp  ## Lay the code out as `make lint` wants it
	@$(BIN)/ruff check --fix --quiet
	@$(BIN)/ruff format

bench: $(VENV)/dev.stamp $(VENV)/build.stamp  ## Measure everything, beside nginx, Go and others; one table, targets beside the numbers
	@$(BIN)/python -m benchmarks.run

bench-peers-setup:  ## Install what `make bench` compares with: wrk, nginx with Lua, Go (Debian packages, as root)
	@scripts/bench-peers-setup

report: $(VENV)/dev.stamp $(VENV)/build.stamp  ## Turn the newest benchmark run into one HTML page, beside the run
	@$(BIN)/python -m api.cli.main bench report

chaos: $(VENV)/dev.stamp $(VENV)/build.stamp  ## Kill real processes during a rush, then prove the invariants
	@$(BIN)/python -m pytest -m chaos

load: $(VENV)/dev.stamp $(VENV)/build.stamp  ## Send locust's shoppers (USERS, SECONDS) to a sale on the running engine, then check it; ROOM=1 puts a waiting room before it
	@$(BIN)/python scripts/load.py $(USERS) $(SECONDS) $(if $(ROOM),--room)

rush: $(VENV)/run.stamp $(VENV)/build.stamp  ## Send a flash crowd (BUYERS) to the demo sale, or to a sale of its own (UNITS)
	@$(BIN)/doorbuster rush $(if $(UNITS),--units $(UNITS),--sale demo) --buyers $(BUYERS)

check: $(VENV)/run.stamp $(VENV)/build.stamp  ## Prove the invariants on the running engine
	@$(BIN)/doorbuster check

lock:  ## Choose the newest allowed dependencies and lock them with hashes (needs uv)
	@scripts/lock

clean:  ## Remove the environment and everything built; data in var/ stays
	rm -rf $(VENV) build *.egg-info ext/*.c ext/*.so .mypy_cache .ruff_cache .import_linter_cache .hypothesis .benchmarks
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# Set-up. A stamp is newer than what it was made from.

$(VENV)/venv.stamp:
	@scripts/make-venv "$(PYTHON)" "$(VENV)"
	@touch $@

$(VENV)/run.stamp: requirements/run.lock | $(VENV)/venv.stamp
	@echo "Installing what the engine needs."
	@$(PIP) install --require-hashes -r requirements/run.lock
	@touch $@

$(VENV)/dev.stamp: requirements/dev.lock | $(VENV)/venv.stamp
	@echo "Installing what the engine and its tests need."
	@$(PIP) install --require-hashes -r requirements/dev.lock
	@touch $@ $(VENV)/run.stamp

# dev.lock holds everything of run.lock, so either will do; a fresh clone gets the one it asked for.
$(VENV)/build.stamp: $(KERNELS) | $(VENV)/venv.stamp
	@test -e $(VENV)/run.stamp || $(MAKE) --no-print-directory $(VENV)/run.stamp
	@$(BIN)/python scripts/check_build.py
	@echo "Compiling ext/."
	@$(PIP) install --no-build-isolation --no-deps --editable .
	@touch $@
