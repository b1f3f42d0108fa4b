# The project's everyday commands: `make help` lists them.
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

venv: ## Create the Python environment (.venv) from the lock file
	@$(PYTHON3) -m dev.venv --quick

generate: venv ## Generate the CRDs and the tables of the documentation
	@$(PYTHON) -m hone.api.crds
	@$(PYTHON) -m dev.tables

format: venv ## Format the code and apply the linter's automatic fixes
	@$(PYTHON) -m ruff check --fix .
	@$(PYTHON) -m ruff format .

locks: ## Regenerate the dependency lock files from both pyproject.toml
	@$(PYTHON3) -m dev.locks

##@ Test

check: ## Lint, types, layers, generated files, chart, unit tests: 2 minutes, no cluster
	@$(PYTHON3) -m dev.stages check

integration: ## Tests against a real kube-apiserver and etcd: 5 minutes
	@$(PYTHON3) -m dev.stages integration

test: ## Everything: check, integration, trainer, then a cluster with real training and serving
	@$(PYTHON3) -m dev.stages test

e2e: ## End-to-end tests on the local cluster, which is started first; ARGS='-k lora' selects tests
	@$(PYTHON3) -m dev.stages e2e -- $(ARGS)

soak: venv ## Long-running tests in slices; continues where it was interrupted. SLICE=name runs one, FRESH=1 repeats all
	@$(PYTHON) -m dev.soak $(if $(SLICE),--slice $(SLICE)) $(if $(FRESH),--fresh)

bench: venv ## Benchmark training against plain TRL, and the operator's reconcile; faster with ARGS='--steps 50'
	@$(PYTHON) -m dev.bench $(ARGS)

matrix: venv ## Run every objective with every method and placement, and write docs/matrix.md; ARGS="--cells 'DPO/*'"
	@$(PYTHON) -m dev.matrix $(ARGS)

gpu: venv ## The trainer's tests that need a GPU; fails where there is none. ARGS='-k nf4' picks some
	@$(PYTHON) -m dev.gpu $(ARGS)

##@ Run

cluster: ## Start the local Kubernetes cluster if it is not running (Debian 12, root)
	@$(PYTHON3) -m dev.cluster up

cluster-down: ## Stop the local cluster and remove what it created
	@$(PYTHON3) -m dev.cluster down

images: venv ## Build the images and push them to the local registry, or to REGISTRY=registry.example.com/team; writes values for helm
	@$(PYTHON) -m dev.basemodel build
	@$(PYTHON3) -m dev.images build

demo: ## Run the whole example, up to a tuned model's answer; on your cluster if KUBECONFIG and REGISTRY are set
	@$(PYTHON3) -m dev.demo

demo-down: ## Remove what the demo created from the cluster
	@$(PYTHON3) -m dev.demo --cleanup

clean: ## Remove build outputs from the tree; keep the cache outside it
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
