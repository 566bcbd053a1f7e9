"""The scales of the papers' sizes: what they hold, how many parameters their models have, that each takes a step.

Everything runs on PyTorch's meta device, where tensors have shapes and no content.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from asr_distill.experiment import Augmentation, ModelSize, PredictorSize, load_experiment
from asr_distill.losses.joint import JointInputs, LatticeLengths
from asr_distill.losses.lattice import LatticeLosses, LatticeWeights, lattice_losses
from asr_distill.models.conformer import Conformer
from asr_distill.models.ctc import CTCModel
from asr_distill.models.transducer import Transducer
from asr_distill.text.masked_lm import MaskedVocabulary, new_bert, token_logits
from asr_distill.training import ctc_objective as ctc_module
from asr_distill.training import objective as objective_module
from asr_distill.training.ctc_objective import CTCObjective
from asr_distill.training.objective import Batch, Objective

ROOT = Path(__file__).parents[3]
BINS = 80
PAPER_SCALES = ("librispeech_100", "librispeech_960", "librilight")
SCALES = ("librispeech_mini", *PAPER_SCALES)
LM_SCALES = ("librispeech_100", "librispeech_960")
STEPPING = "librispeech_960"
"""Whose models take a step; the other paper scales have the same ones."""
TRANSDUCER_RUNS = ("teacher", "self_soft", "small_supervised", "small_soft", "streaming_supervised", "streaming_soft")
"""One run of each model that learns from transcripts, and one that learns the teacher's distributions."""
MISSING_SETS = {"table7", "A7", "table7b", "A7b"}


def experiment(scale):
    return load_experiment({"scale": scale}, root=ROOT)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def on_meta(build):
    with torch.device("meta"):
        return build()


def transducer(scale, role):
    vocabulary = scale.tokenizer.vocabulary
    return on_meta(lambda: Transducer(scale.models[role], vocabulary=vocabulary, mel_bins=BINS))


def ctc(scale):
    vocabulary = scale.ctc_tokenizer.vocabulary
    return on_meta(lambda: CTCModel(scale.ctc_models["ctc"], vocabulary=vocabulary, mel_bins=BINS))


def bert(scale):
    vocabulary = MaskedVocabulary(scale.ctc_tokenizer.vocabulary)
    return on_meta(lambda: new_bert(scale.language_models.bert, vocabulary=vocabulary))


def relative_positions_and_convolutional_input(size):
    """Parameters that Gulati et al. 2020's encoder has and ours has not, less those of our input layer.

    A projection of positions and two biases in every layer; two convolutions of 3 x 3 with stride 2 over 80 bins,
    which leave 19, and a linear layer.
    """
    dim = size.dim
    positions = size.layers * (dim * dim + 2 * dim)
    convolutions = (9 + 1) * dim + (9 * dim + 1) * dim + (19 * dim + 1) * dim
    return positions + convolutions - (BINS * size.stack + 1) * dim


@pytest.mark.parametrize("name", SCALES)
def test_scales_leave_out_by_themselves_what_they_have_no_speech_for(name):
    found = experiment(name)
    assert "soft_vs_hard" in found.studies
    left_out = found.left_out["soft_vs_hard"]
    assert left_out.keys() >= MISSING_SETS
    assert all("lacks the sets of parts" in why for why in left_out.values())
    assert ("lm_into_ctc" in found.studies) == (name in LM_SCALES)
    if name not in LM_SCALES:
        assert "librispeech_" in found.scale.studies_left_out["lm_into_ctc"]


@pytest.mark.parametrize("name", PAPER_SCALES)
def test_vocabularies_and_augmentation_are_the_papers(name):
    scale = experiment(name).scale
    assert scale.tokenizer.vocabulary == 1024
    assert scale.ctc_tokenizer is None or scale.ctc_tokenizer.vocabulary == 5001
    assert (scale.ctc_tokenizer is not None) == (name in LM_SCALES)
    masks = Augmentation(frequency_masks=2, frequency_mask_width=27, time_masks=10, time_mask_width=40)
    assert scale.augmentations["masks"] == masks
    assert scale.augmentations["freq_augment"] == Augmentation(warp=0.75, noise=0.14)


@pytest.mark.parametrize("name", PAPER_SCALES)
def test_the_large_transducer_has_the_paper_s_600_million_parameters(name):
    model = transducer(experiment(name).scale, "large")
    assert model.num_parameters() == pytest.approx(0.6e9, rel=0.03)
    # 2 layers of 2,048 units projected to 640 (Hwang et al. 2022, sec. 4)
    assert model.predictor.lstm.weight_hh_l1.shape == (4 * 2048, 640)
    assert model.predictor.lstm.weight_hr_l1.shape == (640, 2048)


