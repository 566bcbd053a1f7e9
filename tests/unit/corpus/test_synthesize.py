import json
import logging
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse.recipes import librilight, prepare_librispeech

from asr_distill.corpus import espeak
from asr_distill.corpus.espeak import ACCENTS, HELD_OUT_VARIANTS, TRAIN_VARIANTS, Voice, speak
from asr_distill.corpus.synthesize import CLEAN, OTHER, SAMPLING_RATE, _cast, synthesize
from asr_distill.text.grammar import DOMAINS

SENTENCE = "THE KNIGHTS WHO SEE THE SHIP WRITE TO THEIR SON"


@dataclass(frozen=True)
class Part:
    layout: str = "librispeech"
    condition: str = "clean"
    engine: str = "espeak"
    accents: tuple[str, ...] = ("gmw/en", "gmw/en-US")
    speakers: int = 3
    utterances: int = 7
    domains: tuple[str, ...] = DOMAINS


PARTS = {
    "train-clean-5": Part(),
    "small": Part(layout="librilight", condition="mixed", speakers=6, utterances=12),
    "dev-clean": Part(),
    "dev-other": Part(condition="other", accents=("gmw/en-GB-scotland",)),
    "test-clean": Part(),
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "synthetic"
    synthesize(PARTS, folder=folder, seed=1)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def transcripts(corpus: Path, part: str) -> dict[str, str]:
    lines = [
        line
        for path in sorted((corpus / "LibriSpeech" / part).rglob("*.trans.txt"))
        for line in path.read_text().splitlines()
    ]
    return dict(line.split(maxsplit=1) for line in lines)


def speakers_table(corpus: Path) -> list[list[str]]:
    lines = (corpus / "LibriSpeech" / "SPEAKERS.TXT").read_text().splitlines()
    return [[field.strip() for field in line.split("|")] for line in lines if not line.startswith(";")]


# ---------------------------------------------------------------- the corpus on disk


def test_the_same_seed_gives_the_same_bytes_with_one_worker_and_two(corpus, tmp_path):
    synthesize(PARTS, folder=tmp_path / "again", seed=1, workers=2)
    assert contents(tmp_path / "again") == contents(corpus)


def test_another_seed_gives_other_sentences_and_voices(corpus, tmp_path):
    synthesize({"dev-clean": Part()}, folder=tmp_path / "other", seed=2)
    assert not set(transcripts(tmp_path / "other", "dev-clean").values()) & set(
        transcripts(corpus, "dev-clean").values()
    )


def test_a_part_added_at_the_end_leaves_the_others_as_they_are(corpus, tmp_path):
    fewer = {name: PARTS[name] for name in ("train-clean-5", "small")}
    synthesize(fewer, folder=tmp_path / "fewer", seed=1)
    before, after = contents(tmp_path / "fewer"), contents(corpus)
    del before["LibriSpeech/SPEAKERS.TXT"]
    assert before.items() <= after.items()


def test_parts_spoken_on_their_own_are_what_they_are_among_all(corpus, tmp_path):
    synthesize(PARTS, folder=tmp_path / "some", seed=1, spoken=["dev-other", "test-clean"])
    some, whole = contents(tmp_path / "some"), contents(corpus)
    del some["LibriSpeech/SPEAKERS.TXT"]
    assert some == {name: data for name, data in whole.items() if name.split("/")[1] in ("dev-other", "test-clean")}
    rows = speakers_table(tmp_path / "some")
    assert rows == [row for row in speakers_table(corpus) if row[2] in ("dev-other", "test-clean")]


def test_lhotse_reads_the_labelled_parts(corpus):
    for part in ("train-clean-5", "dev-other"):
        manifests = prepare_librispeech(corpus / "LibriSpeech", dataset_parts=part)[part]
        assert len(manifests["recordings"]) == PARTS[part].utterances
        assert {segment.id: segment.text for segment in manifests["supervisions"]} == transcripts(corpus, part)
        assert len({segment.speaker for segment in manifests["supervisions"]}) == PARTS[part].speakers
        assert {recording.sampling_rate for recording in manifests["recordings"]} == {16_000}


def test_lhotse_reads_the_unlabelled_part(corpus):
    # prepare_librilight calls this for each of small, medium and large, and wants all of them to be there.
    recordings, supervisions = librilight._prepare_subset("small", corpus / "LibriLight")
    durations = {recording.id: recording.duration for recording in recordings}
    assert len(durations) == 12
    for segment in supervisions:
        assert segment.recording_id.split("/")[-3] == segment.speaker
        assert segment.text is None
        assert segment.duration == pytest.approx(durations[segment.recording_id])


def test_the_unlabelled_part_holds_no_words(corpus):
    files = contents(corpus / "LibriLight")
    assert {Path(name).suffix for name in files} == {".flac", ".json"}
    metadata = [json.loads(data) for name, data in files.items() if name.endswith(".json")]
    assert all(set(entry) == {"speaker", "book_meta", "voice_activity"} for entry in metadata)


def test_speakers_of_different_parts_are_disjoint_in_number_and_voice(corpus):
    rows = speakers_table(corpus)
    assert len({row[0] for row in rows}) == len(rows) == 12
    assert len({(row[4], row[5]) for row in rows}) == len(rows)
    labelled = {row[0] for row in rows}
    assert not labelled & {path.name for path in (corpus / "LibriLight" / "small").iterdir()}


def test_development_and_test_speakers_have_vocal_tracts_that_training_never_hears(corpus):
    variants = {part: {row[4] for row in speakers_table(corpus) if row[2] == part} for part in PARTS}
    assert variants["train-clean-5"] <= set(TRAIN_VARIANTS)
    assert variants["dev-clean"] | variants["dev-other"] | variants["test-clean"] <= set(HELD_OUT_VARIANTS)
    assert not set(TRAIN_VARIANTS) & set(HELD_OUT_VARIANTS)


def test_no_sentence_and_no_voice_occurs_twice_also_where_words_are_kept_off_the_disk():
    large = Part(speakers=90, utterances=600)
    parts = {"train": large, "small": replace(large, layout="librilight"), "dev": replace(large, speakers=36)}
    speakers = _cast(parts, seed=0, sentences={})
    texts = [text for speaker in speakers for text in speaker.texts.values()]
    assert len(texts) == len(set(texts)) == 1800
    assert len({speaker.voice for speaker in speakers}) == len({speaker.id for speaker in speakers}) == 216


def test_clean_and_other_speakers_speak_at_the_rates_of_their_condition(corpus):
    for row in speakers_table(corpus):
        slowest, fastest = (OTHER if "other" in row[2] else CLEAN).rate
        assert slowest <= int(row[5].split(", ")[1].split()[0]) <= fastest


def test_other_speech_is_noisy_and_clean_speech_is_not(corpus):
    def floor_db(part):
        paths = (corpus / "LibriSpeech" / part).rglob("*.flac")
        return np.median([20 * np.log10(np.std(soundfile.read(path)[0][:1000]) + 1e-9) for path in paths])

    assert floor_db("dev-clean") < -85
    assert floor_db("dev-other") > -60


def test_every_utterance_is_audible_of_sane_length_and_unclipped(corpus):
    for path in corpus.rglob("*.flac"):
        info, (samples, _) = soundfile.info(path), soundfile.read(path)
        assert (info.samplerate, info.channels, info.subtype) == (SAMPLING_RATE, 1, "PCM_16")
        assert 1 < info.duration < 8
        assert np.abs(samples).max() < 0.96
        assert -31 < 20 * np.log10(np.std(samples)) < -20


# ---------------------------------------------------------------- replacing, progress, errors


def test_an_earlier_corpus_is_replaced_and_nothing_stays_beside_it(tmp_path):
    one = {"dev": Part(speakers=1, utterances=1)}
    synthesize({"old": one["dev"]}, folder=tmp_path / "corpus", seed=1)
    synthesize(one, folder=tmp_path / "corpus", seed=1)
    assert [path.name for path in (tmp_path / "corpus" / "LibriSpeech").iterdir() if path.is_dir()] == ["dev"]
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_a_failure_leaves_the_earlier_corpus(tmp_path, monkeypatch):
    synthesize({"dev": Part(speakers=1, utterances=1)}, folder=tmp_path / "corpus", seed=1)
    before = contents(tmp_path)
    monkeypatch.setattr(espeak, "_VOLUME", 0)  # silence cannot be brought to a level
    with pytest.raises(ValueError, match="silence"):
        synthesize({"dev": Part()}, folder=tmp_path / "corpus", seed=2)
    assert contents(tmp_path) == before


def test_a_part_may_read_sentences_of_a_text(tmp_path):
    parts = {"train": Part(), "read": Part(utterances=5)}
    grammars = set(transcripts_of(parts, folder=tmp_path / "without", part="train").values())
    text = ["THE CAT SAT", "NAÏVE AS EVER", "ON " * 20 + "TOO LONG", "THE CAT SAT", *sorted(grammars)[:3]]
    text += ["A DOG BARKED", "RAIN FELL ON US", "IT ISN'T THE FIRST TIME", "NOBODY KNEW"]
    synthesize(parts, folder=tmp_path / "with", seed=1, sentences={"read": text})
    assert set(transcripts(tmp_path / "with", "train").values()) == grammars
    assert sorted(transcripts(tmp_path / "with", "read").values()) == sorted({text[0], *text[-4:]})
    numbers = {part: {key.split("-")[0] for key in transcripts(tmp_path / "with", part)} for part in parts}
    assert all(len(number) == 4 for number in numbers["train"])
    assert all(len(number) == 5 for number in numbers["read"])  # such as no published corpus has
    with pytest.raises(ValueError, match=r"parts\.read\.utterances: found 5, .* no more than 2 sentences"):
        synthesize(parts, folder=tmp_path / "few", seed=1, sentences={"read": ["SO WHAT", "SO WHAT", "WHAT FOR"]})


def transcripts_of(parts, *, folder, part):
    synthesize(parts, folder=folder, seed=1)
    return transcripts(folder, part)


def test_one_line_is_logged_for_each_part(tmp_path, caplog):
    small = Part(speakers=1, utterances=1)
    with caplog.at_level(logging.INFO, logger="asr_distill"):
        synthesize({"train": small, "dev": small}, folder=tmp_path / "corpus", seed=1)
    assert [message.split(":")[0] for message in caplog.messages] == ["train", "dev"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accents": ("gmw/en-GB-scotlnd",)}, r"parts.dev.accents: found 'gmw/en-GB-scotlnd'.*'gmw/en-GB-scotland'"),
        ({"speakers": 8}, r"parts.dev.speakers: found 8 for 7 utterances .*write at most 7"),
        ({"speakers": 50, "utterances": 90}, r"parts.dev.speakers: found 50 .*36 distinct voices.*write at most 36"),
        ({"domains": ("poems",)}, r"parts.dev.domains: found poems; write one or more of commands"),
        ({"domains": ()}, r"parts.dev.domains: found none"),
        ({"engine": "flite"}, r"parts.dev.accents: found 'gmw/en'; did you mean '\w+'\? Known: awb, kal16, rms, slt"),
    ],
)
def test_a_part_that_cannot_be_made_is_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        synthesize({"dev": replace(Part(), **change)}, folder=tmp_path / "corpus", seed=1)
    assert not list(tmp_path.iterdir())


