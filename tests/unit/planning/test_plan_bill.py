"""Parts of a plan that need no workflow: machines, speech, memory, prices, and what bad input gets."""

from __future__ import annotations

import dataclasses
import gzip
import json
import math
from pathlib import Path

import pytest

from asr_distill.experiment import Corpus, load_experiment
from asr_distill.planning.footprint import Memory, disk, text_words
from asr_distill.planning.machines import CORE, gpu, several
from asr_distill.planning.plan import Choices, make_plan
from asr_distill.planning.prices import START_SECONDS, Pricing, kind_of
from asr_distill.planning.speech import speech_of
from asr_distill.planning.workload import Workload, mean_utterance, pieces_per_word
from asr_distill.reporting.cost import Job

ROOT = Path(__file__).parents[3]
NOWHERE = Path("nowhere")


def pricing(scale="librispeech_960", study="soft_vs_hard", *, machine=None, sharers=1):
    experiment = load_experiment({"scale": scale, "studies": [study]}, root=ROOT)
    speech = speech_of(experiment.scale.corpus, data=NOWHERE, prepared=NOWHERE)
    return Pricing(experiment=experiment, speech=speech, machine=machine or gpu("h100"), sharers=sharers)


def training(run, study="soft_vs_hard"):
    return Job(rule="train", wildcards={"study": study, "run": run, "seed": "0"})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"gpu": "h1000"}, "--gpu: 'h1000' is not known; did you mean 'h100'"),
        ({"throughput": 2000.0}, "--throughput: 2000 is in .* the peak of 'h100' is 989; write .* such as 198"),
        ({"throughput": 0.0}, "--throughput: 0 is in"),
        ({"gpus": 0, "throughput": 100.0}, "--throughput: is that of a GPU, and --gpus is 0"),
        ({"gpus": 2, "gpus_per_run": 4}, "--gpus-per-run: 4 are more than there are; write --gpus 4"),
        ({"scale": "librispech_960"}, "'librispech_960' is not in config/scales/; did you mean 'librispeech_960'"),
        ({"study": "soft_vs_hart"}, "'soft_vs_hart' is not in config/studies/; did you mean 'soft_vs_hard'"),
        ({"scale": "librilight", "study": "lm_into_ctc"}, "'lm_into_ctc' is left out at the scale 'librilight'"),
        ({"selection": "tabel8"}, "--selection: 'tabel8' is no part of it; did you mean 'table8'"),
    ],
)
def test_wrong_choices_are_one_line(values, said):
    choices = Choices(**({"scale": "librispeech_960", "study": "soft_vs_hard"} | values))
    with pytest.raises(ValueError, match=said) as error:
        make_plan(choices, root=ROOT)
    assert "\n" not in str(error.value)


def test_a_folder_without_the_workflow_is_named(tmp_path):
    with pytest.raises(ValueError, match="holds no Snakefile; call `asr-distill plan` in the repository's folder"):
        make_plan(Choices(scale="mini", study="soft_vs_hard"), root=tmp_path)


def test_a_manifest_that_is_not_there_is_named():
    part = {"use": "labelled", "source": "manifests", "folder": "own", "name": "train"}
    with pytest.raises(
        ValueError, match=r"parts\.x: .*own/supervisions_train\.jsonl\.gz is missing, .* --data <folder>"
    ):
        speech_of(Corpus.model_validate({"parts": {"x": part}}), data=NOWHERE, prepared=NOWHERE)


def test_published_lists_are_known_before_they_are_there():
    corpus = load_experiment({"scale": "speechocean"}, root=ROOT).scale.corpus
    found = speech_of(corpus, data=NOWHERE, prepared=NOWHERE)
    published = {name: part for name, part in corpus.parts.items() if part.source == "speechocean762"}
    train = [name for name, part in published.items() if part.name == "train"]
    assert sum(found[name].hours for name in train) == pytest.approx(2.876, rel=0.01)
    assert sum(found[name].utterances for name in train) == pytest.approx(2500, abs=3)
    assert found["test-adults"].utterances == found["test-children"].utterances == 1250


def test_manifests_are_counted_and_shared_by_speakers(tmp_path):
    folder = tmp_path / "an4"
    folder.mkdir()
    for name, count in (("train", 74), ("test", 10)):
        lines = [{"id": str(i), "duration": 36.0, "speaker": f"{name}{i}"} for i in range(count)]
        for kind in ("recordings", "supervisions"):
            with gzip.open(folder / f"{kind}_{name}.jsonl.gz", "wt") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)
    corpus = load_experiment({"scale": "an4"}, root=ROOT).scale.corpus
    found = speech_of(corpus, data=tmp_path, prepared=NOWHERE)
    counts = {name: part.utterances for name, part in found.items()}
    assert counts == {"train-labelled": 40, "dev": 8, "train-unlabelled": 26, "test": 10}
    assert found["train-labelled"].hours == pytest.approx(0.4)


def test_what_was_prepared_is_counted(tmp_path):
    corpus = load_experiment({"scale": "librispeech_100"}, root=ROOT).scale.corpus
    (tmp_path / "test-clean").mkdir()
    (tmp_path / "test-clean/statistics.json").write_text('{"hours": 5.25, "utterances": 2000}')
    found = speech_of(corpus, data=NOWHERE, prepared=tmp_path)
    assert (found["test-clean"].hours, found["test-clean"].measured) == (5.25, True)
    assert (found["test-other"].hours, found["test-other"].measured) == (5.1, False)
    assert sum(found[part].hours for part in ("train-clean-360", "train-other-500")) == pytest.approx(860, abs=1)


