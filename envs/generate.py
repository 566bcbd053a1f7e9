"""Write the environments for clusters, conda's and Apptainer's, from uv.lock: `python envs/generate.py`."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from packaging.markers import Marker

ROOT = Path(__file__).parents[1]
PYTHON = "3.12"
PLATFORM = {
    "python_version": PYTHON,
    "python_full_version": f"{PYTHON}.0",
    "implementation_name": "cpython",
    "implementation_version": f"{PYTHON}.0",
    "platform_python_implementation": "CPython",
    "os_name": "posix",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "platform_release": "",
    "platform_version": "",
    "extra": "",
}

CONDA = """\
# Written by `python envs/generate.py` from uv.lock; do not edit. For `snakemake --sdm conda`, which
# then adds the project itself (asr-distill.post-deploy.sh). Not tested: no conda where the tests run.
channels:
  - conda-forge
  - nodefaults
dependencies:
  - python ={python}
  - pip
  - pip:
{packages}
"""

APPTAINER = """\
# Written by `python envs/generate.py` from uv.lock; do not edit. For `snakemake --sdm apptainer`; built with
# `apptainer build envs/asr-distill.sif envs/asr-distill.def`. Not tested: no Apptainer where the tests run.
Bootstrap: docker
From: python:{python}-slim

%files
    pyproject.toml README.md LICENSE /opt/asr-distill/
    src /opt/asr-distill/src

%post
    cat > /opt/asr-distill/requirements.txt <<'END'
{packages}
END
    python -m pip install --no-cache-dir --no-deps --requirement /opt/asr-distill/requirements.txt
    python -m pip install --no-cache-dir --no-deps /opt/asr-distill

%test
    asr-distill --help
"""


def main() -> None:
    """Write both files."""
    for name, text in environments((ROOT / "uv.lock").read_text(encoding="utf-8")).items():
        (ROOT / "envs" / name).write_text(text, encoding="utf-8")


def environments(lock: str) -> dict[str, str]:
    """Return the text of each environment file, by name, for the text of a lock file."""
    pins = [f"{name}=={version}" for name, version in sorted(locked(tomllib.loads(lock), project="asr-distill"))]
    conda = "\n".join(f"      - {pin}" for pin in pins)
    return {
        "asr-distill.yaml": CONDA.format(python=PYTHON, packages=conda),
        "asr-distill.def": APPTAINER.format(python=PYTHON, packages="\n".join(pins)),
    }


def locked(lock: Mapping[str, Any], *, project: str) -> set[tuple[str, str]]:
    """Return name and version of every package that the project needs on this platform, its own extras left out."""
    found: set[tuple[str, str]] = set()
    seen: set[tuple[str, str, str]] = set()
    waiting = [(package, "") for package in lock["package"] if package["name"] == project]
    while waiting:
        package, extra = waiting.pop()
        for other, other_extra in _needs(package, extra=extra, lock=lock):
            key = (other["name"], other["version"], other_extra)
            if key not in seen:
                seen.add(key)
                found.add(key[:2])
                waiting.append((other, other_extra))
    return found


def _needs(
    package: Mapping[str, Any], *, extra: str, lock: Mapping[str, Any]
) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield the packages, with their extras, that a package, or one extra of it, needs on this platform."""
    needs = package["optional-dependencies"][extra] if extra else package.get("dependencies", ())
    for need in needs:
        if "marker" in need and not Marker(need["marker"]).evaluate(PLATFORM):
            continue
        for other in lock["package"]:
            if other["name"] == need["name"] and other["version"] == need.get("version", other["version"]):
                yield from ((other, name) for name in ("", *need.get("extra", ())))


if __name__ == "__main__":
    sys.exit(main())
