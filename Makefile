# quorumlog: `make help` lists what can be done. Everything runs in .venv, which `make setup` makes.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PROTOS := log/_pb/record.proto api/_pb/quorumlog.proto api/_pb/peer.proto api/_pb/proglog.proto broker/_pb/metadata.proto
SEEDS ?= 1000
START ?= 0

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

.PHONY: setup
setup: $(STAMP) ## Make .venv and install quorumlog and its tools in it

$(STAMP): pyproject.toml tools/setup.sh
	@PYTHON="$(PYTHON)" VENV="$(VENV)" bash tools/setup.sh
	@touch $(STAMP)

.PHONY: check
check: setup ## Lint, types, import contracts, generated code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=src $(BIN)/lint-imports --no-cache

.PHONY: proto
proto: ## Generate the protobuf code again (needs PyPI; only after a change of a .proto)
	PYTHON="$(PYTHON)" bash tools/proto.sh