def test_long_recordings_become_windows():
    corpus = load_experiment({"scale": "librilight"}, root=ROOT).scale.corpus
    found = speech_of(corpus, data=NOWHERE, prepared=NOWHERE)
    assert sum(part.hours for name, part in found.items() if name in ("small", "medium", "large")) == 57704
    assert found["large"].seconds == pytest.approx(0.9 * corpus.max_duration, rel=1e-4)


def test_tokens_of_a_word_by_vocabulary():
    assert [pieces_per_word(size) for size in (20, 32, 1024, 10**6)] == [4.5, 4.5, 1.5, 1.1]
    assert 1.2 < pieces_per_word(2048) < 1.5
    one = mean_utterance(
        [*speech_of(pricing().experiment.scale.corpus, data=NOWHERE, prepared=NOWHERE).values()], vocabulary=1024
    )
    assert one.labels == pytest.approx(one.seconds * 2.7 * 1.5)


def test_time_on_a_machine():
    work = Workload(operations=2e12, lattice_operations=1e12, layers=10)
    machine = dataclasses.replace(CORE, operations_per_second=1e12, lattice_share=0.5, layer_seconds=0.1)
    assert machine.seconds(work) == pytest.approx(10 * 0.1 + 2 + 1 / 0.5)
    assert machine.seconds(work, fast=True) > machine.seconds(work)
    assert gpu("h100").fast_operations_per_second == pytest.approx(0.2 * 989e12)
    measured = gpu("h100", throughput=300)
    assert measured.fast_operations_per_second == pytest.approx(300e12)
    assert (gpu("h100").assumed, measured.assumed) == (True, False)
    assert several(measured, count=1) is measured
    assert several(measured, count=4).fast_operations_per_second == pytest.approx(0.9 * 4 * 300e12)


def test_batches_that_do_not_fit_go_in_pieces():
    memory = Memory(fixed=10.0, utterance=1.0, batch=100, room=42.0)
    assert (memory.at_once, memory.pieces) == (32, 4)
    assert memory.peak == 10 + 25
    whole = dataclasses.replace(memory, room=math.inf)
    assert (whole.at_once, whole.pieces, whole.peak) == (100, 1, 110)
    assert dataclasses.replace(memory, room=10.5).at_once == 0


def test_memory_of_the_largest_model():
    memory = pricing().memory(pricing().experiment.run("soft_vs_hard", "self_soft", seed=0))
    # 20 bytes for each of 606 million parameters and the CTC head's, 4 for each of the teacher's
    assert memory.fixed == pytest.approx((20 * (606.0e6 + 1.05e6) + 4 * 606.0e6) / 1e9, rel=1e-3)
    assert memory.batch == 1024
    assert 1 < memory.pieces < 1024
    assert memory.peak <= 0.9 * 80
    shared = pricing(sharers=8)
    assert shared.memory(shared.experiment.run("soft_vs_hard", "self_soft", seed=0)).batch == 128


def test_prices_follow_the_work():
    own = pricing()
    names = ("small_supervised", "small_soft", "self_hard", "self_soft")
    supervised, soft, large, large_soft = (job.seconds for job in own.price([training(name) for name in names]))
    assert supervised < soft < large < large_soft
    assert all(job.gpus == 1 for job in own.price([training("teacher")]))
    assert [job.gpus for job in pricing(machine=CORE).price([training("teacher")])] == [0]
    four = pricing(sharers=4)
    (shared,) = four.price([training("self_soft")])
    assert shared.gpus == 4
    assert large_soft / 4 < shared.seconds < large_soft / 2


def test_shards_share_the_work_of_a_part():
    about = {"study": "soft_vs_hard", "run": "teacher", "seed": "0", "part": "small"}
    whole = pricing().price([Job(rule="pseudo_label", wildcards=about)])
    shards = pricing().price([Job(rule="pseudo_label", wildcards=about | {"shard": str(i)}) for i in range(4)])
    alone = sum(job.seconds - START_SECONDS for job in whole)
    assert sum(job.seconds - START_SECONDS for job in shards) == pytest.approx(alone)


def test_kinds_of_rules():
    rules = ("train_with_decoder", "pretrain", "prepare_training", "decode_ctc", "pseudo_label", "bert", "tables")
    kinds = ["Training", "Training", "Speech", "Transcription", "Pseudo-labels", "BERT", "Reports"]
    assert [kind_of(rule) for rule in rules] == kinds


def test_disk_of_libri_light():
    own = pricing("librilight")
    runs = [own.experiment.run("soft_vs_hard", name, seed=0) for name in ("teacher", "self_soft")]
    found = disk(own.experiment.scale, speech=own.speech, runs=runs)
    assert found["archives as published"] == pytest.approx(35 + 321 + 3050 + 60 + 1.3, rel=0.01)
    assert found["features"] == pytest.approx(58700 * 360000 * 80 * 1.2 / 1e9, rel=0.01)
    assert found["models"] == pytest.approx(2 * 4 * 0.607, rel=0.01)
    assert "text and n-gram" not in found


def test_disk_of_language_models():
    own = pricing(study="lm_into_ctc")
    runs = [own.experiment.run("lm_into_ctc", name, seed=0) for name in ("ctc", "interaed_kd", "hidden_l2")]
    found = disk(own.experiment.scale, speech=own.speech, runs=runs)
    assert text_words(own.experiment.scale) == 803e6
    assert found["text and n-gram"] == pytest.approx(803e6 * 22.2 / 1e9, rel=0.01)
    tokens = 961 * 3600 * 2.7 * pieces_per_word(5001)
    assert found["BERT's soft labels"] == pytest.approx(tokens * (8 * 50 + 8 * 50 + 2 * 512) / 1e9, rel=0.01)
