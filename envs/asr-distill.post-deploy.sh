#!/usr/bin/env bash
# Snakemake runs this once in the new conda environment, from the folder of the workflow. Not tested, see asr-distill.yaml.
set -euo pipefail
python -m pip install --no-deps .
