# quorumlog: `make help` lists what can be done. Everything runs in .venv, which `make setup` makes.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
JOBS ?= 2
SEEDS ?= 1000
START ?= 0
SECONDS ?= 60
TRACES ?= 50
SIZES ?= 3,5,10,25,50,100,200
HOURS ?= 1

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-9s %s\n", $$1, $$2}'

.PHONY: setup
setup: $(STAMP) ## Make .venv and install quorumlog and its tools in it

$(STAMP): pyproject.toml tools/setup.sh
	@PYTHON="$(PYTHON)" VENV="$(VENV)" bash tools/setup.sh
	@touch $(STAMP)

.PHONY: run
run: setup ## The demo: three nodes, 336,776 real records, a killed leader, every record checked
	@$(BIN)/python -m examples.flights

.PHONY: orders
orders: setup ## A replicated state machine: three nodes, orders over HTTP, a killed leader
	@$(BIN)/python -m examples.orders

.PHONY: dev
dev: setup ## A local three-node cluster in this terminal, until Ctrl-C
	@$(BIN)/quorumlog dev

.PHONY: test
test: check ## Everything: check, then all tests (JOBS=2 cores)
	@# One worker more than cores: the one with the tests that start nodes mostly waits.
	$(BIN)/python -m pytest -n $$(($(JOBS) + 1)) --dist worksteal -q

.PHONY: check
check: setup ## Lint, types, import contracts, generated code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=src $(BIN)/lint-imports --no-cache
	PYTHON="$(BIN)/python" bash tools/proto.sh --check

.PHONY: format
format: setup ## Put code into the form that `check` demands
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: cluster
cluster: setup ## The tests with real processes only
	$(BIN)/python -m pytest -q tests/cluster

.PHONY: chaos
chaos: setup ## Kill, pause, cut off real nodes while records flow: SECONDS=60 for each kind
	CHAOS_SECONDS=$(SECONDS) $(BIN)/python -m pytest -q tests/cluster/test_chaos.py --timeout 0

.PHONY: sim
sim: setup ## Simulate whole clusters: SEEDS=1000 START=0 JOBS=2
	PYTHONPATH=src:tests $(BIN)/python -m sim --seeds $(SEEDS) --start $(START) --jobs $(JOBS)

.PHONY: bootstrap
bootstrap: setup ## Let nodes form clusters while everything breaks: SEEDS=1000 START=0 JOBS=2
	PYTHONPATH=src:tests $(BIN)/python -m forming --seeds $(SEEDS) --start $(START) --jobs $(JOBS)

.PHONY: gossip
gossip: SEEDS = 3
gossip: setup ## Measure gossip in virtual time, tables and plot: SEEDS=3 SIZES=3,5,10,25,50,100,200 HOURS=1 JOBS=2
	PYTHONPATH=src:tests $(BIN)/python -m fakes.gossip_table --seeds $(SEEDS) --sizes $(SIZES) --hours $(HOURS) --jobs $(JOBS) --plot docs/gossip.svg

.PHONY: fuzz
fuzz: setup ## Fuzz every decoder with atheris, which it installs: SECONDS=60
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python -m pip install --quiet 'atheris>=3,<4'
	PYTHONPATH=src:tests $(BIN)/python -m fuzz --seconds $(SECONDS)

.PHONY: storage
storage: setup ## Let logs die in every way there is: SEEDS=1000 START=0 JOBS=2
	PYTHONPATH=src:tests $(BIN)/python -m stored --seeds $(SEEDS) --start $(START) --jobs $(JOBS)

.PHONY: tla
tla: setup ## Check traces of the Raft cores against their TLA+ specification: TRACES=50 START=0
	@bash tools/tla.sh
	PYTHONPATH=src:tests $(BIN)/python -m tla --traces $(TRACES) --start $(START)

.PHONY: explore
explore: setup ## Let Hypothesis look for new examples; what it finds becomes an @example
	HYPOTHESIS_PROFILE=explore $(BIN)/python -m pytest -n $(JOBS) --dist worksteal -q

.PHONY: mutants
mutants: setup ## Put known bugs back: the simulators, the tests of the log and of gossip have to find each
	$(BIN)/python -m pytest -q -n $(JOBS) tests/sim tests/forming -m mutants
	$(BIN)/python -m pytest -q -n $(JOBS) tests/log/test_storage_mutants.py tests/discovery/test_gossip_mutants.py

.PHONY: bench
bench: setup ## Measure and write bench/results.md and the README's tables: ONLY=storage, replicated, partitions or discovery
	$(BIN)/python -m bench $(ONLY)

.PHONY: proto
proto: setup ## Generate the protobuf code again, after a change of a .proto
	PYTHON="$(BIN)/python" bash tools/proto.sh

.PHONY: clean
clean: ## Remove .venv, caches and what the demo left; data of `serve` and `dev` stays
	rm -rf $(VENV) .cache .run dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
