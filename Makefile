# Each target works from a fresh clone: it makes its own virtual environment first.
# PYTHON: the interpreter to start from (3.11 or newer). VENV: where the environment goes.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
DEMO ?= demo

.PHONY: help gpu gpu-wheels install demo effect test test-slow test-pythons test-frameworks test-peers check format bench tables fuzz soak docs clean
help:
	@echo "make demo   simulate, ingest, pretrain, evaluate, and the artefact control, in one report (under 6 minutes on 2 cores)"
	@echo "make effect three simulated hospitals over three seeds, CAPE-X and CAPE-Z paired (about 15 minutes)"
	@echo "make test   the whole test suite"
	@echo "make test-slow  what the suite samples, whole: 2,000 mutants a format, all defects, 10,000 worlds (ten minutes)"
	@echo "make test-pythons  samplers, stores, ingest and a reader on other Pythons, each with the newest packages it can have"
	@echo "make test-frameworks  docs/frameworks.md, adapters and examples for JAX and TensorFlow, in three environments of 17 GB"
	@echo "make test-peers  exports read back with Hugging Face datasets and WebDataset, in an environment of their own"
	@echo "make check  format, lint, types, import rules, tests"
	@echo "make gpu    on a machine with a GPU: measured beside expected, in thirteen parts, into GPU_OUT/results.json (under 8 minutes)"
	@echo "make gpu-wheels  ours and the small wheels that such a machine lacks, for its Python (GPU_PYTHON=3.12)"
	@echo "make bench  speed against peers, in one run"
	@echo "make tables the tables of docs/benchmarks.md, the run at scale included (about 40 minutes, 35 GB)"
	@echo "make fuzz   200,000 mutants of every raw format, resumed where it was stopped"
	@echo "make soak   kills, full disks, losses of power and flipped bits, in stores, runs and weights (about 40 minutes)"
	@echo "make docs   the documentation, into docs/_build"

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; set PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $(READY)

install: $(READY)

demo: $(READY)
	$(BIN)/python examples/demo.py $(DEMO)

effect: $(READY)
	$(BIN)/python examples/in_distribution_effect.py $(DEMO)-effect --seeds 0 1 2 \
	  --demo "--patients 200 --steps 200 --pairs 64 --control-seeds 0 --questions all"

# Two to four processes of one OpenMP thread each: with more threads than cores, waiting for each other dominates.
# Work is stolen in long stretches, so that the tests of a file share a process and what it has made for them.
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

test: $(READY)
	$(TESTS)

test-slow: $(READY)
	$(TESTS) -m slow

# The core without torch on every interpreter of PYTHONS: newer ones get newer releases of numpy and zarr than 3.11 does.
PYTHONS ?= python3.12 python3.13
CORE := $(addprefix tests/ecgcohorts/,samplers store preprocess loading ingest/test_ingest.py readers/test_muse_xml.py)

test-pythons:
	for python in $(PYTHONS); do \
	  $$python -m venv $(VENV)-$$python && \
	  $(VENV)-$$python/bin/python -m pip install --quiet --upgrade pip && \
	  $(VENV)-$$python/bin/python -m pip install --quiet -e '.[compact,ingest,objects]' hypothesis 'moto[s3,server]>=5.0' pytest pytest-xdist && \
	  OMP_NUM_THREADS=1 $(VENV)-$$python/bin/python -m pytest -n auto --maxprocesses 4 $(CORE) || exit 1; \
	done

