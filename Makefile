# Each target sets up what it needs on a machine that has Python 3.11 or newer, make and git.
#   make reproduce [SCALE=an4] [DATA=<folder of corpora>] [SEEDS='[0,1,2]'] [CORES=all]
#   make test | lint | publish | compare
PYTHON ?= python3
CORES ?= all
SCALE ?= mini
CONFIG = scale=$(SCALE) $(if $(DATA),data='$(DATA)') $(if $(SEEDS),seeds='$(SEEDS)')
UV = $(or $(shell command -v uv),.uv/bin/uv)
UV_VERSION = 0.13.9

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export UV_PYTHON_DOWNLOADS = never

.PHONY: reproduce test lint format publish compare environment

reproduce: environment
	snakemake --cores $(CORES) --config $(CONFIG)
	@asr-distill show results $(SCALE)

test: environment
	pytest --numprocesses logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder --durations 12

lint: environment
	ruff check
	ruff format --check
	snakefmt --check Snakefile workflow
	snakemake --lint

format: environment
	ruff check --fix
	ruff format
	snakefmt Snakefile workflow

publish: environment
	asr-distill publish

compare: environment
	asr-distill compare

environment: .venv/.complete

.venv/.complete: pyproject.toml uv.lock | $(UV)
	$(UV) sync --frozen --python $(PYTHON)
	@touch $@

.uv/bin/uv:
	$(PYTHON) -m venv .uv
	.uv/bin/python -m pip install --quiet uv==$(UV_VERSION)
