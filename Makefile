# Everything here works on a fresh clone with python3 (3.11 to 3.13, with venv) and make, and works again.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TESTS ?= tests
E2E ?= tests/e2e/systemd_*.py tests/e2e/npm_ws.py tests/e2e/shells.py tests/e2e/chromium.py \
  tests/e2e/example_page.py tests/e2e/chat_page.py tests/e2e/prometheus.py tests/e2e/dashboard*.py \
  tests/e2e/redis_*.py tests/e2e/nginx_front.py tests/e2e/nginx_room.py tests/e2e/doctor_predicts.py

.PHONY: help run test lint bench bench-handoff bench-topics bench-asgi bench-job bench-observing bench-admission bench-audit bench-steering conformance soak e2e e2e-room format clean
help: ## this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /  make \1\t/' | expand -t 24

$(STAMP): pyproject.toml setup.py constraints.txt wssup/version.py $(wildcard wssup/server/*.[ch])
	@$(PYTHON) -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "wssup needs Python 3.11 or newer with the venv module; name one: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 2; }
	@test -x $(BIN)/python || { echo "setting up $(VENV) …"; $(PYTHON) -m venv $(VENV); }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --group dev -e .
	@touch $@

run: $(STAMP) ## serve the example on 127.0.0.1:8765 with two workers
	@$(BIN)/wssup serve wssup.examples.page:app --bind 127.0.0.1:8765 --workers 2 \
	  --status-bind 127.0.0.1:8767 --log-format pretty

test: $(STAMP) ## run the tests
	@$(BIN)/python -m pytest -n 4 --dist worksteal $(TESTS)

lint: $(STAMP) ## format check, lint, types, direction of imports
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format: $(STAMP) ## format the code and mend what can be mended
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

bench: $(STAMP) ## the engine, a reload and topics beside their peers; needs cc; 45 to 85 minutes
	@$(BIN)/python -m benchmarks.engine
	@$(BIN)/python -m benchmarks.handoff
	@$(BIN)/python -m benchmarks.topics
	@$(BIN)/python -m benchmarks.asgi
	@$(BIN)/python -m benchmarks.observing
	@$(BIN)/python -m benchmarks.steering
	@$(BIN)/python -m benchmarks.audit
	@$(BIN)/python -m benchmarks.admission

bench-handoff: $(STAMP) ## a reload with 15 000 and 100 000 live connections; about six minutes
	@$(BIN)/python -m benchmarks.handoff

bench-topics: $(STAMP) ## one message to 10 000 subscribers, and 1000 topics; 11 to 40 minutes
	@$(BIN)/python -m benchmarks.topics

bench-asgi: $(STAMP) ## an ASGI application here and on its other servers; about ten minutes
	@$(BIN)/python -m benchmarks.asgi

bench-observing: $(STAMP) ## status and metrics with 64 slots, echo while watched; two minutes
	@$(BIN)/python -m benchmarks.observing

bench-steering: $(STAMP) ## how evenly connections are spread over four workers; about six minutes
	@$(BIN)/python -m benchmarks.steering

bench-audit: $(STAMP) ## an audit with 20 000 live connections; one minute
	@$(BIN)/python -m benchmarks.audit

bench-admission: $(STAMP) ## a storm of three times the capacity, turned away and queued; a minute
	@$(BIN)/python -m benchmarks.admission

bench-job: $(STAMP) ## the main job: a reload under load, a worker's death; about two minutes
	@$(BIN)/python -m benchmarks.main_job

conformance: $(STAMP) ## the Autobahn cases about performance (9.*); the others are tests
	@$(BIN)/python -m tests.conformance.limits

soak: $(STAMP) ## 50 reloads without a pause, and ten deaths of each process in mid-move; 15 minutes
	@WSSUP_RELOADS=50 WSSUP_FAULTS=10 WSSUP_CHURN=1000000 $(BIN)/python -m pytest -n 2 --timeout 600 \
	  tests/integration/test_handoff.py tests/integration/test_handoff_failures.py \
	  tests/integration/test_topics.py tests/integration/test_topics_floods.py

e2e: $(STAMP) ## a real systemd, the npm package ws, a browser, Redis, nginx, shells; installs what it can
	@for tool in npm chromium redis-server zsh fish nginx tcpdump; do \
	  command -v $$tool >/dev/null || { apt-get update -qq && apt-get install -y -qq $$tool; } \
	    || echo "no $$tool: its tests are skipped"; done
	@cd $(VENV) && { command -v prometheus || test -x e2e/prometheus/usr/bin/prometheus; } >/dev/null || \
	  { { apt-get download -qq prometheus || { apt-get update -qq && apt-get download -qq prometheus; }; } \
	    && mkdir -p e2e && dpkg -x prometheus_*.deb e2e/prometheus; rm -f prometheus_*.deb; \
	    test -x e2e/prometheus/usr/bin/prometheus; } || echo "no prometheus: its test is skipped"
	@npm install --silent --no-fund --no-audit --prefix $(VENV)/e2e ws@8 || echo "no ws: its test is skipped"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --group e2e \
	  || echo "no Playwright: its tests are skipped"
	@$(BIN)/python -m pytest $(E2E)

e2e-room: $(STAMP) ## 20 reloads with 9000 people behind nginx (make e2e has four); some minutes
	@WSSUP_ROOM_RELOADS=20 $(BIN)/python -m pytest -s tests/e2e/nginx_room.py -k deploys

clean: ## remove what was set up
	rm -rf build *.egg-info wssup/server/_wire*.so
	rm -rf $(VENV) benchmarks/.peers benchmarks/native/build .mypy_cache .ruff_cache .pytest_cache .hypothesis