def test_a_folder_with_other_things_in_it_is_not_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match=r"holds 'thesis.tex'"):
        synthesize({"dev": Part()}, folder=tmp_path, seed=1)
    assert (tmp_path / "thesis.tex").exists()


# ---------------------------------------------------------------- eSpeak


@pytest.mark.parametrize("variant", TRAIN_VARIANTS + HELD_OUT_VARIANTS)
def test_a_voice_says_the_same_whatever_was_said_before(variant):
    voice = Voice("gmw/en-US", variant, rate=170, pitch=50)
    first = speak(SENTENCE, voice=voice)
    speak("HELLO", voice=Voice("gmw/en-GB-scotland", "whisper", rate=300, pitch=90))
    assert np.array_equal(speak(SENTENCE, voice=voice), first)
    assert first.dtype == np.float32
    assert 1.5 < len(first) / espeak.SAMPLING_RATE < 3.5
    assert 0.01 < np.abs(first).max() < 0.99


@pytest.mark.parametrize("accent", ACCENTS)
def test_an_accent_is_told_from_the_others(accent):
    others = [other for other in ACCENTS if other != accent]
    said = {other: speak(SENTENCE, voice=Voice(other, "m3", rate=170, pitch=50)) for other in ACCENTS}
    assert not any(np.array_equal(said[accent], said[other]) for other in others)


