#!/usr/bin/env bash
# Snakemake runs this once in the new conda environment, from the folder of the workflow. Not tested, see asr-distill.yaml.
set -euo pipefail
uv export --frozen --no-dev --no-emit-project | uv pip install --python "$CONDA_PREFIX/bin/python" --requirement -
uv pip install --python "$CONDA_PREFIX/bin/python" --no-deps .
