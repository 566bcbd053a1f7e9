"""Write docs/licences.md, what the packages of uv.lock that the project needs say of their licences.

`python -m envs.licences`, in an environment where they are installed.
"""

from __future__ import annotations

import sys
import tomllib
from importlib.metadata import Distribution, distribution

from envs.generate import ROOT, locked

PAGE = ROOT / "docs/licences.md"

TEXT = """\
# Licences

asr-distill is under Apache 2.0 ([LICENSE](../LICENSE)). It distributes nothing of others: its dependencies are
installed beside it, each under its own licence. The table, written by `python -m envs.licences`, repeats what their
metadata say for the packages that `uv.lock` installs on Linux. It is no legal advice.

What deserves a second look before you pass an environment on, as a container image for example:

- **eSpeak NG** (GPL-3.0-or-later) speaks the embedded corpus. It comes as a shared library with its data inside
  `espeakng-loader`, and is called through `ctypes` by [corpus/espeak.py](../src/asr_distill/corpus/espeak.py) alone.
  Using it here asks nothing of you, and what it speaks is not under the GPL. Who distributes an environment with it
  must offer its source. Scales of real speech never call it, unless a part has `source: synthetic`.
- **Flite** (BSD-like) and **WordNet** (its own, as free) are asked for by the scale `speechocean` alone, and come from
  your system's packages.
- **NVIDIA's CUDA libraries**, which PyTorch brings along on Linux, are proprietary; their licence allows use, and
  distribution under conditions. PyTorch's builds for CPUs come without them.
- **soxr** (LGPL-2.1-or-later), and libsndfile (the same) within soundfile's wheels, are shared libraries that can be
  exchanged.

| package | licence |
| :--- | :--- |
{rows}
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """Return the text of the page."""
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    names = sorted({name for name, _ in locked(lock, project="asr-distill")})
    rows = [f"| {name} | {_licence(distribution(name))} |" for name in names]
    return TEXT.format(rows="\n".join(rows))


def _licence(package: Distribution) -> str:
    """Return what a package says of its licence: an expression, classifiers, a short text, or its licence file."""
    metadata = package.metadata
    if expression := metadata.get("License-Expression"):
        return expression
    found = [name for name in metadata.get_all("Classifier", []) if name.startswith("License :: ")]
    if found:
        return ", ".join(name.rpartition(" :: ")[2] for name in found)
    if (text := metadata.get("License", "").strip()) and "\n" not in text:
        return text
    files = [path for path in package.files or [] if path.name.upper().startswith(("LICENSE", "LICENCE", "COPYING"))]
    lines = [line.strip() for path in files for line in path.read_text(encoding="utf-8").splitlines()]
    return next((f"{line} (its licence file)" for line in lines if line), "says nothing")


if __name__ == "__main__":
    sys.exit(main())
