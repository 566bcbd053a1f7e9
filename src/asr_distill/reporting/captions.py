"""Captions of the figures: what is drawn, what the intervals mean, what not to read into it."""

from __future__ import annotations

from collections.abc import Mapping

from asr_distill.experiment import LatticeFigure, StudyRecord

TITLES = {
    "wer_by_target": "Word error rate by kind of target",
    "learning_curves": "Learning curves",
    "lattice": "Transducer lattices",
    "augmentation": "Frequency augmentation",
    "speed_and_memory": "Speed and memory",
}


def captions(study: StudyRecord) -> dict[str, str]:
    """Return the caption of every figure that `write_figures` draws."""
    several = len(study.seeds) > 1
    level = f"{100 * study.scale.scoring.confidence:g} %"
    scope = "test speakers and training seeds" if several else "test speakers; it does not cover the training seed"
    marks = f"Large marks are means over {len(study.seeds)} seeds, small ticks single seeds. " if several else ""
    lines = "One line per seed. " if several else ""
    search = "greedy search, " if any(run.recogniser == "ctc" for run in study.study.runs.values()) else ""
    found = {
        "wer_by_target": (
            f"Word error rate at scale “{study.scale_name}”, {search}without external language model. {marks}Bars are "
            f"{level} bootstrap intervals over {scope}. Runs share test utterances, so bars may overlap where the "
            "paired differences in the claims table are clear. The paper's figures are for other corpora and sizes and "
            "are left out."
        ),
        "learning_curves": (
            f"Word error rate of the averaged weights on up to {_dev_utterances(study)} utterances of each dev part, "
            f"and training loss (logarithmic), against optimiser steps. {lines}Losses of different kinds of target are "
            "different quantities: compare their shape, not their height."
        ),
    }
    return found if study.study.lattice is None else found | _illustrations(study, study.study.lattice)


def _illustrations(study: StudyRecord, lattice: LatticeFigure) -> dict[str, str]:
    part = study.scale.conditions[lattice.condition]
    return {
        "lattice": (
            f"Posteriors over the lattice of one utterance of {part}: time to the right, labels upwards. Left: "
            "probability that an alignment visits the node, given the whole transcript; middle: probability of blank; "
            "right: probability of the label that stands at the row. As in figure 1 of Hwang et al. 2022."
        ),
        "augmentation": (
            "Log-mel spectrogram of one utterance: original; after FreqWarp, which warps the frequency axis piecewise "
            "linearly; after FreqNoise, which multiplies each bin by one factor over all frames. One draw each, on one "
            "colour scale. As in figure 2 of Hwang et al. 2022."
        ),
    }


def speed_caption(study: StudyRecord) -> str:
    """Return the caption of speed_and_memory, whose figures vary from run to run."""
    seeds = " Means over seeds." if len(study.seeds) > 1 else ""
    return (
        f"Wall time and peak resident memory of the training job, and real-time factor of the decoding job (its wall "
        f"time, start-up included, over the duration of the speech), as measured in this very run.{seeds} They depend "
        "on the machine and its load."
    )


def captions_text(texts: Mapping[str, str]) -> str:
    """Return captions as Markdown, a heading per figure."""
    return "\n".join(f"## {TITLES[name]}\n\n`{name}`. {text}\n" for name, text in texts.items())


def _dev_utterances(study: StudyRecord) -> int:
    return max(study.scale.phases[run.phase].dev_utterances for run in study.study.runs.values())
