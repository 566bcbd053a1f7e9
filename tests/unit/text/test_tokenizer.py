"""The SentencePiece tokenizer."""

import pytest

from asr_distill.text.tokenizer import BLANK, UNKNOWN, Tokenizer

LINES = [
    "THE CAT SAT ON THE MAT",
    "A DOG'S LIFE IS A GOOD LIFE",
    "YES NO MAYBE SO",
    "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG",
] * 5


@pytest.mark.parametrize(("kind", "vocabulary"), [("unigram", 31), ("bpe", 48), ("char", 30)])
def test_round_trip_and_special_tokens(tmp_path, kind, vocabulary):
    model = Tokenizer.estimate(LINES, vocabulary=vocabulary, type=kind)
    assert model == Tokenizer.estimate(iter(LINES), vocabulary=vocabulary, type=kind)
    path = tmp_path / "tokens.model"
    path.write_bytes(model)
    tokenizer = Tokenizer.load(path)
    assert tokenizer.vocabulary == vocabulary
    assert tokenizer.piece(BLANK) == "<blank>"
    assert tokenizer.piece(UNKNOWN) == "<unk>"
    assert tokenizer.fingerprint == Tokenizer(model).fingerprint
    assert len(tokenizer.fingerprint) == 16
    for line in LINES:
        ids = tokenizer.encode(line)
        assert min(ids) > UNKNOWN
        assert tokenizer.decode([BLANK, *ids, BLANK]) == line
    assert UNKNOWN in tokenizer.encode("\u00c9")
    assert tokenizer.encode("") == []
    assert tokenizer.decode([]) == ""


@pytest.mark.parametrize("kind", ["unigram", "bpe", "char"])
def test_too_large_vocabulary_tells_the_largest(kind):
    with pytest.raises(ValueError, match=r"tokenizer\.vocabulary: 5000 is too large.*write \d+ or less") as error:
        Tokenizer.estimate(LINES, vocabulary=5000, type=kind)
    largest = int(str(error.value).split("write ")[1].split()[0])
    assert Tokenizer(Tokenizer.estimate(LINES, vocabulary=largest, type=kind)).vocabulary == largest


@pytest.mark.parametrize("kind", ["unigram", "bpe", "char"])
def test_too_small_vocabulary_tells_the_smallest(kind):
    with pytest.raises(ValueError, match=r"5 is too small.*write at least \d+") as error:
        Tokenizer.estimate(LINES, vocabulary=5, type=kind)
    smallest = int(str(error.value).split("at least ")[1])
    assert Tokenizer(Tokenizer.estimate(LINES, vocabulary=smallest, type=kind)).vocabulary == smallest


def test_no_text_is_an_error():
    with pytest.raises(ValueError, match="no transcripts"):
        Tokenizer.estimate(["", " "], vocabulary=20, type="bpe")


def test_unreadable_models_name_the_file(tmp_path):
    with pytest.raises(ValueError, match="absent"):
        Tokenizer.load(tmp_path / "absent.model")
    (tmp_path / "broken.model").write_bytes(b"no model")
    with pytest.raises(ValueError, match="broken"):
        Tokenizer.load(tmp_path / "broken.model")
