# Two commands matter: `make train` and `make test`. `make help` lists the rest.
#
# Everything is installed into .venv, once; pyproject.toml or a new driver makes it again.
# PYTHON names the interpreter that .venv is made from. EXTRA=cuda12 (or cuda13, or none) overrides
# what the driver says. LOCK=.ci/cuda12.lock installs the versions and hashes that it pins, and
# fails if pyproject.toml wants what it has not; `make lock` writes it.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

# What `make train` trains: hand-written CUDA C, on the GPU or through the emulator.
TRAIN ?= --data digits --conv naive --pool max --epochs 8 --batch-size 8 --lr 0.01 --target-accuracy 0.98

CUDA_FILES = $(shell find kernels profiling tests -name '*.cu' -o -name '*.cuh' -o -name '*.hpp' \
  -o -name '*.cpp' -o -name '*.c')

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help train test test-all fuzz gpu doctor bench check format compare-torch bench-emulator bench-xray guide lock soak clean FORCE

help:  ## list the commands
	@awk -F ':.*##  *' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

train: $(VENV)/with-nothing  ## train LeNet on real digits with hand-written CUDA kernels
	$(RUN) -m lenet train $(TRAIN)

test: $(VENV)/with-test  ## run the tests, but for the slow ones
	$(RUN) -m pytest -n auto

test-all: $(VENV)/with-test  ## run all the tests
	$(RUN) -m pytest -n auto --slow

FUZZ ?= 100000
fuzz: $(VENV)/with-test  ## damaged files and odd command lines, FUZZ=100000 of them, new ones each time
	FUZZ=$(FUZZ) $(RUN) -m pytest tests/fuzz --timeout 0

doctor: $(VENV)/with-nothing  ## what this machine has, lacks, and how to mend it
	$(RUN) -m profiling doctor

# BENCH="--suite vgg -o vgg.jsonl", for instance.
bench: $(VENV)/with-compare  ## time the kernels beside PyTorch: checked, cold and hot
	$(RUN) -m profiling bench $(BENCH)

# Every kernel checked and recorded, then timed (two of LeNet's batch sizes, some minutes), then
# LeNet trained; with MNIST=folder beside PyTorch and for a speedrun too. On a CUDA machine without
# a network, make gpu PYTHON=python3 uses that environment as it is.
GPU_BENCH ?= --suite lenet --batch 256:8192:x32
# The shape that the goals for 3x3 layers are stated on: `python -m profiling targets`.
GPU_GOALS ?= --suite resnet50-3x3 --pass forward
NOW := $(shell date -u +%Y%m%d-%H%M%S)
GPU_RESULTS := profiling/results/bench-$(NOW).jsonl
GPU_GOALS_RESULTS := profiling/results/goals-$(NOW).jsonl
GPU_COUNTS := profiling/results/ncu-$(NOW).jsonl
GPU_STEP := profiling/results/step-$(NOW).jsonl
GPU_SPEEDRUN := profiling/results/speedrun-$(NOW).jsonl
ifeq ($(origin PYTHON),command line)
GPU_RUN := $(PYTHON)
gpu:
else
GPU_RUN := $(RUN)
gpu: $(VENV)/with-test  ## check, time and train on this GPU, and keep the records (PYTHON=python3: install nothing)
endif
	$(GPU_RUN) -m profiling verify --place gpu
	$(GPU_RUN) -m profiling bench --device gpu $(GPU_BENCH) -o $(GPU_RESULTS)
	$(GPU_RUN) -m profiling bench --device gpu $(GPU_GOALS) -o $(GPU_GOALS_RESULTS)
	@if command -v ncu > /dev/null; then set -x; $(GPU_RUN) -m profiling counts -o $(GPU_COUNTS); \
	else echo "ncu is not on PATH: the X-ray's counts are not compared with it"; fi
	$(GPU_RUN) -m lenet train $(TRAIN) --device gpu
	@if [ -n "$(MNIST)" ]; then set -x; \
	$(GPU_RUN) -m profiling compare-torch --device gpu --batch-size 256 --data-dir $(MNIST) --json > $(GPU_STEP); \
	$(GPU_RUN) -m lenet speedrun --device gpu --data-dir $(MNIST) --json > $(GPU_SPEEDRUN); \
	else echo "MNIST=folder names no IDX files: the step is not compared with PyTorch's, no speedrun"; fi
	-$(GPU_RUN) -m profiling targets $(GPU_RESULTS) $(GPU_GOALS_RESULTS) \
	  $$(for file in $(GPU_STEP) $(GPU_SPEEDRUN); do if [ -s $$file ]; then echo $$file; else rm -f $$file; fi; done)