# docs/frameworks.md, adapters and examples, in environments of their own: one without torch, one for all that train with
# torch, and one for Composer, which takes no torch after 2.7. Together 17 GB.
FRAMEWORKS := $(VENV)-jax $(VENV)-torch $(VENV)-composer
$(VENV)-jax/.installed: WANTED := '.[grain,ingest,tensorflow]'
$(VENV)-torch/.installed: WANTED := '.[ingest]' accelerate lightly-train lightning monai pytorch-ignite pytorch-metric-learning 'ray[train]' torchdata torchvision transformers
$(VENV)-composer/.installed: WANTED := '.[ingest]' mosaicml
$(addsuffix /.installed,$(FRAMEWORKS)): pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --upgrade pip
	$(@D)/bin/python -m pip install --quiet $(patsubst '.[%,-e '.[%,$(WANTED)) pytest
	touch $@

test-frameworks: $(addsuffix /.installed,$(FRAMEWORKS))
	$(VENV)-jax/bin/python -m pytest tests/ecgcohorts/loading tests/test_examples.py
	for place in $(FRAMEWORKS); do $$place/bin/python -m pytest -m "slow or not slow" tests/frameworks || exit 1; done

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(TESTS)

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# An environment of its own: some peers pin old versions of what we use.
BENCH := $(VENV)-bench
$(BENCH)/.installed: pyproject.toml
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --upgrade pip
	$(BENCH)/bin/python -m pip install --quiet -e '.[dev,peers]'
	touch $@

test-peers: $(BENCH)/.installed
	$(BENCH)/bin/python -m pytest tests/ecgcohorts/test_export_shards.py

bench: $(BENCH)/.installed
	OMP_NUM_THREADS=1 $(BENCH)/bin/python -m pytest tests/benchmarks --benchmark-only -o python_files='bench_*.py'

GPU_OUT ?= build/gpu
gpu: $(READY)
	$(BIN)/python tests/benchmarks/gpu.py $(GPU_OUT)

# For a machine without a network, of which torch and its like are all that is there: ours and the small ones it lacks.
# GPU_PYTHON: of that machine; ours is the same for all. There: pip install --no-index --no-deps --target SITE WHEELS/*.whl
GPU_PYTHON ?= 3.12
GPU_WHEELS ?= build/gpu-wheels
gpu-wheels: $(READY)
	rm -rf $(GPU_WHEELS)
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir $(GPU_WHEELS) .
	$(BIN)/python -m pip download --quiet --no-deps --only-binary=:all: --implementation cp --python-version $(GPU_PYTHON) \
	  $(foreach glibc,2_28 2_27 2_17,--platform manylinux_$(glibc)_x86_64) --platform manylinux2014_x86_64 --platform manylinux1_x86_64 \
	  --dest $(GPU_WHEELS) $$($(BIN)/python tests/benchmarks/wheels.py)
	ls $(GPU_WHEELS)

# SCALE: a folder with room for 35 GB. The numbers go into docs/data and docs/benchmarks.md; needs a quiet machine.
SCALE ?= build/scale
tables: $(BENCH)/.installed
	for name in ingest writing peers loading samplers planning training; do OMP_NUM_THREADS=1 $(BENCH)/bin/python tests/benchmarks/bench_$$name.py --save || exit 1; done
	OMP_NUM_THREADS=1 $(BENCH)/bin/python tests/benchmarks/bench_scaling.py $(SCALE) --save
	OMP_NUM_THREADS=1 $(BENCH)/bin/python tests/benchmarks/scale_ingest.py $(SCALE) --save

# FUZZ_JOBS: processes at a time. Finished blocks and crashers are kept in build/fuzz.
MUTANTS ?= 200000
FUZZ_JOBS ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)

fuzz: $(READY)
	$(BIN)/python tests/fuzz/fuzz.py --mutants $(MUTANTS) --jobs $(FUZZ_JOBS) --work build/fuzz --results docs/data/fuzz.json

# SOAK: options, such as --every 1 for all points, which takes a day; or names of campaigns, such as kill "power loss".
# What was tried is kept in build/soak.jsonl: given again after an interruption, only the rest is tried.
SOAK ?= --every 50 --log build/soak.jsonl --results docs/data/soak.json

soak: $(READY)
	$(BIN)/python tests/faults/soak.py --jobs $(FUZZ_JOBS) $(SOAK)
	$(BIN)/python tests/faults/soak.py --write

docs: $(READY)
	$(BIN)/python -m sphinx -W -q docs docs/_build

clean:
	rm -rf $(DEMO) $(DEMO)-effect docs/_build .pytest_cache .ruff_cache .mypy_cache .hypothesis .benchmarks
