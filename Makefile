# Two commands for everyone: `make run` and `make test`. Both can be repeated; what is installed stays.
# For who changes the code: `make check` is what `make test` begins with, `make format` mends what it can.
# The first that runs and fits; a version manager may name some that do not run.
FITS := import sys, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c '$(FITS)' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 8501

.PHONY: run test check format docs lock browser node clean

run: $(VENV)/run.stamp
	$(BIN)/brainseg app --port $(PORT)

test: check browser
	node --test --test-reporter=spec tests/js/*.test.js
	$(BIN)/pytest

# The page's own JavaScript runs as it stands; packages of npm check it and do nothing more.
check: $(VENV)/test.stamp node_modules/.package-lock.json
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	npx eslint .
	npx tsc

format: $(VENV)/test.stamp node_modules/.package-lock.json
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	npx eslint --fix .

# After changing a range or trying newer versions: states what .venv holds, for the Spaces too. Builds of torch for one kind of
# machine (+cpu, +cu130) are the same version.
lock: $(VENV)/test.stamp
	{ sed -n '/^#/p' constraints.txt; \
	  $(BIN)/python -m pip freeze --all --exclude-editable | sed -E '/^(certifi|pip)==/d; s/\+.*//' | sort --ignore-case; } > constraints.new
	mv constraints.new constraints.txt
	$(BIN)/python spaces/lock.py

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "error: Python 3.11, 3.12 or 3.13 with the venv module is needed" \
	  "(Debian: apt-get install python3-venv); or name one: make PYTHON=/path/to/python $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: requirements.txt constraints.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt --editable .
	@touch $@

$(VENV)/test.stamp: requirements.txt constraints.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt --editable '.[test]'
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

# The site, in site/: index.html opens without a server. The variable leaves out the theme's notice of its successor.
docs: $(VENV)/test.stamp node_modules/.package-lock.json
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) node_modules .pytest_cache .mypy_cache .ruff_cache artifacts site
