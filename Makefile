# The project's everyday commands: `make help` lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# All clones share one cache: the built tools, the Python environment, images and the local cluster.
export HONE_CACHE ?= $(HOME)/.cache/hone
export UV_CACHE_DIR ?= $(HONE_CACHE)/uv
export PYTHONPATH := operator/src:trainer-image/src:.
export PYTHONUNBUFFERED := 1
# Set KUBECONFIG to use your own cluster. The default is the local one.
export KUBECONFIG ?= $(HONE_CACHE)/cluster/kubeconfig

PYTHON3 ?= $(shell command -v python3.11 || command -v python3)
PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m pytest

.PHONY: help venv generate format check integration test e2e soak bench matrix architectures outcomes gpu cluster cluster-down images demo demo-down \
	locks clean

help: ## Show this list
	@sed -nE 's/^([a-z0-9-]+):[^#]*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

##@ Work on the code

venv: ## Create the Python environment (.venv) from the lock file
	@$(PYTHON3) -m dev.venv --quick

generate: venv ## Generate the CRDs, the chart's dashboards and the tables of the documentation
	@$(PYTHON) -m hone.api.crds
	@$(PYTHON) -m dev.dashboards
	@$(PYTHON) -m dev.tables
	@$(PYTHON) -m dev.gitops

format: venv ## Format the code and apply the linter's automatic fixes
	@$(PYTHON) -m ruff check --fix .
	@$(PYTHON) -m ruff format .

locks: ## Regenerate the dependency lock files from both pyproject.toml
	@$(PYTHON3) -m dev.locks

##@ Test

check: ## Run lint, types, layers, generated files, chart and unit tests: 2 minutes, no cluster
	@$(PYTHON3) -m dev.stages check

integration: ## Run the tests against a real kube-apiserver and etcd: 5 minutes
	@$(PYTHON3) -m dev.stages integration

test: ## Run all tests: check, integration, trainer, then a cluster with real training and serving
	@$(PYTHON3) -m dev.stages test

e2e: ## Start the local cluster and run the end-to-end tests on it; ARGS='-k lora' selects tests
	@$(PYTHON3) -m dev.stages e2e -- $(ARGS)

soak: venv ## Run long tests in slices; an interrupted run continues. SLICE=name runs one slice, FRESH=1 repeats all
	@$(PYTHON) -m dev.soak $(if $(SLICE),--slice $(SLICE)) $(if $(FRESH),--fresh)

bench: venv ## Benchmark training against plain TRL, and the operator's decisions; ARGS='--steps 50' is faster
	@$(PYTHON) -m dev.bench $(ARGS)

matrix: venv ## Run every objective with every method and placement, and write docs/matrix.md; ARGS="--cells 'DPO/*'" selects some
	@$(PYTHON) -m dev.matrix $(ARGS)

architectures: venv ## Run tiny models of many families with every method, and write docs/architectures.md; ARGS="--cells 'Mixtral/*'" selects some
	@$(PYTHON) -m dev.architectures $(ARGS)

outcomes: venv ## Tune on several tasks with the default settings, Hone's and TRL's, and write docs/outcomes.md; ARGS="--data DIRECTORY --runs 'tickets/*'" selects
	@$(PYTHON) -m dev.outcomes $(ARGS)

gpu: venv ## Run the trainer's tests that need a GPU; fails without one. ARGS='-k nf4' selects tests
	@$(PYTHON) -m dev.gpu $(ARGS)

##@ Run

cluster: ## Start the local Kubernetes cluster if it is not running (Debian 12, root)
	@$(PYTHON3) -m dev.cluster up

cluster-down: ## Stop the local cluster and remove what it created
	@$(PYTHON3) -m dev.cluster down

images: venv ## Build the images, push them (REGISTRY=registry.example.com/team; default: local), write values for helm
	@$(PYTHON) -m dev.basemodel build
	@$(PYTHON) -m dev.smollm2 build
	@$(PYTHON3) -m dev.images build

demo: ## Run the whole example, up to the tuned model's answer; on your own cluster if KUBECONFIG and REGISTRY are set
	@$(PYTHON3) -m dev.demo

demo-down: ## Remove from the cluster what the demo created
	@$(PYTHON3) -m dev.demo --cleanup

clean: ## Remove build outputs from the work tree; the cache outside it is kept
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