@pytest.mark.parametrize("role", ["small", "streaming"])
@pytest.mark.parametrize("name", PAPER_SCALES)
def test_what_the_small_transducer_lacks_of_150_million_parameters_is_told(name, role):
    scale = experiment(name).scale
    model = transducer(scale, role)
    found = model.num_parameters()
    known = relative_positions_and_convolutional_input(scale.models[role].encoder)
    assert found == pytest.approx(128.6e6, rel=0.001)
    assert known == pytest.approx(11.7e6, rel=0.01)
    rest = 150e6 - found - known
    assert rest == pytest.approx(9.7e6, rel=0.01)
    text = " ".join((ROOT / f"config/scales/{name}.yaml").read_text().replace("#", " ").split())
    assert "128.6M parameters, 14 % below the paper's 150M. Of the 21.4M, 11.7M would be relative" in text
    assert "the other 9.7M (6.5 %)" in text


@pytest.mark.parametrize("name", LM_SCALES)
def test_sizes_of_the_ctc_recogniser_its_decoder_and_bert(name):
    scale = experiment(name).scale
    model = ctc(scale)
    found = model.num_parameters()
    known = relative_positions_and_convolutional_input(scale.ctc_models["ctc"].encoder)
    assert found == pytest.approx(111.8e6, rel=0.001)
    assert known == pytest.approx(11.9e6, rel=0.01)
    assert found + known == pytest.approx(124e6, rel=0.03)
    text = " ".join((ROOT / f"config/scales/{name}.yaml").read_text().replace("#", " ").split())
    assert "has 111.8M parameters, the paper's 124.0M: 11.9M of the 12.2M are relative positions" in text
    assert count(model.decoder) == pytest.approx(30e6, rel=0.03)
    assert bert(scale).num_parameters() == pytest.approx(41e6, rel=0.03)


FRAMES, LABELS = 1200, 40


def batch(*, vocabulary):
    return Batch(
        features=torch.empty(2, FRAMES, BINS, device="meta"),
        feature_lengths=torch.tensor([FRAMES, FRAMES - 37]),
        labels=torch.full((2, LABELS), vocabulary - 1, device="meta"),
        label_lengths=torch.tensor([LABELS, LABELS - 5]),
        utterances=("a", "b"),
    )


def take_step(loss, model):
    """Go back through the loss, and give all gradients to AdamW."""
    assert loss.shape == ()
    loss.backward()
    parameters = [p for p in model.parameters() if p.requires_grad]
    assert [p.grad.shape for p in parameters] == [p.shape for p in parameters]
    optimizer = torch.optim.AdamW(parameters, foreach=True)
    optimizer.step()
    assert len(optimizer.state) == len(parameters)


def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def lattices(monkeypatch):
    """What lattice losses are asked for; they look at numbers, so that a sum of the right shape stands in for them."""
    seen = []

    def stand_in(student, *, labels, lengths, weights, teacher=None, **_):
        seen.append((student, teacher))
        per_utterance = student.encoder.sum(dim=(1, 2)) + student.predictor.sum(dim=(1, 2))
        total = per_utterance + student.weight.sum() + student.bias.sum()
        return LatticeLosses(total=total, terms={})

    monkeypatch.setattr(objective_module, "lattice_losses", stand_in)
    return seen


@pytest.fixture
def shape_of_ctc(monkeypatch):
    """A sum of the right shape in the place of CTC, which PyTorch does not have on the meta device."""

    def stand_in(logits, *, labels, lengths):
        assert logits.shape[0] == len(labels) == len(lengths.frames)
        return logits.sum(dim=(1, 2))

    for module in (objective_module, ctc_module):
        monkeypatch.setattr(module, "ctc", stand_in)


def test_all_paper_scales_have_the_same_models():
    first, *others = (experiment(name).scale for name in PAPER_SCALES)
    for other in others:
        assert other.models == first.models
        assert other.ctc_models in (first.ctc_models, {})
        assert other.language_models in (first.language_models, None)


