"""The figure of BERT's knowledge: its token distributions for one sentence beside those of attention decoders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from asr_distill.experiment import StudyRecord
from asr_distill.reporting import style
from asr_distill.reporting.grid import run_name
from asr_distill.reporting.illustrations import Arrays, plain_token
from asr_distill.reporting.inputs import read_knowledge

MOST_NAMES = 60
"""So many tokens along the sentence can be read; of more, some are left unnamed."""
BERT_TITLE = "BERT, each token masked in turn"


def read_distributions(path: Path, study: StudyRecord) -> Arrays:
    """Read what knowledge.npz holds for the figure.

    Keys: utterance, reference: text; tokens: (U,) ids of the reference's tokens; vocabulary: (V,) spelling of all; bert
    and, per run of the study's figure, decoder/<run>: (U, V) probabilities.
    """
    names = ["utterance", "reference", "tokens", "vocabulary", "bert"]
    names += [f"decoder/{run}" for run in study.study.knowledge.runs]
    return read_knowledge(path, "figure", names)


def knowledge_figure(study: StudyRecord, arrays: Arrays) -> Figure:
    """Draw one heat map per distribution, BERT's first: the sentence to the right, tokens it could hold downwards."""
    panels = {BERT_TITLE: arrays["bert"]}
    panels |= {_decoder_title(study, run): arrays[f"decoder/{run}"] for run in study.study.knowledge.runs}
    tokens, names = arrays["tokens"].tolist(), [plain_token(str(token)) for token in arrays["vocabulary"]]
    shown = shown_tokens(list(panels.values()), tokens=tokens, top=study.study.knowledge.top)
    figure = style.new_figure(height=0.8 + len(panels) * (0.3 + 0.095 * len(shown)))
    axes = figure.subplots(len(panels), 1, squeeze=False, sharex=True, sharey=True)[:, 0]
    for panel, (title, probabilities) in zip(axes, panels.items(), strict=True):
        image = _draw(panel, probabilities[:, shown], marks=_marks(tokens, shown))
        panel.set_title(title)
        panel.set_yticks(range(len(shown)), [names[token] for token in shown], fontsize=6)
    every = -(-len(tokens) // MOST_NAMES)
    places = range(0, len(tokens), every)
    axes[-1].set_xticks(places, [names[tokens[place]] for place in places], fontsize=6, rotation="vertical")
    axes[-1].set_xlabel("tokens of the reference")
    bar = figure.colorbar(image, ax=list(axes), shrink=0.5, aspect=30, pad=0.01)
    bar.set_label("probability")
    bar.outline.set_visible(False)
    return figure


def shown_tokens(panels: Sequence[NDArray], *, tokens: Sequence[int], top: int) -> list[int]:
    """Return the `top` tokens with the highest probability anywhere in panels (U, V), from the first row to the last.

    A token of the reference stands where it first occurs there, any other where it is most probable.
    """
    highest = np.max(panels, axis=0)  # (U, V)
    chosen = np.argsort(-highest.max(axis=0), kind="stable")[:top].tolist()
    first = {token: place for place, token in reversed(list(enumerate(tokens)))}
    peaks = highest.argmax(axis=0).tolist()
    return sorted(chosen, key=lambda token: (first.get(token, peaks[token]), token not in first, token))


def _decoder_title(study: StudyRecord, run: str) -> str:
    return f"{run_name(run)}: {style.TARGET_LABELS[study.study.runs[run].targets]}"


def _marks(tokens: Sequence[int], shown: Sequence[int]) -> list[tuple[int, int]]:
    """Return (position, row) of the reference's own tokens, where their row is shown."""
    return [(place, shown.index(token)) for place, token in enumerate(tokens) if token in shown]


def _draw(panel: Axes, probabilities: NDArray, *, marks: Sequence[tuple[int, int]]) -> AxesImage:
    """Draw (U, rows) with positions to the right and rows downwards, and a dot at each mark."""
    image = panel.imshow(probabilities.T, aspect="auto", interpolation="none", vmin=0.0, vmax=1.0, cmap=style.HEAT)
    dot = {"markersize": 2.6, "markeredgewidth": 0.5, "markerfacecolor": "white", "markeredgecolor": style.INK}
    panel.plot([x for x, _ in marks], [y for _, y in marks], "o", **dot)
    panel.set_ylabel("token")
    panel.tick_params(length=0)
    return image
