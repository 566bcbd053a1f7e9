"""Sharing out a manifest's speakers."""

import pytest

from asr_distill.corpus.speakers import choose_speakers
from asr_distill.experiment import Corpus

SPEAKERS = [f"s{number:02d}" for number in range(20)]


def corpus(*, seed=0, dev=3, labelled=10):
    manifest = {"source": "manifests", "folder": "x", "name": "train"}
    return Corpus.model_validate(
        {
            "seed": seed,
            "parts": {
                "dev": {"use": "dev", "speakers": dev, **manifest},
                "labelled": {"use": "labelled", "speakers": labelled, **manifest},
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
    assert choose_speakers("dev", corpus=corpus(), speakers=reversed(SPEAKERS)) == chosen["dev"]
    assert choose_speakers("dev", corpus=corpus(seed=1), speakers=SPEAKERS) != chosen["dev"]


def test_too_few_speakers_are_an_error_with_both_numbers():
    with pytest.raises(ValueError, match=r"labelled\.speakers: 18 asked for.*20.*leave 17"):
        choose_speakers("labelled", corpus=corpus(labelled=18), speakers=SPEAKERS)
    with pytest.raises(ValueError, match=r"unlabelled\.speakers: rest asked for.*leave 0"):
        choose_speakers("unlabelled", corpus=corpus(labelled=17), speakers=SPEAKERS)
