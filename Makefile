# Everything needs Python (3.11 or later) and make, and nothing else; services and test-all also Debian's packages and npm.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: run test conformance services test-all check lock bench-check chaos chaos-proof clean

run: $(READY)
	@$(BIN)/agentws serve

test: $(READY)
	$(BIN)/python -m pytest -n auto -m 'not long' $(PYTEST_ARGS)

# What test-all needs besides: a browser of Debian's, its driver, and axe-core; and what chaos shifts clocks with.
services: $(READY)
	@{ command -v chromium && command -v npm && ls /usr/lib/*/faketime; } >/dev/null 2>&1 || { \
		test "$$(id -u)" = 0 || { echo "make services: run it as root, or install chromium, npm and libfaketime first"; \
			exit 1; }; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
			chromium npm libfaketime; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tests/browser/requirements.lock
	npm ci --prefix tests/browser --ignore-scripts --no-audit --no-fund --loglevel error

test-all: test
	$(BIN)/python -m pytest -n auto -m long $(PYTEST_ARGS)
	$(BIN)/python -m pytest tests/browser $(PYTEST_ARGS)

# Against a server that somebody else started: make conformance URL=http://host:port [JWT_SECRET=...]
conformance: $(READY)
	@CONFORMANCE_URL='$(URL)' CONFORMANCE_JWT_SECRET='$(JWT_SECRET)' \
		$(BIN)/python -m pytest -n $(if $(URL),8,auto) $(PYTEST_ARGS) tests/conformance

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --config setup.cfg --no-logo

bench-check: $(READY)
	$(BIN)/python -m scripts.bench_check $(BENCH_ARGS)

# Real servers under load while everything around them breaks: make chaos CHAOS_ARGS="--seconds 600 --seed 7"
chaos: $(READY)
	$(BIN)/python -m scripts.chaos $(CHAOS_ARGS)

# That chaos finds faults: each of seven, put in on purpose in a copy, has to be found.
chaos-proof: $(READY)
	$(BIN)/python -m scripts.chaos.proof $(CHAOS_ARGS)

# Writes the lock files anew, with hashes.
lock: $(READY)
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile setup.cfg --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-annotate --no-header --upgrade --quiet --output-file requirements.lock
	$(BIN)/uv pip compile tests/browser/requirements.in --constraint requirements.lock --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-annotate --no-header --upgrade --quiet \
		--output-file tests/browser/requirements.lock

$(READY): requirements.lock setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "agentws needs Python 3.11 or later; PYTHON=python3.11 make ... names one"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