check: $(VENV)/with-dev  ## lint, layout and types
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	@echo clang-format --dry-run
	@$(if $(CUDA_FILES),$(VENV)/bin/clang-format --dry-run -Werror $(CUDA_FILES))
	$(RUN) -m mypy
	$(VENV)/bin/hadolint Dockerfile.cuda

format: $(VENV)/with-dev  ## lay out Python and CUDA files
	$(RUN) -m ruff check --fix
	$(RUN) -m ruff format
	@echo clang-format -i
	@$(if $(CUDA_FILES),$(VENV)/bin/clang-format -i $(CUDA_FILES))

# For the Python of Dockerfile.cuda's Ubuntu; setuptools builds the lab itself. LOCK_OPTIONS=--upgrade
# takes the newest versions of all.
lock: $(VENV)/with-dev  ## pin what Dockerfile.cuda installs
	echo setuptools | $(VENV)/bin/uv pip compile --quiet pyproject.toml - \
	  --extra cuda12 --extra test --python-version 3.12 --python-platform x86_64-manylinux_2_39 \
	  --only-binary :all: --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --custom-compile-command 'make lock' $(LOCK_OPTIONS) --output-file .ci/cuda12.lock

# Needs root or user namespaces; SOAK="--seed 7 --json", for instance.
MINUTES ?= 1
soak: $(VENV)/with-nothing  ## train for MINUTES=60 with kills, full disks ...: nothing may be lost
	$(RUN) tests/lenet/soak.py --minutes $(MINUTES) $(SOAK)

compare-torch: $(VENV)/with-compare  ## train the same LeNet with PyTorch, step by step beside ours
	$(RUN) -m profiling compare-torch $(COMPARE)

bench-emulator: $(VENV)/with-nothing  ## time the emulator against Numba's CUDA simulator
	$(RUN) -m kernels.emulator

bench-xray: $(VENV)/with-nothing  ## time the X-ray against plain emulation
	$(RUN) -m kernels.xray

guide: $(VENV)/with-test  ## run the commands of the workshop's guide, and put in what they print
	$(RUN) docs/replay.py docs/workshop.md

clean:  ## remove the environment and what tools left
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment. `with-X` is a stamp: the lab and extra X are installed.

$(VENV)/made:
	@$(PYTHON) profiling/prerequisites.py > /dev/null
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

# Looked up every time (a driver or a compiler comes and goes), written only when it changed.
$(VENV)/extra: FORCE | $(VENV)/made
	@extra=$$($(RUN) profiling/prerequisites.py) || exit 2; \
	case "$(EXTRA)" in none) extra= ;; ?*) extra="$(EXTRA)" ;; esac; \
	test -f $@ && test "$$(cat $@)" = "$$extra" || echo "$$extra" > $@

PIP := $(RUN) -m pip install --quiet --disable-pip-version-check
LOCKED = $(if $(filter nothing test,$*),$(LOCK))

$(VENV)/with-%: $(VENV)/extra pyproject.toml $(LOCK)
	@set -e; cuda=$$(cat $<); \
	extras=$$(echo $(filter-out nothing,$*) $(if $(filter test,$*),$${cuda:-offline},$$cuda) | tr ' ' ','); \
	echo "installing conv-kernel-lab$${extras:+[$$extras]} into $(VENV)"; \
	$(if $(LOCKED),$(PIP) --require-hashes -r $(LOCK);) \
	$(PIP) $(if $(LOCKED),--no-index --no-build-isolation) -e ".$${extras:+[$$extras]}"
	@touch $@