@pytest.mark.parametrize("run", TRANSDUCER_RUNS)
def test_a_step_of_a_transducer_in_shape(run, lattices, shape_of_ctc):
    found = experiment(STEPPING)
    record = found.run("soft_vs_hard", run, seed=0)
    model = transducer(found.scale, record.run.model)
    teacher = transducer(found.scale, "large") if record.run.transducer_weight < 1 else None
    objective = Objective(
        model, teacher=teacher, run=record.run, phase=record.phase, augmentation=found.scale.augmentations["none"]
    )
    loss = objective(batch(vocabulary=1024), generator=generator())
    take_step(loss, model)
    ((student, its),) = lattices
    frames = FRAMES // record.model.encoder.stack
    assert student.encoder.shape == (2, frames, 640)
    assert student.predictor.shape == (2, LABELS + 1, 640)
    assert student.weight.shape == (1024, 640)
    assert (its is None) == (teacher is None)
    if teacher is not None:
        assert [x.shape for x in its.tensors()] == [x.shape for x in student.tensors()]


@pytest.mark.parametrize("weights", [LatticeWeights(transducer=1.0), LatticeWeights(transducer=0.5, divergence=0.5)])
def test_lattice_losses_of_the_papers_width_and_vocabulary(weights):
    torch.manual_seed(0)

    def joint():
        sizes = ((1, 12, 640), (1, 5, 640), (1024, 640), (1024,))
        encoder, predictor, weight, bias = (torch.randn(size) / 8 for size in sizes)
        leaves = [x.requires_grad_() for x in (encoder, predictor, weight, bias)]
        return JointInputs(encoder=leaves[0], predictor=leaves[1], weight=leaves[2], bias=leaves[3])

    student, teacher = joint(), joint()
    losses = lattice_losses(
        student,
        labels=torch.tensor([[5, 1023, 7, 1]]),
        lengths=LatticeLengths(frames=torch.tensor([12]), labels=torch.tensor([4])),
        weights=weights,
        teacher=teacher if weights.divergence else None,
    )
    losses.total.sum().backward()
    assert losses.total.item() > 0
    assert all(bool(x.grad.isfinite().all()) and bool(x.grad.any()) for x in student.tensors())


@pytest.mark.parametrize("run", ["ctc", "interaed_interctc"])
def test_a_step_of_a_ctc_recogniser_in_shape(run, shape_of_ctc):
    found = experiment(STEPPING)
    record = found.run("lm_into_ctc", run, seed=0)
    size = record.model if record.run.decoder != "none" else record.model.model_copy(update={"decoder": None})
    model = on_meta(lambda: CTCModel(size, vocabulary=5001, mel_bins=BINS))
    objective = CTCObjective(model, run=record.run, augmentation=found.scale.augmentations["none"])
    take_step(objective(batch(vocabulary=5001), generator=generator()), model)


def test_a_step_of_bert_in_shape():
    scale = experiment(STEPPING).scale
    model, size = bert(scale), scale.language_models.bert
    tokens = torch.ones(3, size.max_tokens, dtype=torch.long, device="meta")
    hidden = model.bert(tokens).last_hidden_state
    assert hidden.shape == (3, size.max_tokens, size.dim)
    logits = token_logits(model, hidden.flatten(0, 1))
    assert logits.shape == (3 * size.max_tokens, 5000)
    take_step(logits.logsumexp(dim=1).mean(), model)


def test_a_step_of_pretraining_in_shape():
    found = experiment(STEPPING)
    record = found.run("soft_vs_hard", "pretrained", seed=0)
    asked = record.pretraining
    model = on_meta(lambda: Conformer(record.model.encoder, mel_bins=BINS))
    head = on_meta(lambda: torch.nn.Linear(record.model.encoder.dim, asked.codebooks * asked.codes))
    states, _ = model(torch.empty(2, FRAMES, BINS, device="meta"), torch.tensor([FRAMES, FRAMES - 1]))
    logits = head(states)  # which frames are hidden depends on numbers: all are asked about here
    assert logits.shape == (2, FRAMES // 4, 8192)
    take_step(logits.logsumexp(dim=-1).mean(), torch.nn.ModuleList([model, head]))


def test_models_without_projected_units_are_described_as_before():
    size = ModelSize.model_validate(
        {
            "encoder": {"layers": 1, "dim": 8, "heads": 2, "feed_forward": 16},
            "predictor": {"dim": 6},
            "joint": 9,
        }
    )
    assert size.model_dump(mode="json")["predictor"] == {"layers": 1, "dim": 6, "dropout": 0.1}
    mini = experiment("mini")
    assert "units" not in mini.run("soft_vs_hard", "teacher", seed=0).to_yaml()
    assert "ctc_tokenizer" not in mini.record("soft_vs_hard", "core").to_yaml()


def test_units_that_are_not_projected_are_refused():
    with pytest.raises(ValueError, match="units: 6 are projected to fewer, not to dim: 6"):
        PredictorSize(dim=6, units=6)
