"""Training on parts in shards: the same utterances as from one file, resumed exactly, never read far ahead."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asr_distill.experiment import CorpusRecord, PseudoLabelChoice
from asr_distill.features.prepare import prepare
from asr_distill.features.reading import original_id
from asr_distill.features.shards import Shard, read_index
from asr_distill.text.tokenizer import Tokenizer
from asr_distill.training import data as data_module
from asr_distill.training import shards as module
from asr_distill.training.data import hours_by_part, load_training_data
from asr_distill.training.loop import Trainer, TrainingPaths, train
from asr_distill.training.pseudo_labels import read_pseudo_labels, stream_limits
from asr_distill.training.shards import ShardedTrainingData, _transcribed

DROPPED = (2, 4)


@pytest.fixture(scope="module")
def shards(corpus, tmp_path_factory):
    """Return the folder of the tiny corpus with `train` and `quiet` in shards of four utterances and two."""
    folder = tmp_path_factory.mktemp("shards")
    for part, use, size in (("train", "labelled", 4), ("quiet", "unlabelled", 2), ("dev", "dev", 2)):
        rules = {"min_duration": 0.2, "shard_utterances": size}
        rules["parts"] = {part: {"source": "manifests", "name": part, "use": use}}
        features = {"mel_bins": 6, "speed_perturbation": [1.0, 1.25]}
        record = CorpusRecord.model_validate({"data": str(corpus.folder), "corpus": rules, "features": features})
        prepare(part, record=record, synthetic=folder, output=folder / part)
    return folder


def write_labels(path, shards, *, scores=None):
    """Write a transcript of each utterance of `quiet`, two of them dropped, and return the path."""
    originals = [cut for shard in read_index(shards / "quiet") for cut in shard.read() if original_id(cut) == cut.id]
    lines = [
        {
            "id": cut.id,
            "text": ["YES", "NO", "MAYBE", "SO", "WHY", "NOT"][number],
            "score_per_token": -0.1 * number if scores is None else scores[number],
            "tokens": 2,
            "tokens_per_second": 2.0,
            "kept": number not in DROPPED,
            "reason": "",
            "duration": cut.duration,
        }
        for number, cut in enumerate(originals)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def labels(shards, tmp_path_factory):
    return write_labels(tmp_path_factory.mktemp("labels") / "quiet.jsonl", shards)


def load(corpus, shards, run, labels=None):
    tokenizer = Tokenizer.load(corpus.tokenizer)
    return load_training_data(run, corpus=shards, tokenizer=tokenizer, pseudo_labels=[labels] if labels else [])


def drawn(data, epochs):
    """Return the cuts of the batches of some epochs, before their features are read."""
    found = {epoch: [] for epoch in epochs}
    with mock.patch.object(data, "_collate", list):
        for cuts, epoch, _ in itertools.takewhile(lambda item: item[1] <= max(epochs), data.batches(epoch=min(epochs))):
            found[epoch].append([cut.id for cut in cuts])
    return list(found.values())


def test_the_same_utterances_with_the_same_tokens_as_from_one_file(corpus, shards, labels, make_run):
    run = make_run("hard", phase={"batch_utterances": 4})
    data, whole = load(corpus, shards, run, labels), load(corpus, corpus.folder, run, corpus.pseudo_labels)
    assert isinstance(data, ShardedTrainingData)
    assert len(data.cuts) == len(whole.cuts) == 34
    expected = {cut.id: cut for cut in whole.cuts}
    with mock.patch.object(data, "_collate", list):
        for batch, _, _ in itertools.takewhile(lambda item: item[1] == 0, data.batches()):
            for cut in batch:
                other = expected.pop(cut.id)
                assert list(cut.tokens) == other.tokens
                assert (cut.num_frames, cut.duration) == (other.num_frames, other.duration)
                torch.testing.assert_close(data.reader.read(cut), whole.reader.read(other), atol=2**-4, rtol=0)
    assert not expected
    assert hours_by_part(run, data=data) == pytest.approx(hours_by_part(run, data=whole))


def test_every_utterance_once_a_pass_in_an_order_of_the_seed_and_the_pass(corpus, shards, labels, make_run):
    runs = [make_run("hard", phase={"batch_utterances": 4}, seed=seed) for seed in (0, 0, 1)]
    first, again, other = (drawn(load(corpus, shards, run, labels), range(3)) for run in runs)
    assert first == again
    assert first != other
    passes = [sorted(itertools.chain.from_iterable(batches)) for batches in first]
    assert passes[0] == passes[1] == passes[2]
    assert len(set(passes[0])) == len(passes[0]) == 34
    assert first[0] != first[1]
    assert all(len(batch) <= 4 for batches in first for batch in batches)


def test_shards_come_in_another_order_every_pass(corpus, shards, make_run):
    pool = load(corpus, shards, make_run(phase={"batch_utterances": 4})).cuts
    orders = [tuple(shard.shard.number for shard in pool.at(epoch).shards) for epoch in range(6)]
    assert len(set(orders)) > 1
    assert {tuple(sorted(order)) for order in orders} == {(0, 1, 2, 3)}


@pytest.mark.parametrize("mixing", [{}, {"labelled_share": 0.5}])
def test_resuming_in_the_middle_of_an_epoch(corpus, shards, labels, make_run, mixing):
    run = make_run("hard", phase={"batch_utterances": 4}, **mixing)
    whole = list(itertools.islice(load(corpus, shards, run, labels).batches(), 25))
    assert whole[-1][1] >= 2
    for stop in (1, 4, 9, 13, 20):
        _, epoch, position = whole[stop - 1]
        resumed = load(corpus, shards, run, labels).batches(epoch=epoch, position=position)
        for (batch, *place), (expected, *other) in zip(itertools.islice(resumed, 5), whole[stop:], strict=False):
            assert place == other
            assert batch.utterances == expected.utterances
            torch.testing.assert_close(batch.features, expected.features, atol=0, rtol=0)
            assert torch.equal(batch.labels, expected.labels)


def test_sections_make_up_a_pass(monkeypatch, corpus, shards, labels, make_run):
    monkeypatch.setattr(module, "SECTION", 9)
    data = load(corpus, shards, make_run("hard", phase={"batch_utterances": 4}), labels)
    assert data.cuts.sections == 3
    assert [data.passes(epoch) for epoch in range(7)] == [0, 0, 0, 1, 1, 1, 2]
    epochs = [list(itertools.chain.from_iterable(batches)) for batches in drawn(data, range(6))]
    assert all(epochs)
    for number in (0, 3):
        together = itertools.chain.from_iterable(epochs[number : number + 3])
        assert Counter(together) == dict.fromkeys(sorted(epochs[0] + epochs[1] + epochs[2]), 1)


@pytest.mark.parametrize("section", [250_000, 3])
def test_a_fixed_share_of_labelled_speech(monkeypatch, corpus, shards, labels, make_run, section):
    monkeypatch.setattr(module, "SECTION", section)
    run = make_run("hard", phase={"batch_utterances": 4}, labelled_share=0.5)
    data = load(corpus, shards, run, labels)
    sections = data.pools[1].sections
    assert (sections > 1) == (section == 3)
    epochs = drawn(data, range(4 * sections))
    heard = Counter(utterance for epoch in epochs for batch in epoch for utterance in batch)
    assert {count for utterance, count in heard.items() if utterance.startswith("quiet")} == {4}
    assert sum(utterance.startswith("train") for utterance in heard.elements()) == 4 * 8
    labelled = [heard[cut.id] for shard in read_index(shards / "train") for cut in shard.read()]
    assert max(labelled) - min(labelled) <= 1


def test_nothing_is_read_far_ahead(monkeypatch, corpus, shards, make_run):
    monkeypatch.setattr(data_module, "BUFFER", 10)
    many = read_index(shards / "train") * 600  # 15,600 cuts
    read, inner = 0, Shard.read

    def counting(shard):
        nonlocal read
        for cut in inner(shard):
            read += 1
            yield cut

    monkeypatch.setattr(module, "read_index", lambda folder: many)
    monkeypatch.setattr(Shard, "read", counting)
    data = load(corpus, shards, make_run(phase={"batch_utterances": 4}))
    assert read == 0
    with mock.patch.object(data, "_collate", list):
        batches = data.batches()
        next(batches)
        start = read  # what buckets are estimated on comes first
        assert start <= 10_000 + 10 + 4
        used = 0
        for cuts, _, _ in itertools.islice(batches, 100):
            used += len(cuts)
            assert read - start <= used + 10
    assert used > 200


def test_a_stopped_training_goes_on(monkeypatch, corpus, shards, labels, make_run, tmp_path):
    run = make_run("mixed", phase={"steps": 12, "batch_utterances": 4, "checkpoint_seconds": 1e-9, "dev_every": 12})

    def trained(folder):
        folder.mkdir(exist_ok=True)
        inputs = {"tokenizer": corpus.tokenizer, "teacher": corpus.teacher, "pseudo_labels": [labels]}
        train(run, paths=TrainingPaths(corpus=shards, output=folder, **inputs))
        return (folder / "model.safetensors").read_bytes()

    undisturbed = trained(tmp_path / "undisturbed")
    record, stopped = Trainer._record, []

    def record_and_stop(trainer, loss):
        record(trainer, loss)
        if trainer.position.step == 5 and not stopped:
            stopped.append(5)
            raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_record", record_and_stop)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "stopped")
    assert trained(tmp_path / "stopped") == undisturbed
    summary = json.loads((tmp_path / "stopped" / "training.json").read_text())
    assert summary["unlabelled_hours"] > 0


def test_processes_share_the_same_batches_and_read_no_others_features(monkeypatch, corpus, shards, labels, make_run):
    run = make_run("hard", phase={"batch_utterances": 4})
    whole = [batch.utterances for batch, _, _ in itertools.islice(load(corpus, shards, run, labels).batches(), 15)]
    found, read = [], []
    for rank in range(2):
        data = load(corpus, shards, run, labels)
        reader = data.reader.read
        monkeypatch.setattr(data.reader, "read", lambda cut, reader=reader: read.append(cut.id) or reader(cut))
        taken = itertools.islice(data.shares(rank=rank, world=2), 15)
        found.append([[name for share in mine for name in share.batch.utterances] for mine, _, _ in taken])
    for batch, one, other in zip(whole, *found, strict=True):
        assert set(one) | set(other) == set(batch)
        assert len(one) + len(other) in (len(batch), 2)  # a process without an utterance of its own takes another's
    assert len(read) <= sum(max(2, len(batch)) for batch in whole)


def test_pretraining_hears_everything(corpus, shards, make_run):
    run = make_run("hard", phase={"batch_utterances": 4})
    data = load_training_data(run, corpus=shards, tokenizer=None, pseudo_labels=[])
    (batches,) = drawn(data, [0])
    assert sum(map(len, batches)) == 2 * (13 + 6)
    assert data.transcripts() == {}


@pytest.mark.parametrize("share", [0.2, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("scores", [None, [-1, -1, -1, -1, -1, -1], [-1, -2, -1, -2, -2, -1]])
def test_a_choice_takes_the_same_as_from_one_file(corpus, shards, make_run, tmp_path, share, scores):
    path = write_labels(tmp_path / "labels.jsonl", shards, scores=scores)
    run = make_run("hard", phase={"batch_utterances": 4}, pseudo_labels={"keep_share": share})
    data, whole = load(corpus, shards, run, path), load(corpus, corpus.folder, run, path)
    (batches,) = drawn(data, [0])
    assert sorted(itertools.chain.from_iterable(batches)) == sorted(cut.id for cut in whole.cuts)
    assert len(data.cuts) == len(whole.cuts)
    assert hours_by_part(run, data=data) == pytest.approx(hours_by_part(run, data=whole))


FEW = st.integers(-8, 0).map(lambda tenths: tenths / 10)
LINES = st.lists(st.tuples(FEW, FEW.map(abs), st.booleans()), min_size=1, max_size=40)
CHOICES = st.fixed_dictionaries(
    {"keep_share": st.floats(0.01, 1)},
    optional={
        "min_score_per_token": FEW,
        "min_length_ratio": st.floats(0, 0.9),
        "max_length_ratio": st.floats(1, 2),
    },
)


@given(lines=LINES, choice=CHOICES)
def test_streaming_limits_choose_what_sorting_chooses(tmp_path_factory, lines, choice):
    path = tmp_path_factory.mktemp("lines") / "labels.jsonl"
    values = [
        {"id": f"u{number:02d}", "text": 'A"', "score_per_token": score, "tokens": 1, "tokens_per_second": speed}
        | {"kept": kept, "reason": "" if kept else "few", "duration": 1.0}
        for number, (score, speed, kept) in enumerate(lines)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in values), encoding="utf-8")
    chosen = PseudoLabelChoice.model_validate(choice)
    expected, limits = (outcome(function, path, chosen) for function in (read_pseudo_labels, stream_limits))
    if isinstance(expected, str):
        assert limits == expected
        return
    third = len(values) // 3
    sizes = [size for size in (third, len(values) - third) if size]
    parts = [Shard(folder=path, number=n, utterances=size, cuts=2 * size, seconds=size) for n, size in enumerate(sizes)]
    taken = _transcribed([parts], [path], limits=limits)
    found = [utterance for shard in taken for utterance, text in shard_lines(shard) if text is not None]
    assert found == sorted(expected)
    assert sum(shard.cuts for shard in taken) == 2 * len(found)
    assert sum(shard.seconds for shard in taken) == len(found)


def outcome(function, path, choice):
    """Return what a function returns, or its error's text."""
    try:
        return function([path], choice=choice, where="run")
    except ValueError as error:
        return str(error)


