"""Data for a table and a figure: what BERT would say in place of each token, and what attention decoders say there.

Layout legend: T feature frames, F mel bins, U labels (tokens of a transcript), V vocabulary (blank is 0).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from asr_distill.decoding.choice import evenly_spaced
from asr_distill.decoding.illustrations import median_utterance
from asr_distill.experiment import StudyRecord
from asr_distill.features.reading import read_cuts
from asr_distill.files import replacing
from asr_distill.models.attention_decoder import AttentionDecoder
from asr_distill.models.ctc import CTCModel
from asr_distill.models.ctc_storage import load_ctc, load_decoder
from asr_distill.text.normalise import normalise
from asr_distill.text.soft_labels import soft_labels
from asr_distill.text.tokenizer import Tokenizer

Transcripts = Mapping[str, str]
"""By utterance id."""


def write_knowledge(
    study: StudyRecord,
    *,
    compared: tuple[Transcripts, Transcripts] | None,
    runs: Path,
    bert: Path,
    corpus: Path,
    tokenizer: Path,
    output: Path,
) -> None:
    """Write knowledge.npz: of what the study asks for, the samples and the figure of BERT's knowledge.

    Samples: utterances (S,), their ids; bert (S,), BERT's most probable token in place of each, as text; differing and
    total, on how many utterances of the part the compared transcripts differ, of how many.
    Figure: utterance, its id; reference, its text; tokens (U,), its ids; vocabulary (V,), the spelling of all tokens;
    bert (U, V) and decoder/<run> (U, V), probabilities of BERT and of each run's attention decoder.

    Args:
        study: the study, or the part of it that is reported on.
        compared: transcripts by the two systems that the samples compare; None for a study without samples.
        runs: folder that holds <run>/seed<seed>/model.safetensors and decoder.safetensors; the first seed's are read.
        bert: folder of BERT.
        corpus: folder of the prepared parts.
        tokenizer: the tokens of all models.
        output: the file.

    Raises:
        ValueError: when a model speaks of other tokens, or a transcript is too long for BERT.
    """
    tokens = Tokenizer.load(tokenizer)
    arrays: dict[str, np.ndarray] = {}
    if compared is not None:
        found = _samples(study, compared, bert=bert, corpus=corpus, tokens=tokens)
        arrays |= {f"samples/{name}": values for name, values in found.items()}
    if study.study.knowledge is not None:
        found = _distributions(study, runs=runs, bert=bert, corpus=corpus, tokens=tokens)
        arrays |= {f"figure/{name}": values for name, values in found.items()}
    with replacing(output) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def choose_utterances(
    utterances: Iterable[str], compared: tuple[Transcripts, Transcripts], *, count: int
) -> tuple[list[str], int]:
    """Return which utterances are shown, and on how many of all the compared transcripts differ after normalisation.

    Of those on which they differ, in the order of their ids, `count` evenly spaced ones; all if there are fewer. Where
    they differ on none, the same of all utterances. An utterance without a transcript counts as an empty one.
    """
    left, right = compared
    ordered = sorted(utterances)
    differing = [name for name in ordered if normalise(left.get(name, "")) != normalise(right.get(name, ""))]
    pool = differing or ordered
    return evenly_spaced(pool, count), len(differing)


@torch.inference_mode()
def decoder_probabilities(
    model: CTCModel, decoder: AttentionDecoder, features: Tensor, lengths: Tensor, labels: Tensor
) -> Tensor:
    """Return what the decoder expects at each label, given the speech and the labels before it, for one utterance.

    Args:
        model: its recogniser, whose final layer it reads.
        decoder: an attention decoder.
        features: (1, T, F) log-mels, not normalised.
        lengths: (1,).
        labels: (1, U).

    Returns:
        (U, V): probabilities of all tokens. The end of the sentence, for which BERT has none, is left out, so that a
        row sums to 1 minus its probability.
    """
    states, frames = model.encode(model.normalise(features, lengths), lengths)
    logits = decoder(states, frames, labels, torch.tensor([labels.shape[1]]))
    return torch.softmax(logits[0, :-1].float(), dim=-1)[:, : decoder.end]


def _samples(
    study: StudyRecord,
    compared: tuple[Transcripts, Transcripts],
    *,
    bert: Path,
    corpus: Path,
    tokens: Tokenizer,
) -> dict[str, np.ndarray]:
    samples = study.study.samples
    cuts = read_cuts([corpus / study.scale.conditions[samples.condition]], originals_only=True)
    references = {cut.id: cut.supervisions[0].text for cut in cuts}
    chosen, differing = choose_utterances(references, compared, count=samples.utterances)
    labels = soft_labels(bert, {name: references[name] for name in chosen}, tokenizer=tokens, top_k=1)
    return {
        "utterances": np.array(chosen),
        "bert": np.array([tokens.decode(labels[name][0][:, 0].tolist()) for name in chosen]),
        "differing": np.array(differing),
        "total": np.array(len(references)),
    }


def _distributions(
    study: StudyRecord, *, runs: Path, bert: Path, corpus: Path, tokens: Tokenizer
) -> dict[str, np.ndarray]:
    figure = study.study.knowledge
    cut, features, lengths = median_utterance(corpus / study.scale.conditions[figure.condition])
    text = cut.supervisions[0].text
    labels = torch.tensor([tokens.encode(text)])
    ids, highest = soft_labels(bert, {cut.id: text}, tokenizer=tokens, top_k=tokens.vocabulary - 1)[cut.id]
    found = {"bert": torch.zeros(len(ids), tokens.vocabulary).scatter(1, ids.long(), highest)}
    for run in figure.runs:
        folder = runs / study.run_folder(run, study.seeds[0])
        model = load_ctc(folder / "model.safetensors", tokenizer=tokens.fingerprint)
        decoder = load_decoder(folder / "decoder.safetensors", tokenizer=tokens.fingerprint)
        found[f"decoder/{run}"] = decoder_probabilities(model, decoder, features, lengths, labels)
    return {
        "utterance": np.array(cut.id),
        "reference": np.array(text),
        "tokens": labels[0].numpy(),
        "vocabulary": np.array([tokens.piece(token) for token in range(tokens.vocabulary)]),
        **{name: probabilities.numpy() for name, probabilities in found.items()},
    }
