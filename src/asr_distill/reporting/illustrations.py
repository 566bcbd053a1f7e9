"""Figures of single utterances: transducer lattices, and what augmentation does to a spectrogram."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from asr_distill.experiment import StudyRecord
from asr_distill.reporting import style
from asr_distill.reporting.claims import run_name
from asr_distill.reporting.inputs import read_arrays

Arrays = Mapping[str, NDArray]
SPECTROGRAMS = {"spectrogram": "original", "warped": "FreqWarp", "noised": "FreqNoise"}
POSTERIORS = {"occupancy": "node visited", "blank": "P(blank)", "label": "P(next label)"}


def read_illustrations(path: Path, study: StudyRecord) -> Arrays:
    """Read illustrations.npz.

    Keys: spectrogram, warped, noised: (T, F) log-mel energies; tokens: (U,) text; utterance, reference: text; and per
    run of the study's lattice figure <run>/occupancy, <run>/blank, <run>/label: (T, U + 1) probabilities.
    """
    wanted = [*SPECTROGRAMS, "tokens", "utterance", "reference"]
    wanted += [f"{run}/{posterior}" for run in study.study.lattice.runs for posterior in POSTERIORS]
    return read_arrays(path, wanted, again="write the illustrations of this study again")


def lattice_figure(study: StudyRecord, arrays: Arrays) -> Figure:
    """Draw one row of heat maps per run over time and labels: occupancy, P(blank), P(next label)."""
    runs, tokens = study.study.lattice.runs, [str(token) for token in arrays["tokens"]]
    figure = style.new_figure(height=0.9 + len(runs) * min(0.5 + 0.125 * (len(tokens) + 1), 3.2))
    axes = figure.subplots(len(runs), len(POSTERIORS), squeeze=False, sharex=True, sharey=True)
    for row, run in zip(axes, runs, strict=True):
        for panel, posterior in zip(row, POSTERIORS, strict=True):
            image = _draw_lattice(panel, arrays[f"{run}/{posterior}"], seconds=frame_seconds(study, run))
        row[0].set_ylabel(f"{run_name(run)}\nnext label")
        _label_tokens(row[0], tokens)
    for top, bottom, title in zip(axes[0], axes[-1], POSTERIORS.values(), strict=True):
        top.set_title(title)
        bottom.set_xlabel("time, s")
    bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=30, pad=0.01)
    bar.set_label("probability")
    bar.outline.set_visible(False)
    return figure


def augmentation_figure(study: StudyRecord, arrays: Arrays) -> Figure:
    """Draw the log-mel spectrogram of one utterance as it is, frequency-warped, and with frequency noise."""
    figure = style.new_figure(height=4.6)
    axes = figure.subplots(len(SPECTROGRAMS), 1, sharex=True, sharey=True)
    low, high = np.percentile(arrays["spectrogram"], [1, 99])
    seconds = study.scale.features.frame_shift_ms / 1000
    for panel, (key, title) in zip(axes, SPECTROGRAMS.items(), strict=True):
        spectrogram = arrays[key]
        extent = (0.0, len(spectrogram) * seconds, 0.0, float(spectrogram.shape[1]))
        image = panel.imshow(
            spectrogram.T,
            origin="lower",
            aspect="auto",
            extent=extent,
            vmin=low,
            vmax=high,
            cmap=style.HEAT,
            interpolation="none",
        )
        panel.set_title(title)
        panel.set_ylabel("mel bin")
    axes[-1].set_xlabel("time, s")
    bar = figure.colorbar(image, ax=axes, shrink=0.7, aspect=30, pad=0.01)
    bar.set_label("log-mel energy, nats")
    bar.outline.set_visible(False)
    return figure


def frame_seconds(study: StudyRecord, run: str) -> float:
    """Return the duration of one encoder frame of a run."""
    stack = study.scale.models[study.study.runs[run].model].encoder.stack
    return stack * study.scale.features.frame_shift_ms / 1000


def _draw_lattice(panel: Axes, posterior: NDArray, *, seconds: float) -> AxesImage:
    """Draw a (T, U + 1) array with time to the right and labels upwards."""
    frames, nodes = posterior.shape
    return panel.imshow(
        posterior.T,
        origin="lower",
        aspect="auto",
        interpolation="none",
        extent=(0.0, frames * seconds, -0.5, nodes - 0.5),
        vmin=0.0,
        vmax=1.0,
        cmap=style.HEAT,
    )


def _label_tokens(panel: Axes, tokens: list[str]) -> None:
    """Name the label that each row of nodes waits for; the last row has emitted them all."""
    every = max(1, len(tokens) // 24)
    names = [plain_token(token) for token in tokens] + ["end"]
    panel.set_yticks(range(0, len(names), every), names[::every], fontsize=6.5)
    panel.tick_params(axis="y", length=0)


def plain_token(token: str) -> str:
    """Show SentencePiece's word boundary as a low line, and keep Matplotlib from reading mathematics into dollars."""
    return token.replace("▁", "_").replace("$", r"\$")
