"""Reading ARPA files: ours, those of lmplz, broken ones; and whether KenLM reads ours alike."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from asr_distill.text.arpa import read_arpa
from asr_distill.text.ngram import estimate

LMPLZ = Path(__file__).parent / "lmplz"
VOCABULARY = 9


@pytest.fixture(scope="module")
def text():
    lines = (LMPLZ / "text.txt").read_text().splitlines()
    return [list(map(int, line.split())) for line in lines] + [[1, 1, 2], [3, 1]]


@pytest.fixture(scope="module", params=[1, 2, 5])
def model(text, request):
    return estimate(text, order=request.param, vocabulary=VOCABULARY, prune=(0, 0, 1)[: request.param])


@pytest.fixture(scope="module")
def arpa(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("arpa") / "ngram.arpa"
    model.write_arpa(path)
    return path


def test_a_file_holds_the_model(model, arpa):
    found = read_arpa(arpa, vocabulary=VOCABULARY)
    for name in ("keys", "log_probs", "backoffs"):
        ours, theirs = getattr(model, name), getattr(found, name)
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(other, one, atol=2e-6)


def test_kenlm_reads_the_same_scores(model, arpa, text):
    kenlm = pytest.importorskip("flashlight.lib.text.decoder.kenlm", reason="no wheel of flashlight-text")
    from flashlight.lib.text.dictionary import Dictionary

    if model.order == 1:
        with pytest.raises(RuntimeError, match="at least a bigram"):
            kenlm.KenLM(str(arpa), Dictionary())
        return
    spellings = Dictionary()
    for token in range(VOCABULARY):
        spellings.add_entry("<unk>" if token == 1 else str(token))
    theirs = kenlm.KenLM(str(arpa), spellings)
    unseen = np.random.default_rng(0).integers(1, VOCABULARY, (20, 7)).tolist()
    for sentence in (*text, *unseen):
        state = theirs.start(False)
        for position, token in enumerate(sentence):
            state, score = theirs.score(state, token)
            assert score * math.log(10) == pytest.approx(model.log_prob(sentence[:position], token), abs=1e-5)
        assert theirs.finish(state)[1] * math.log(10) == pytest.approx(model.log_prob(sentence, None), abs=1e-5)


def test_files_of_lmplz_are_read_whatever_the_order_of_their_lines(text):
    found = read_arpa(LMPLZ / "unpruned.arpa", vocabulary=VOCABULARY)
    expected = estimate(text[:-2], order=3, vocabulary=VOCABULARY)
    for history in ([], [2], [8, 3], [4, 4, 4]):
        for token in (1, 2, 5, None):
            assert found.log_prob(history, token) == pytest.approx(expected.log_prob(history, token), abs=1e-5)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda arpa: "", "no ARPA file"),
        (lambda arpa: "THE CAT SAT\n", "no ARPA file"),
        (lambda arpa: "\\data\\\n\n", "promises no n-grams"),
        (lambda arpa: arpa[: len(arpa) // 2], "fewer than the promised|is missing"),
        (lambda arpa: arpa.replace("\t5\t", "\tFIVE\t"), "'FIVE' is no token"),
        (lambda arpa: arpa.replace("\t5\t", "\t6\t"), "stands twice"),
        (lambda arpa: arpa.replace("\t2 4\t", "\t2 3\t"), "beginning is no n-gram|stands twice"),
    ],
)
def test_broken_files_are_named(tmp_path, broken, message):
    path = tmp_path / "broken.arpa"
    path.write_text(broken((LMPLZ / "unpruned.arpa").read_text()))
    with pytest.raises(ValueError, match=rf"broken\.arpa.*({message})"):
        read_arpa(path, vocabulary=VOCABULARY)


def test_unreadable_files_and_those_of_another_tokenizer_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.arpa: not readable"):
        read_arpa(tmp_path / "absent.arpa", vocabulary=VOCABULARY)
    with pytest.raises(ValueError, match="not readable"):
        read_arpa(tmp_path, vocabulary=VOCABULARY)
    (tmp_path / "binary").write_bytes(b"mmap lm \xff\xfe")
    with pytest.raises(ValueError, match="binary: no ARPA file"):
        read_arpa(tmp_path / "binary", vocabulary=VOCABULARY)
    with pytest.raises(ValueError, match=r"unpruned\.arpa: holds 8 tokens, but the tokenizer has 63"):
        read_arpa(LMPLZ / "unpruned.arpa", vocabulary=64)
