# Two commands for everyone: `make run` and `make test`. Both can be repeated; what is installed stays.
# The first that runs and fits; a version manager may name some that do not run.
FITS := import sys, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c '$(FITS)' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 8501

.PHONY: run test viewer browser node clean

run: $(VENV)/run.stamp
	$(BIN)/streamlit run app.py --server.port $(PORT)

test: $(VENV)/test.stamp browser node
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(MAKE) --no-print-directory viewer
	$(BIN)/pytest

# The page's own JavaScript, which runs as it stands: these packages check it and nothing more.
viewer: node_modules/.package-lock.json
	npx eslint .
	npx tsc
	node --test --test-reporter=spec tests/js/*.test.js

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "error: Python 3.11, 3.12 or 3.13 with the venv module is needed" \
	  "(Debian: apt-get install python3-venv); or name one: make PYTHON=/path/to/python $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: requirements.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/test.stamp: requirements.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@ $(VENV)/run.stamp

node_modules/.package-lock.json: package.json package-lock.json | node
	npm ci --silent
	@touch $@

# Tests need Node.js 18 or newer with npm: Debian's packages where there is none yet.
node:
	@command -v node >/dev/null && command -v npm >/dev/null \
	  || { if command -v apt-get >/dev/null; then \
	         sudo=$$(test $$(id -u) = 0 || echo sudo); \
	         $$sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq \
	           --no-install-recommends nodejs npm >/dev/null; \
	       else echo "error: the tests need Node.js 18 or newer with npm; install it and try again"; exit 2; fi; }

# The browser tests drive a Chromium of the system: Debian's package where there is none yet.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
	  || { if command -v apt-get >/dev/null; then \
	         sudo=$$(test $$(id -u) = 0 || echo sudo); \
	         $$sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq \
	           --no-install-recommends chromium fonts-dejavu-core >/dev/null; \
	       else echo "error: the browser tests need Chromium or Chrome; install one and try again"; exit 2; fi; }

clean:
	rm -rf $(VENV) node_modules .pytest_cache .mypy_cache .ruff_cache artifacts
