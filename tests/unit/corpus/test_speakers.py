"""Sharing out the speakers of a list."""

import pytest

from asr_distill.corpus.speakers import choose_speakers
from asr_distill.experiment import Corpus

SPEAKERS = {f"s{number:02d}": None for number in range(20)}


AGES = {speaker: 6 + number for number, speaker in enumerate(SPEAKERS)}


def corpus(*, seed=0, dev=3, labelled=10, ages=None):
    manifest = {"source": "manifests", "folder": "x", "name": "train"}
    return Corpus.model_validate(
        {
            "seed": seed,
            "parts": {
                "dev": {"use": "dev", "speakers": dev, **manifest},
                "labelled": {"use": "labelled", "speakers": labelled, "ages": ages, **manifest},
                "other": {"use": "test", "source": "manifests", "folder": "x", "name": "test"},
                "unlabelled": {"use": "unlabelled", "speakers": "rest", **manifest},
            },
        }
    )


def test_parts_are_disjoint_complete_and_deterministic():
    chosen = {part: choose_speakers(part, corpus=corpus(), speakers=SPEAKERS) for part in corpus().parts}
    assert [len(chosen[part]) for part in ("dev", "labelled", "unlabelled")] == [3, 10, 7]
    assert chosen["dev"] | chosen["labelled"] | chosen["unlabelled"] == set(SPEAKERS)
    assert chosen["other"] == set(SPEAKERS)
    assert choose_speakers("dev", corpus=corpus(), speakers=dict(reversed(SPEAKERS.items()))) == chosen["dev"]
    assert choose_speakers("dev", corpus=corpus(seed=1), speakers=SPEAKERS) != chosen["dev"]


def test_too_few_speakers_are_an_error_with_both_numbers():
    with pytest.raises(ValueError, match=r"labelled\.speakers: 18 asked for.*20.*leave 17"):
        choose_speakers("labelled", corpus=corpus(labelled=18), speakers=SPEAKERS)
    with pytest.raises(ValueError, match=r"unlabelled\.speakers: rest asked for.*leave 0"):
        choose_speakers("unlabelled", corpus=corpus(labelled=17), speakers=SPEAKERS)


def test_parts_may_be_of_some_ages_only():
    chosen = {
        part: choose_speakers(part, corpus=corpus(labelled="all", ages=[16, 150]), speakers=AGES)
        for part in corpus().parts
    }
    adults = {speaker for speaker, age in AGES.items() if age >= 16}
    assert chosen["labelled"] == adults - chosen["dev"]
    assert chosen["unlabelled"] == set(AGES) - adults - chosen["dev"]


def test_too_few_speakers_of_an_age_are_an_error():
    with pytest.raises(ValueError, match=r"labelled\.speakers: 3 asked for.*leave [012] of 6 to 7 years"):
        choose_speakers("labelled", corpus=corpus(labelled=3, ages=[6, 7]), speakers=AGES)


def test_an_age_that_is_not_told_is_an_error():
    with pytest.raises(ValueError, match=r"labelled\.ages: the age of speaker 's\d\d' is not told; write it as `age`"):
        choose_speakers("labelled", corpus=corpus(ages=[6, 7]), speakers=SPEAKERS)


def test_ages_begin_with_the_youngest():
    with pytest.raises(ValueError, match=r"ages: \[16, 6\] must begin with the youngest"):
        corpus(ages=[16, 6])
