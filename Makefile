# Every habit of the project as a target: `make help` lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# One cache for all clones. It holds the built tools, the Python environment, images and the local cluster.
export HONE_CACHE ?= $(HOME)/.cache/hone
export UV_CACHE_DIR ?= $(HONE_CACHE)/uv
export PYTHONPATH := operator/src:trainer-image/src:.
export PYTHONUNBUFFERED := 1
# Your own cluster, where you have one; else the local one.
export KUBECONFIG ?= $(HONE_CACHE)/cluster/kubeconfig

PYTHON3 ?= $(shell command -v python3.11 || command -v python3)
PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m pytest

.PHONY: help venv generate format check integration test e2e soak bench matrix gpu cluster cluster-down images demo demo-down \
	locks clean

help: ## Show this list
	@sed -nE 's/^([a-z0-9-]+):[^#]*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

##@ Work on the code

venv: ## Make the Python environment (.venv) from the lock
	@$(PYTHON3) -m dev.venv --quick

generate: venv ## Write the CRDs anew from operator/src/hone/api
	@$(PYTHON) -m hone.api.crds

format: venv ## Format the code, and mend what the linter can mend
	@$(PYTHON) -m ruff check --fix .
	@$(PYTHON) -m ruff format .

locks: ## Make the dependency locks anew from both pyproject.toml
	@$(PYTHON3) -m dev.locks

##@ Test

check: ## Lint, types, layers, generated files, chart, unit tests: 2 minutes, no cluster
	@$(PYTHON3) -m dev.stages check

integration: ## Tests against a real kube-apiserver and etcd: 5 minutes
	@$(PYTHON3) -m dev.stages integration

test: ## Everything: check, integration, trainer, then a cluster with real training and serving
	@$(PYTHON3) -m dev.stages test

e2e: ## The tests on the local cluster, which is started with its images first; ARGS='-k lora' picks some
	@$(PYTHON3) -m dev.stages e2e -- $(ARGS)

soak: venv ## Long repetitions in slices; an interrupted one goes on where it stopped. SLICE=name runs one, FRESH=1 all again
	@$(PYTHON) -m dev.soak $(if $(SLICE),--slice $(SLICE)) $(if $(FRESH),--fresh)

bench: venv ## Hone's training speed against plain TRL's, and its decisions' time; quicker with ARGS='--steps 50'
	@$(PYTHON) -m dev.bench $(ARGS)

matrix: venv ## Try every objective with every method and placement, and write docs/matrix.md; ARGS="--cells 'DPO/*'"
	@$(PYTHON) -m dev.matrix $(ARGS)

gpu: venv ## The trainer's tests that need a GPU; fails where there is none. ARGS='-k nf4' picks some
	@$(PYTHON) -m dev.gpu $(ARGS)

##@ Run

cluster: ## Start the local Kubernetes cluster (Debian 12, root), or find it running
	@$(PYTHON3) -m dev.cluster up

cluster-down: ## Stop the local cluster and remove what it set up
	@$(PYTHON3) -m dev.cluster down

images: venv ## Build the images and push them to the local registry, or to REGISTRY=registry.example.com/team; writes values for helm
	@$(PYTHON) -m dev.basemodel build
	@$(PYTHON3) -m dev.images build

demo: ## From nothing to a tuned model's answer. With KUBECONFIG and REGISTRY set: on your cluster
	@$(PYTHON3) -m dev.demo

demo-down: ## Remove what the demo made from the cluster
	@$(PYTHON3) -m dev.demo --cleanup

clean: ## Remove what the tools left in the tree; the cache outside it stays
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
