# Two commands: `make demo` and `make test`. Both set up .venv from requirements.lock first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-arm64 test-arm64-short setup lock lint typecheck pytest wheel clean

demo: setup
	$(BIN)/lesiontk demo

test: setup lint typecheck pytest

setup: $(VENV)/ready

# --no-deps: the lock is whole; --require-hashes: nothing else is ever installed.
$(VENV)/ready: requirements.lock setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --require-hashes --no-deps -r requirements.lock
	$(BIN)/python -m pip install --no-deps --no-build-isolation -e .
	touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: setup
	$(BIN)/mypy

pytest: setup
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# Bundles for ARM64 boards, executed under emulation. Debian or Ubuntu; installs qemu where root may.
test-arm64: setup
	$(BIN)/python tests/arm64/prepare.py build/arm64
	LESIONTK_ARM64=build/arm64 $(BIN)/pytest tests/arm64

# One engine of each kind of network and runtime; a machine that cannot says that it was skipped.
test-arm64-short: setup
	$(BIN)/python tests/arm64/prepare.py build/arm64 --or-skip
	LESIONTK_ARM64=build/arm64 $(BIN)/pytest --numprocesses 2 tests/arm64 -m "not slow"

# Needed only when setup.cfg changes its dependencies.
lock:
	$(BIN)/pip-compile --quiet --extra dev --allow-unsafe --generate-hashes --strip-extras \
	  --no-emit-index-url --no-emit-find-links --no-annotate --output-file requirements.lock setup.cfg

wheel: setup
	$(BIN)/python -m build --no-isolation --wheel --outdir dist .

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