def shard_lines(shard):
    return itertools.islice(shard.transcripts.read(), shard.shard.utterances)


def test_no_utterance_left_is_an_error(corpus, shards, make_run, labels, tmp_path):
    run = make_run("hard", phase={"batch_utterances": 4}, audio=["unlabelled"])
    path = tmp_path / "labels.jsonl"
    path.write_text(labels.read_text().replace('"kept": true', '"kept": false'))
    with pytest.raises(ValueError, match="run: no utterance to train on: every pseudo-label was dropped"):
        load(corpus, shards, run, path)
    large = make_run("hard", phase={"batch_utterances": 35})
    with pytest.raises(ValueError, match=r"phases\.p\.batch_utterances: 35 is more than the 34 utterances of run"):
        load(corpus, shards, large, labels)
    mixed = make_run("hard", phase={"batch_utterances": 12}, labelled_share=0.25)
    with pytest.raises(ValueError, match="every batch takes 9 unlabelled utterances, but there are 8"):
        load(corpus, shards, mixed, labels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[1:], "ends before"),
        (lambda lines: [*lines, lines[0]], "goes on after"),
        (lambda lines: lines[::-1], r"has 'quiet\d' where .*cuts.* has 'quiet\d'; remove"),
        (lambda lines: [line.replace('"duration"', '"other"') for line in lines], "not of speech in shards"),
        (lambda lines: [lines[0], lines[1][:20], *lines[2:]], "or damaged, at byte"),
    ],
)
def test_transcripts_of_other_speech_are_refused(corpus, shards, make_run, labels, tmp_path, change, message):
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(line + "\n" for line in change(labels.read_text().splitlines())), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        drawn(load(corpus, shards, make_run("hard", phase={"batch_utterances": 4}), path), [0])


def test_parts_in_shards_and_in_one_file_do_not_mix(corpus, shards, make_run, labels, tmp_path):
    (tmp_path / "train").symlink_to(shards / "train")
    (tmp_path / "quiet").symlink_to(corpus.folder / "quiet")
    with pytest.raises(ValueError, match=r"quiet: is not stored in shards as other parts of run are; prepare it anew"):
        load(corpus, tmp_path, make_run("hard"), labels)
    with pytest.raises(ValueError, match="0 files for 1 parts"):
        load(corpus, shards, make_run("hard"))
