"""BEST-RQ: codes against a search by hand, frames that line up, masks, and encoders on disk."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from asr_distill.experiment import CTCSize, EncoderSize, ModelSize, SpanMasking
from asr_distill.models.best_rq import BestRQ, RandomProjectionQuantizer, mask_spans
from asr_distill.models.best_rq_storage import load_encoder, save_encoder
from asr_distill.models.ctc import CTCModel
from asr_distill.models.ctc_storage import save_ctc
from asr_distill.models.storage import save_model
from asr_distill.models.tensor_files import read_tensors, write_tensors
from asr_distill.models.transducer import Transducer

BINS = 5
ENCODER = {"layers": 2, "dim": 8, "heads": 2, "feed_forward": 12, "stack": 3, "dropout": 0.1}


def size(**changes):
    return EncoderSize.model_validate(ENCODER | changes)


def make_model(*, quantizer_seed=7, **changes):
    torch.manual_seed(0)
    options = {"codebooks": 2, "codes": 11, "code_dim": 4}
    model = BestRQ(size(**changes), mel_bins=BINS, quantizer_seed=quantizer_seed, **options).eval()
    generator = torch.Generator().manual_seed(3)
    model.feature_mean.normal_(generator=generator)
    model.feature_deviation.uniform_(0.5, 2, generator=generator)
    return model


def speech(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def generator(seed=5):
    return torch.Generator().manual_seed(seed)


def everywhere(lengths, *, stack):
    """Return which encoder frames there are, as lists of booleans of one length."""
    counts = [-(-length // stack) for length in lengths]
    return torch.tensor([[n < count for n in range(max(counts))] for count in counts])


def test_a_vector_gets_the_code_nearest_to_its_projection():
    quantizer = RandomProjectionQuantizer(6, seed=0, codebooks=3, codes=20, code_dim=4)
    x = speech(40, 6)
    found = quantizer(x)
    assert found.shape == (40, 3)
    assert len(found[:, 0].unique()) > 5
    for row, codes in zip(x, found.tolist(), strict=True):
        for book, code in enumerate(codes):
            projected = sum(value * column for value, column in zip(row, quantizer.projection[book], strict=True))
            distances = [(c / c.norm() - projected / projected.norm()).norm() for c in quantizer.codebook[book]]
            assert code == distances.index(min(distances))


def test_a_quantizer_is_made_by_its_seed_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = RandomProjectionQuantizer(30, seed=4, codes=500, code_dim=20)
    assert torch.equal(torch.get_rng_state(), before)
    again, other = (RandomProjectionQuantizer(30, seed=seed, codes=500, code_dim=20) for seed in (4, 5))
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
        assert not torch.equal(tensor, other.state_dict()[name])
    torch.testing.assert_close(first.codebook.norm(dim=-1), torch.ones(1, 500))
    assert abs(float(first.codebook.mean())) < 0.01  # unit vectors in all directions
    assert 0.33 < float(first.projection.abs().max()) < (6 / 50) ** 0.5
    assert not list(first.parameters())


@pytest.mark.parametrize("precision", ["autocast", "medium"])
def test_targets_do_not_depend_on_the_precision_of_training(precision):
    quantizer, x = RandomProjectionQuantizer(30, seed=4, codes=4000), speech(200, 30)
    expected = quantizer(x)
    if precision == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(quantizer(x), expected)
    else:
        torch.set_float32_matmul_precision("medium")
        try:
            assert torch.equal(quantizer(x), expected)
        finally:
            torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("stack", [1, 2, 3, 8])
def test_there_is_one_target_for_what_enters_each_encoder_frame(stack):
    model, lengths = make_model(stack=stack), torch.tensor([16, 7, 1])
    features = model.normalise(speech(3, 16, BINS), lengths)
    asked = everywhere([16, 7, 1], stack=stack)
    heard = []
    model.encoder.input.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0]))
    states, counts = model.encoder(features, lengths)
    assert states.shape[:2] == asked.shape
    assert counts.tolist() == asked.sum(dim=1).tolist()
    targets = model.targets(features, asked)
    assert torch.equal(targets, model.quantizer(heard[0][asked]))
    assert torch.equal(model.logits(features, lengths, asked), model.head(states[asked]).view(-1, 2, 11))


def test_a_target_depends_on_its_own_frames_alone():
    model = make_model()
    features, asked = speech(1, 9, BINS), everywhere([9], stack=3)
    expected = model.targets(features, asked)
    changes = set()
    for frame in range(9):
        other = features.clone()
        other[0, frame] += speech(BINS, seed=frame) * 10
        changed = (model.targets(other, asked) != expected).any(dim=1).nonzero()[:, 0].tolist()
        assert changed in ([], [frame // 3])
        changes |= set(changed)
    assert changes == {0, 1, 2}


def test_targets_do_not_depend_on_padding_and_on_other_utterances():
    model, lengths = make_model(), [13, 20, 6]
    features = speech(3, 25, BINS)  # what stands behind an utterance is not silent
    asked = everywhere([*lengths, 25], stack=3)[:3]
    targets = model.targets(model.normalise(features, torch.tensor(lengths)), asked).split([5, 7, 2])
    for row, length, found in zip(features, lengths, targets, strict=True):
        alone = model.normalise(row[None, :length], torch.tensor([length]))
        assert torch.equal(model.targets(alone, everywhere([length], stack=3)), found)


def test_normalised_features_have_silent_padding():
    model, inputs = make_model(), speech(2, 6, BINS)
    normalised = model.normalise(inputs, torch.tensor([6, 4]))
    torch.testing.assert_close(normalised[0], (inputs[0] - model.feature_mean) / model.feature_deviation)
    assert not normalised[1, 4:].any()


@pytest.mark.parametrize("probability", [0, 0.05, 1])
@pytest.mark.parametrize("stack", [1, 3, 4])
def test_encoder_frames_are_hidden_whole_behind_noise(stack, probability):
    lengths = [50, 23, 7, 1]
    features = speech(4, 52, BINS)
    for row, length in zip(features, lengths, strict=True):
        row[length:] = 0
    original, masking = features.clone(), SpanMasking(probability=probability, span=8)
    options = {"stack": stack, "masking": masking}
    heard, hidden = mask_spans(features, torch.tensor(lengths), **options, generator=generator())
    assert torch.equal(features, original)
    assert hidden.shape == (4, -(-52 // stack))
    for row, changed, length in zip(hidden.tolist(), heard != features, lengths, strict=True):
        expected = [frame < length and row[frame // stack] for frame in range(52)]
        assert changed.all(dim=1).tolist() == changed.any(dim=1).tolist() == expected
        assert any(expected)
        assert all(expected[:length]) or probability < 1
    again, same = mask_spans(features, torch.tensor(lengths), **options, generator=generator())
    assert torch.equal(again, heard)
    assert torch.equal(same, hidden)
    assert not torch.equal(mask_spans(features, torch.tensor(lengths), **options, generator=generator(6))[0], heard)


@pytest.mark.parametrize(("stack", "frames"), [(4, 10), (6, 7), (100, 1)])
def test_without_luck_one_span_of_400_ms_begins_anywhere(stack, frames):
    masking, length = SpanMasking(probability=0), 12 * stack
    features, lengths = torch.zeros(400, length, 1), torch.full((400,), length)
    _, hidden = mask_spans(features, lengths, stack=stack, masking=masking, generator=generator())
    begins = set()
    for row in hidden.tolist():
        begin = row.index(True)
        assert row == [begin <= n < begin + frames for n in range(12)]
        begins.add(begin)
    assert begins == set(range(12))


@pytest.mark.parametrize("stack", [1, 4])
def test_as_much_is_hidden_as_by_spans_drawn_at_every_feature_frame(stack):
    masking, lengths = SpanMasking(), torch.full((200,), 8000)
    heard, hidden = mask_spans(torch.zeros(200, 8000, 1), lengths, stack=stack, masking=masking, generator=generator())
    # A frame stays where none of 40 draws, its own and those before, begins a span: 0.99 to the power of 40.
    assert abs(float(hidden.float().mean()) - (1 - 0.99**40)) < 0.008
    noise = heard[heard != 0]
    assert abs(float(noise.std()) - 0.1) < 1e-3
    assert abs(float(noise.mean())) < 2e-3


def test_masks_that_make_no_sense_are_refused():
    for wrong in ({"probability": 1.5}, {"span": 0}, {"noise": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            SpanMasking(**wrong)


def transducer(**changes):
    torch.manual_seed(99)
    model_size = ModelSize.model_validate({"encoder": ENCODER | changes, "predictor": {"dim": 6}, "joint": 9})
    return Transducer(model_size, vocabulary=7, mel_bins=BINS).eval()


@torch.inference_mode()
def test_a_recogniser_gets_encoder_and_statistics_from_a_file(tmp_path):
    model, path = make_model(), tmp_path / "encoder.safetensors"
    save_encoder(model, path)
    assert [p.name for p in tmp_path.iterdir()] == ["encoder.safetensors"]
    student = transducer(dropout=0.3)
    untouched = {name: x.clone() for name, x in student.state_dict().items()}
    tensors = load_encoder(path, size=student.size.encoder, mel_bins=BINS)
    left, unknown = student.load_state_dict(tensors, strict=False)
    assert not unknown
    assert {name.split(".")[0] for name in left} == {"predictor", "joint", "ctc_head"}
    assert all(torch.equal(student.state_dict()[name], untouched[name]) for name in left)
    inputs, lengths = speech(2, 10, BINS), torch.tensor([10, 4])
    states, counts = student.encode(student.normalise(inputs, lengths), lengths)
    expected, frames = model.encoder(model.normalise(inputs, lengths), lengths)
    assert torch.equal(states, expected)
    assert torch.equal(counts, frames)
    assert model.num_parameters() == sum(p.numel() for p in student.encoder.parameters())
    assert not torch.equal(transducer().encode(inputs, lengths)[0], expected)


@torch.inference_mode()
def test_the_encoder_of_a_transducer_is_one_too(tmp_path):
    path, model = tmp_path / "model.safetensors", transducer()
    model.feature_mean.fill_(0.5)
    save_model(model, path, tokenizer="abc")
    tensors = load_encoder(path, size=size(dropout=0), mel_bins=BINS)
    expected = {"feature_mean": model.feature_mean, "feature_deviation": model.feature_deviation}
    expected |= {f"encoder.{name}": x for name, x in model.encoder.state_dict().items()}
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(x, expected[name]) for name, x in tensors.items())
    with pytest.raises(ValueError, match=r"holds an encoder with dim 8 instead of 16; pre-train one"):
        load_encoder(path, size=size(dim=16), mel_bins=BINS)


def test_equal_encoders_are_equal_files(tmp_path):
    for name, seed in (("a", 0), ("b", 1)):  # the quantizer is no part of them
        save_encoder(make_model(quantizer_seed=seed), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_encoders_of_other_sizes_are_refused_by_what_differs(tmp_path):
    path = tmp_path / "encoder.safetensors"
    save_encoder(make_model(), path)
    with pytest.raises(ValueError, match=r"encoder\.safetensors: holds an encoder with dim 8 instead of 16; pre-train"):
        load_encoder(path, size=size(dim=16), mel_bins=BINS)
    message = "with layers 2 instead of 4, activation squared_relu instead of swish, mel_bins 5 instead of 6; "
    with pytest.raises(ValueError, match=message):
        load_encoder(path, size=size(layers=4, activation="swish", dropout=0), mel_bins=BINS + 1)
    streaming = size(streaming=True, right_context=0)
    with pytest.raises(ValueError, match="with streaming False instead of True, right_context 128 instead of 0;"):
        load_encoder(path, size=streaming, mel_bins=BINS)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "encoder.safetensors"

    def refused(message):
        with pytest.raises(ValueError, match=message) as error:
            load_encoder(path, size=size(), mel_bins=BINS)
        assert "\n" not in str(error.value)

    refused(r"encoder\.safetensors: not readable as safetensors \(.+\); delete it and run again")
    save_file({"weight": torch.zeros(2)}, path, metadata={"format": "pt"})
    refused("has no model size in its metadata; it was not written by asr-distill")
    save_ctc(CTCModel(CTCSize(encoder=size()), vocabulary=7, mel_bins=BINS), path, tokenizer="abc")
    refused("holds a model of kind 'ctc' where 'encoder' or 'transducer' is needed")
    save_encoder(make_model(), path)
    content = path.read_bytes()
    for kept in (len(content) - 1, 2000, 4, 0):
        path.write_bytes(content[:kept])
        refused("not readable as safetensors")


def test_encoders_with_other_tensors_are_refused(tmp_path):
    path = tmp_path / "encoder.safetensors"
    save_encoder(make_model(), path)
    tensors, metadata = read_tensors(path, kind="encoder", tokenizer="")
    name = "encoder.layers.1.norm.weight"
    short = {key: x for key, x in tensors.items() if key != name}
    for spoilt in (short, tensors | {name: torch.zeros(3)}, tensors | {"more": torch.zeros(3)}):
        write_tensors(path, spoilt, metadata=metadata)
        with pytest.raises(ValueError, match="was written by another version of asr-distill; delete it and train"):
            load_encoder(path, size=size(), mel_bins=BINS)
