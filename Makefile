# Two commands: `make demo` and `make test`. Both set up .venv from requirements.lock first.
# The newest supported Python that starts here: a name on the path may be no more than a shim.
PYTHON ?= $(firstword $(shell for v in 3.13 3.12 3.11; do \
  python$$v -c "import ensurepip" 2> /dev/null && echo python$$v; done) python3)
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-all test-docs test-arm64 test-arm64-short test-web test-mobile setup docs lock bundle-lock check-lock peers \
  lint typecheck pytest pytest-slow wheel clean

demo: setup
	$(BIN)/lesiontk demo

test: setup lint typecheck pytest

# The large networks and what else takes long, too.
test-all: test pytest-slow

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
	$(BIN)/mypy benchmarks/*.py benchmarks/gpu benchmarks/peers/compare.py

PYTEST = $(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

pytest: setup
	$(PYTEST)

pytest-slow: setup
	$(PYTEST) -m slow --ignore tests/arm64

# The commands and the Python code of README and docs, as they are written there.
test-docs: setup
	$(BIN)/pytest --numprocesses 2 -m slow tests/test_readme.py

# Bundles for ARM64 boards, executed under emulation. Debian or Ubuntu; installs qemu where root may.
test-arm64: setup
	$(BIN)/python tests/arm64/prepare.py build/arm64
	LESIONTK_ARM64=build/arm64 $(BIN)/pytest tests/arm64 -m ""

# One engine of each kind of network and runtime; a machine that cannot says that it was skipped.
test-arm64-short: setup
	$(BIN)/python tests/arm64/prepare.py build/arm64 --or-skip
	LESIONTK_ARM64=build/arm64 $(BIN)/pytest --numprocesses 2 tests/arm64

# The web app in a headless Chromium; a machine without node or Chromium says that it was skipped.
test-web: setup
	$(BIN)/python -m tests.web.run build/web

# The libraries of the Android and iOS apps; a compiler that this machine cannot have is skipped.
test-mobile: setup
	$(BIN)/python tests/mobile/prepare.py build/mobile
	LESIONTK_MOBILE=build/mobile $(BIN)/pytest tests/mobile

docs: setup
	$(BIN)/python docs/generate.py
	$(BIN)/mkdocs build --strict --site-dir build/docs

# Needed only when setup.cfg changes its dependencies: one lock for all platforms and Pythons.
lock: setup
	UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet setup.cfg --extra dev --extra docs \
	  --extra imagenet-weights --universal --python-version 3.11 --fork-strategy fewest \
	  --generate-hashes --no-annotate --output-file requirements.lock
	$(MAKE) bundle-lock check-lock

# What a bundle's runtimes need, for the Pythons of boards.
bundle-lock: setup
	cd toolkit/lesiontk/deploy/requirements; for set in litert:3.9 onnx:3.8 tensorrt:3.8 triton:3.8 filters:3.8; do \
	  name=$${set%:*}; $(abspath $(BIN))/uv pip compile --quiet $$name.in --universal --generate-hashes \
	    --python-version $${set#*:} --no-annotate --no-header --output-file $$name.txt \
	    $$(test $$name = filters && echo --no-deps) || exit 1; done

# Each platform that docs/install.md names gets a wheel of each package, by its hash; none is installed.
# tensorrt-rtx is published as source; onnxruntime's wheels need macOS 14.
check-lock: setup
	set -e; for python in 3.11 3.12 3.13; do \
	  for platform in x86_64-manylinux_2_28 aarch64-manylinux_2_28 aarch64-apple-darwin; do \
	    echo "Python $$python, $$platform"; \
	    MACOSX_DEPLOYMENT_TARGET=14.0 $(BIN)/uv pip install --quiet --dry-run --target build/lock \
	      --no-deps --require-hashes --only-binary :all: \
	      --no-binary tensorrt-rtx --no-binary tensorrt-rtx-cu13 \
	      --python-version $$python --python-platform $$platform -r requirements.lock; \
	  done; done

# Other tools on the same networks, each in an environment of its own: DATA is the folder of HAM10000.
peers: setup
	$(BIN)/python benchmarks/peers/compare.py --data $(DATA) --build build/peers

wheel: setup
	$(BIN)/python -m build --no-isolation --wheel --outdir dist .

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