@pytest.mark.parametrize("pair", ["SEE SEA", "KNIGHT NIGHT", "RIGHT WRITE", "WEAK WEEK", "TWO TOO", "SON SUN"])
def test_homophones_sound_exactly_alike(pair):
    one, other = (speak(f"THE {word} AND", voice=Voice("gmw/en-US", "m3", rate=170, pitch=50)) for word in pair.split())
    assert np.array_equal(one, other)


def test_rate_and_pitch_are_heard():
    voice = Voice("gmw/en-US", "m3", rate=150, pitch=40)
    slow = speak(SENTENCE, voice=voice)
    assert len(speak(SENTENCE, voice=replace(voice, rate=225))) == pytest.approx(len(slow) / 1.5, rel=0.1)
    assert not np.array_equal(speak(SENTENCE, voice=replace(voice, pitch=60)), slow)


def test_the_library_works_from_a_deep_folder(monkeypatch):
    voice = Voice("gmw/en-US", "m3", rate=170, pitch=50)
    expected = speak(SENTENCE, voice=voice)
    with tempfile.TemporaryDirectory() as folder:
        deep = Path(folder, *["a" * 50] * 4) / "espeak-ng-data"
        shutil.copytree(espeak._data_folder(), deep)
        monkeypatch.setattr("espeakng_loader.get_data_path", lambda: str(deep))
        espeak._data_folder.cache_clear()
        try:
            assert np.array_equal(speak(SENTENCE, voice=voice), expected)
        finally:
            espeak._data_folder.cache_clear()


def test_wrong_voices_and_a_missing_library_are_told(monkeypatch):
    with pytest.raises(ValueError, match=r"variant: found 'm33'"):
        speak(SENTENCE, voice=Voice("gmw/en-US", "m33", rate=170, pitch=50))
    with pytest.raises(ValueError, match="rate of 80 to 450"):
        speak(SENTENCE, voice=Voice("gmw/en-US", "m3", rate=170, pitch=100))
    monkeypatch.setattr("espeakng_loader.get_library_path", lambda: "/nowhere.so")
    with pytest.raises(RuntimeError, match="reinstall the package espeakng-loader"):
        speak(SENTENCE, voice=Voice("gmw/en-US", "m3", rate=170, pitch=50))
