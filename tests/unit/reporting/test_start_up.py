from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import pkgutil, sys
import asr_distill.reporting, asr_distill.scoring
for package in (asr_distill.reporting, asr_distill.scoring):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        __import__(module.name)
print([name for name in ("torch", "lhotse", "transformers", "snakemake") if name in sys.modules])
"""


def test_reporting_loads_nothing_slow() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
