# `make help` lists the targets. `make up` and `make test` do all their set-up themselves.
SHELL := /bin/bash
# Another one is named by: make PYTHON=python3.12 dev
ifndef PYTHON
PYTHON := $(shell hack/find-python)
endif
export PYTHON
VENV := .venv
BIN := $(VENV)/bin
export OPENBLAS_NUM_THREADS := 1
ROOMS := tiphys_component tiphys_apimachinery tiphys_client tiphys_sdk tiphys_cri tiphys_cni tiphys_csi tiphys_device \
  tiphys_apiserver tiphys_scheduler tiphys_controller_manager tiphys_kubelet tiphys_kube_proxy tiphys_cluster_dns \
  tiphys_cluster tiphys_cli

.PHONY: help
help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

$(VENV)/.ready: requirements-dev.txt $(wildcard */pyproject.toml */*/pyproject.toml)
	@hack/install-system-packages python
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/pip install --quiet --disable-pip-version-check "grpcio-tools>=1.76,<2" "mypy-protobuf>=3.6,<6"
	$(BIN)/python hack/compile_protos.py
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

.PHONY: dev
dev: $(VENV)/.ready protos ## virtual environment with every room, editable

.PHONY: protos
protos: $(VENV)/.ready ## compile the contracts to Python
	@$(BIN)/python hack/compile_protos.py

.PHONY: lint
lint: dev ## style, layers, sizes, proto lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python -m hack.verify_rooms
	$(BIN)/python -m hack.verify_docs
	cd protos && ../$(BIN)/buf lint

.PHONY: type
type: dev ## mypy --strict
	$(BIN)/mypy $(addprefix -p ,$(ROOMS))
	$(BIN)/mypy hack examples tests

.PHONY: contracts
contracts: dev ## the published wire facts against our protos
	$(BIN)/python tests/conformance/contracts/check_contracts.py protos/ --require-tier core

.PHONY: verify
verify: dev ## what is generated and committed must be fresh
	$(BIN)/python -m hack.protogen
	$(BIN)/python -m hack.update_rooms
	$(BIN)/python -m hack.update_docs
	$(BIN)/python -m hack.update_rows
	git diff --exit-code -- protos docs/reference docs/rows.md '*README.md'
	@test -z "$$(git status --porcelain -- docs/reference)" || { git status --short -- docs/reference; exit 1; }

.PHONY: system
system: ## packages of the operating system that tests and clusters need
	@hack/install-system-packages

# What the tests need beside a cluster's own: etcd, and the two kubectls that drive the whole thing.
KUBECTLS := build/kubectl/kubectl-1.20 build/kubectl/kubectl-1.32
$(KUBECTLS) &:
	hack/fetch-kubectl build/kubectl

# The runtime of the next release of Debian, beside the machine's.
CONTAINERD17 := build/containerd-1.7
$(CONTAINERD17)/containerd:
	hack/fetch-containerd $(CONTAINERD17)

.PHONY: test-system
test-system: system
	@hack/install-system-packages test

PYTEST := $(BIN)/pytest --durations=10

.PHONY: unit
unit: dev ## tests of single modules
	$(PYTEST) tests/unit -m "not slow"

.PHONY: integration
integration: dev test-system ## several of our parts, real etcd, containerd and namespaces; and outside specifications
	$(PYTEST) tests/integration tests/conformance -m "not slow"

.PHONY: e2e
e2e: dev test-system $(KUBECTLS) $(CONTAINERD17)/containerd ## the whole cluster on real containerd, by two versions of kubectl
	$(PYTEST) tests/e2e -m "not slow and not compose"

.PHONY: compose-test
compose-test: dev $(KUBECTLS) ## docker-compose.yml: its images, two nodes, pods between them, on an engine of the test's own
	@hack/install-system-packages docker
	$(PYTEST) tests/e2e/compose

# Variables of docs/compose.md apply: TIPHYS_PORT=7443 make compose-up
COMPOSE ?= docker-compose
.PHONY: compose-up
compose-up: ## the cluster of docker-compose.yml on this machine's Docker engine, and how to reach it
	$(COMPOSE) up --detach --build
	@echo "export KUBECONFIG=$${TIPHYS_HOME:-$$PWD/build/compose}/admin.conf"

.PHONY: compose-down
compose-down: ## take it away, with its data
	$(COMPOSE) down --volumes

.PHONY: containerd17
containerd17: dev test-system $(CONTAINERD17)/containerd ## runtime client, kubelet, CNI and devices with containerd 1.7 instead of the machine's
	PATH="$(abspath $(CONTAINERD17)):$$PATH" $(PYTEST) tests/conformance/cri tests/integration/kubelet tests/integration/cni/test_containerd.py tests/integration/devices -m "containerd and not slow"

.PHONY: test
test: lint type contracts verify unit integration e2e ## everything that CI runs

.PHONY: test-long
test-long: test compose-test containerd17 ## and the long runs: docker-compose, chaos, kills, scale, a newer containerd
	TIPHYS_TEST_SEED=random $(PYTEST) tests -m slow
	$(BIN)/python -m tests.integration.simulation 100-5000

# Options for the cluster: make up ARGS="--name other --store etcd --port-offset 1000"
ARGS ?=

.PHONY: up
up: system dev ## a cluster on this machine, with everything that it needs; ARGS="--store etcd" and so on
	@$(if $(findstring etcd,$(ARGS)),hack/install-system-packages etcd)
	@$(BIN)/tiphys up $(ARGS)

.PHONY: down
down: dev ## stop it and take it off the machine; ARGS="--delete" also deletes its data
	@$(BIN)/tiphys down $(ARGS)

.PHONY: status
status: dev ## what runs
	@$(BIN)/tiphys status $(ARGS)

.PHONY: images
images: system dev ## build the images that need no registry into the machine's cache
	@$(BIN)/python -m tiphys_cluster.images.builtin

.PHONY: bench
bench: dev test-system ## the figures of this machine beside what they must reach; ARGS="--no-cluster" for less
	@$(BIN)/python -m tests.bench $(ARGS)
