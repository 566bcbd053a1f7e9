"""Data for two figures: the lattice posteriors of a few models on one utterance, and an augmented spectrogram."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from lhotse.cut import Cut
from torch import Tensor

from asr_distill.experiment import StudyRecord
from asr_distill.features.augment import freq_noise, freq_warp
from asr_distill.features.reading import FeatureReader, read_cuts
from asr_distill.files import replacing
from asr_distill.losses.paths import path_sums
from asr_distill.models.storage import load_model
from asr_distill.models.transducer import BLANK, Transducer
from asr_distill.text.tokenizer import Tokenizer

WARP, NOISE = 0.75, 0.14
"""FreqAug's parameters in Hwang et al. 2022, sec. 5.4; the figure shows the paper's, whatever the scale trains with."""


def illustrate(study: StudyRecord, *, models: Mapping[str, Path], corpus: Path, tokenizer: Path, output: Path) -> None:
    """Write illustrations.npz: posteriors of the models (by run) and augmentations, for one test utterance.

    The utterance is the one of median length of the test part of the study's lattice figure.
    """
    tokens = Tokenizer.load(tokenizer)
    cut, features, lengths = median_utterance(corpus / study.scale.conditions[study.study.lattice.condition])
    arrays = _lattices(cut, features, lengths, models=models, tokens=tokens) | _augmented(features, seed=study.seeds[0])
    with replacing(output) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def median_utterance(part: Path) -> tuple[Cut, Tensor, Tensor]:
    """Return the utterance of median length (by id where several are) of a prepared part.

    Its features (1, T, F) and their lengths (1,) come with it.
    """
    cuts = sorted(read_cuts([part], originals_only=True), key=lambda cut: (cut.duration, cut.id))
    cut = cuts[len(cuts) // 2]
    return cut, *FeatureReader([cut], cache_hours=0).collate([cut])


@torch.inference_mode()
def node_posteriors(model: Transducer, features: Tensor, lengths: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Return occupancy, P(blank) and P(next label) at every lattice node, each (N, U + 1), for one utterance.

    Args:
        model: a transducer.
        features: (1, T, F) log-mels, not normalised.
        lengths: (1,).
        labels: (1, U).
    """
    states, frames = model.encode(model.normalise(features, lengths), lengths)
    predictor = model.joint.predictor(model.predictor(labels))
    logits = model.joint(model.joint.encoder(states)[:, :, None], predictor[:, None])
    log_probs = torch.log_softmax(logits.float(), dim=-1)
    following = torch.nn.functional.pad(labels, (0, 1), value=BLANK)
    label = log_probs.gather(3, following[:, None, :, None].expand(-1, log_probs.shape[1], -1, 1))[..., 0]
    blank = log_probs[..., BLANK]
    paths = path_sums(blank, label, tuple(frames.tolist()), (labels.shape[1],))
    label_probability = label.exp()
    label_probability[..., -1] = 0  # nothing follows the last label
    return {"occupancy": paths.occupation()[0], "blank": blank.exp()[0], "label": label_probability[0]}


def _lattices(
    cut: Cut, features: Tensor, lengths: Tensor, *, models: Mapping[str, Path], tokens: Tokenizer
) -> dict[str, np.ndarray]:
    text = cut.supervisions[0].text
    labels = tokens.encode(text)
    arrays = {
        "utterance": np.array(cut.id),
        "reference": np.array(text),
        "tokens": np.array([tokens.piece(label) for label in labels]),
    }
    for run, path in models.items():
        model = load_model(path, tokenizer=tokens.fingerprint)
        posteriors = node_posteriors(model, features, lengths, torch.tensor([labels]))
        arrays |= {f"{run}/{name}": values.numpy() for name, values in posteriors.items()}
    return arrays


def _augmented(features: Tensor, *, seed: int) -> dict[str, np.ndarray]:
    """Return the log-mels as they are, warped, and multiplied with noise after normalisation; each (T, F)."""
    generator = torch.Generator().manual_seed(seed)
    mean, deviation = features.mean(dim=(0, 1)), features.std(dim=(0, 1))
    warped = freq_warp(features, share=WARP, generator=generator)
    normalised = (features - mean) / deviation
    noised = freq_noise(normalised, deviation=NOISE, generator=generator) * deviation + mean
    return {name: x[0].numpy() for name, x in (("spectrogram", features), ("warped", warped), ("noised", noised))}
