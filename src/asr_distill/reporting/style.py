"""One look for all figures: colours safe for colour-blind readers, print sizes, and files that depend on data alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import matplotlib as mpl
from matplotlib.figure import Figure

from asr_distill.files import replacing

WIDTH = 7.2
"""Inches: two columns of a journal page."""
DOTS_PER_INCH = 200
HEAT = "cividis"
"""Colour map of heat maps: even in lightness, the same to colour-blind readers."""
INK, FAINT = "#222222", "#c9c9c9"

# Okabe & Ito 2008, "Color Universal Design"
TARGET_COLOURS: Mapping[str, str] = MappingProxyType(
    {
        "supervised": "#000000",
        "hard": "#D55E00",
        "soft": "#0072B2",
        "mixed": "#009E73",
        "no decoder": "#000000",
        "transcript": "#D55E00",
        "BERT": "#0072B2",
    }
)
TARGET_MARKERS: Mapping[str, str] = MappingProxyType(
    {"supervised": "s", "hard": "^", "soft": "o", "mixed": "D", "no decoder": "s", "transcript": "^", "BERT": "o"}
)
TARGET_LABELS: Mapping[str, str] = MappingProxyType(
    {
        "supervised": "supervised",
        "hard": "hard targets",
        "soft": "soft targets",
        "mixed": "mixed targets",
        "no decoder": "CTC alone",
        "transcript": "decoder learns the transcript",
        "BERT": "decoder learns from BERT",
    }
)
"""Colour never stands alone: each kind of target has a marker too."""
LINES = ("-", "--", ":", "-.")
"""For runs of one panel that share their kind of target."""

_SETTINGS = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "axes.edgecolor": "#777777",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.hashsalt": "asr-distill",
    "svg.fonttype": "path",
}


@contextmanager
def house_style() -> Iterator[None]:
    """Draw in the house style inside this block, leaving Matplotlib's own settings as they were."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        yield


def new_figure(*, height: float) -> Figure:
    """Return an empty figure of the common width; it belongs to no window and needs no closing."""
    return Figure(figsize=(WIDTH, height), layout="constrained")


def save(figure: Figure, *, folder: Path, name: str) -> None:
    """Write <name>.svg and <name>.png; the same figure gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / f"{name}.svg") as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None, "Creator": None})
    with replacing(folder / f"{name}.png") as temporary:
        figure.savefig(temporary, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
