"""Captions of the figures: what is drawn, what the intervals mean, what not to read into it."""

from __future__ import annotations

from collections.abc import Mapping

from asr_distill.experiment import KnowledgeFigure, LatticeFigure, StudyRecord

HIGHEST_WER = 110.0
"""Percent at which the axis of wer_by_layer ends, so that layers on which the head was trained can be told apart."""
TITLES = {
    "wer_by_target": "Word error rate by kind of target",
    "learning_curves": "Learning curves",
    "lattice": "Transducer lattices",
    "augmentation": "Frequency augmentation",
    "knowledge": "BERT's knowledge and what attention decoders learnt",
    "wer_by_layer": "Word error rate by encoder layer",
    "wer_against_latency": "Word error rate against emission latency",
    "gain_by_teacher": "Gain over supervised training by quality of the teacher",
    "wer_by_generation": "Word error rate by generation",
    "speed_and_memory": "Speed and memory",
    "wer_against_rtf": "Word error rate against real-time factor",
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
    if study.study.lattice is not None:
        found |= _illustrations(study, study.study.lattice)
    if study.study.knowledge is not None:
        found["knowledge"] = _knowledge(study, study.study.knowledge)
    if study.ctc_runs:
        found["wer_by_layer"] = (
            "Word error rate of greedy search with the CTC head on the final encoder layer and on each layer below it. "
            "The head was trained on the final layer, and on layers below it only in runs with intermediate CTC. Bars "
            f"are {level} bootstrap intervals over {scope}. The axis is logarithmic and ends at {HIGHEST_WER:g} %: "
            "rates above it are cut off. Runs stand a little beside each other."
        )
    if study.study.shift_sweep is not None and study.timed_runs:
        found["wer_against_latency"] = _latency(study, bars=f"{level} bootstrap intervals over {scope}")
    if study.study.weak_teachers is not None:
        found["gain_by_teacher"] = (
            f"Word error rate of “{study.study.weak_teachers.supervised}”, trained without a teacher, minus that of "
            "the same student with one, against the teacher's own; a line per kind of target, a little beside each "
            f"other. Above zero the teacher helps. Bars are {level} bootstrap intervals of the paired difference, over "
            f"{scope}."
        )
    if study.study.generations:
        found["wer_by_generation"] = (
            "Word error rate of students that teach each other, as in noisy student training. Generation 0 is the "
            "first teacher; every later one is a new model, trained on the same speech with the generation before as "
            f"its teacher. Bars are {level} bootstrap intervals over {scope}. All transcribe the same utterances, so "
            "bars may overlap where paired differences are clear. Chains stand a little beside each other."
        )
    return found


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


def _latency(study: StudyRecord, *, bars: str) -> str:
    return (
        "Word error rate of streaming students against the mean delay at which they write words that are right, "
        f"counted from where the forced alignment of “{study.study.aligned_by}” ends them. The line joins soft targets "
        "of a teacher delayed by the milliseconds beside each point, in whole encoder frames; the others are single "
        f"points. Down and to the left is better. Bars are {bars}. Students differ in the words that they have right, "
        "so in the words that are timed."
    )


def _knowledge(study: StudyRecord, figure: KnowledgeFigure) -> str:
    seed = f", of training seed {study.seeds[0]}" if len(study.seeds) > 1 else ""
    return (
        f"Probability of tokens at each place of one sentence, the utterance of median length of "
        f"{study.scale.conditions[figure.condition]}. BERT sees all other tokens of the reference and hears nothing. "
        f"Attention decoders{seed} read the encoder's final layer and see the tokens before; what they give to the end "
        f"of the sentence is left out. Rows are the {figure.top} tokens with the highest probability anywhere: a token "
        "of the reference stands where it first occurs there, any other where it is most probable. Dots mark the "
        "reference; “_” begins a word."
    )


def speed_caption(study: StudyRecord) -> str:
    """Return the caption of speed_and_memory, whose figures vary from run to run."""
    seeds = " Means over seeds." if len(study.seeds) > 1 else ""
    tuning = " The decoding job of a CTC recogniser tunes and runs all its searches." if study.ctc_runs else ""
    return (
        f"Wall time and peak resident memory of the training job, and real-time factor of the decoding job (its wall "
        f"time, start-up included, over the duration of the speech), as measured in this very run.{seeds} They depend "
        f"on the machine and its load.{tuning}"
    )


def times_captions(study: StudyRecord) -> dict[str, str]:
    """Return the caption of every figure that `write_times` draws: they vary from run to run."""
    found = {"speed_and_memory": speed_caption(study)}
    return found | {"wer_against_rtf": _trade_off(study)} if study.ctc_runs else found


def _trade_off(study: StudyRecord) -> str:
    seeds = " Means over seeds." if len(study.seeds) > 1 else ""
    return (
        "Word error rate of every CTC run and search against its real-time factor from stored features to text "
        "(reading, encoder and search), the rates logarithmic, as measured in this very run on all test parts. "
        "Markers tell searches, colours what the run's decoder learnt; a faint line joins the searches of a run. Bars "
        f"are {100 * study.scale.scoring.confidence:g} % bootstrap intervals of the word error rate.{seeds} Real-time "
        "factors depend on the machine and its load."
    )


def captions_text(texts: Mapping[str, str]) -> str:
    """Return captions as Markdown, a heading per figure."""
    return "\n".join(f"## {TITLES[name]}\n\n`{name}`. {text}\n" for name, text in texts.items())


def _dev_utterances(study: StudyRecord) -> int:
    return max(study.scale.phases[run.phase].dev_utterances for run in study.study.recognisers.values())
