# Every target sets itself up first; with all in place that costs a tenth of a second.
# The interpreter to build .venv with can be named: make PYTHON=python3.12 demo
SHELL := /bin/sh
.DEFAULT_GOAL := help
FILE ?= examples/embeddingservice.yaml
CLUSTER ?= .cluster
NODES ?= 1
HOLLOW ?= 0
IMAGE ?= embedfleet-server:latest
bin := .venv/bin
# On all cores, for tests that share nothing but them; torch's own threads would fight for the same cores.
parallel := OMP_NUM_THREADS=1 $(bin)/pytest --numprocesses=auto --dist=worksteal

.PHONY: help setup demo serve check test e2e soak bench bench-full mutants cluster cluster-down e2e-kind images generate requirements lock clean

help: ## Show the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

setup:
	@PYTHON="$(PYTHON)" sh tools/setup.sh

demo: setup ## From a fresh clone to vectors of real text by a real model, then stop
	@$(bin)/python -m tools.demo

serve: setup ## Keep the service of FILE up (FILE=examples/embeddingservice.yaml) until Ctrl-C
	@$(bin)/python tools/weights.py $(EMBEDFLEET_STORE)
	@exec $(bin)/embedfleet serve -f $(FILE)

check: setup ## Format, lint, types, import contracts, generated files
	$(bin)/ruff format --check .
	$(bin)/ruff check .
	$(bin)/mypy
	$(bin)/lint-imports
	$(bin)/python -m tools.generate --check

test: check ## check, and every test this machine can run
	@$(bin)/python -m tests.cluster prepare
	$(parallel) tests/unit
	$(parallel) tests/integration/parity
	$(bin)/pytest --ignore=tests/unit --ignore=tests/integration/parity --ignore-glob='tests/e2e/test_*.py'
	$(bin)/pytest tests/e2e/test_*.py # on a cluster of two nodes, which runs beside no other test

e2e: setup ## The product whole, on a real cluster of two nodes (or EMBEDFLEET_E2E_KUBECONFIG): helm, pods, rollouts under load
	@$(bin)/python -m tests.cluster prepare
	$(bin)/pytest tests/e2e

soak: setup ## The long forms of the tests, an hour or more: simulation, rollovers, generated requests, leaks
	$(bin)/python -m tests.unit.simulation.soak --seeds 100000
	$(bin)/python -m tests.soak.rollover --requests 100000 --rollovers 30
	$(bin)/python -m tests.soak.resume --kills 200
	EMBEDFLEET_CASES=10000 $(bin)/pytest tests/integration/server/test_openapi.py
	$(bin)/python -m tests.soak.leaks --seconds 600
	$(bin)/python -m tests.soak.memory --minutes 10

bench: setup ## Measure this machine, the peers left out (ARGS=--help)
	@$(bin)/python -m tests.benchmarks --no-peers $(ARGS)

bench-full: setup ## The same beside infinity, ONNX Runtime, OpenVINO: some GB, once (ARGS=--write keeps it in docs/benchmarks.md)
	@$(bin)/python -m tests.benchmarks $(ARGS)

mutants: setup ## Faults put into the batching core one by one: do the tests notice? (15 min; ARGS=--help)
	@PYTHONHASHSEED=0 nice -n 10 $(bin)/python -m tools.mutants $(ARGS)

cluster: setup ## A real Kubernetes with the operator until `make cluster-down` (NODES=1, at most 3; HOLLOW=0; IMAGE=)
	@$(bin)/python -m tests.cluster up --nodes $(NODES) --hollow $(HOLLOW) --operator $(IMAGE) $(CLUSTER)

cluster-down: setup ## End it and remove all of it
	@$(bin)/python -m tests.cluster down $(CLUSTER)

e2e-kind: setup ## Install, ask and change the product on a cluster by kind (ARGS=--whole: all of tests/e2e)
	@$(bin)/python -m tests.kind test $(ARGS)

images: setup ## The container images, in your cache (ARGS="--variant cuda --output DIR server"; ARGS=--help)
	@$(bin)/python -m tools.images $(ARGS)

generate: setup ## Write the CRD, the chart's copy and docs/reference.md from embedfleet.api
	$(bin)/python -m tools.generate

requirements: setup ## The requirement rows, their tests, and the rows that have none
	@$(bin)/python -m tools.requirements

lock: setup ## Pin anew what the pyproject files ask for (UPGRADE=1: to the newest versions)
	$(bin)/python -m tools.lock $(if $(UPGRADE),--upgrade)

clean: ## Remove .venv, caches and build products
	[ ! -d $(CLUSTER) ] || $(bin)/python -m tests.cluster down $(CLUSTER)
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis mutants
	find sdk images operator tools tests examples -name __pycache__ -prune -exec rm -rf {} +
