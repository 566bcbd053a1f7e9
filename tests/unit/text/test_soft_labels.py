"""Soft labels of BERT, against masking one place after the other; their file."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from asr_distill.text.masked_lm import load_bert
from asr_distill.text.soft_labels import SoftLabels, soft_labels, transcripts_hash
from asr_distill.text.tokenizer import Tokenizer

TRANSCRIPTS = {
    "first": "THE CAT IS LAZY",
    "second": "YES",
    "same": "THE CAT IS LAZY",
    "nothing": "",
    "third": "A GOOD MAT",
    "fourth": "NO DOG'S LIFE",
    "fifth": "A GOOD CAT",
    "sixth": "É CAT",  # unknown to the tokenizer
}


def by_hand(bert, text, *, tokenizer, masked_together):
    """Return all probabilities (L, V - 1) and hidden states (L, D), from one forward pass of the whole BERT each."""
    model = load_bert(bert, tokenizer=tokenizer)
    tokens = tokenizer.encode(text)
    v = tokenizer.vocabulary
    rows = []
    for place in range(len(tokens)):
        shown = [v + 2 if masked_together(tokens, place, other) else token for other, token in enumerate(tokens)]
        inputs = torch.tensor([[v, *shown, v + 1]])
        with torch.no_grad():
            output = model(inputs, attention_mask=torch.ones_like(inputs), output_hidden_states=True)
        probabilities = output.logits[0, place + 1, 1:v].exp()
        rows.append((probabilities / probabilities.sum(), output.hidden_states[-1][0, place + 1]))
    return tuple(torch.stack(column) for column in zip(*rows, strict=True))


def word_of(tokenizer, tokens, place):
    starts = [tokenizer.piece(token).startswith("\u2581") for token in tokens]
    return sum(starts[: place + 1])


@pytest.fixture
def together(tokenizer):
    return {
        "token": lambda tokens, place, other: place == other,
        "word": lambda tokens, place, other: word_of(tokenizer, tokens, place) == word_of(tokenizer, tokens, other),
    }


@pytest.fixture(scope="module")
def labels(bert, tokenizer):
    return soft_labels(bert, TRANSCRIPTS, tokenizer=tokenizer, top_k=6, hidden_states=True)


@pytest.mark.parametrize("mask", ["token", "word"])
@pytest.mark.parametrize("batch_tokens", [1, 40, 100_000])
def test_they_are_what_masking_one_place_after_the_other_gives(bert, tokenizer, together, mask, batch_tokens):
    every = tokenizer.vocabulary - 1
    options = {"mask": mask, "batch_tokens": batch_tokens, "hidden_states": True}
    labels = soft_labels(bert, TRANSCRIPTS, tokenizer=tokenizer, top_k=every, **options)
    sharp = 0.0
    for utterance, text in TRANSCRIPTS.items():
        ids, probabilities = labels[utterance]
        assert ids.shape == probabilities.shape == (len(tokenizer.encode(text)), every)
        assert ids.dtype == torch.int32
        if not text:
            continue
        expected, hidden = by_hand(bert, text, tokenizer=tokenizer, masked_together=together[mask])
        assert torch.equal(ids.long().sort(dim=1).values, torch.arange(1, every + 1).expand_as(ids))
        assert bool((probabilities.diff(dim=1) <= 0).all())
        torch.testing.assert_close(probabilities, expected.gather(1, ids.long() - 1), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(labels.hidden_states(utterance).float(), hidden, rtol=2e-3, atol=2e-3)
        sharp = max(sharp, float(probabilities.max()))
    assert sharp > 5 / every  # else everything would be near to everything


def test_masks_of_words_and_of_tokens_differ_where_words_have_several_tokens(bert, tokenizer):
    tokens, words = (
        soft_labels(bert, TRANSCRIPTS, tokenizer=tokenizer, top_k=3, mask=mask) for mask in ("token", "word")
    )
    assert not torch.allclose(tokens["fourth"][1], words["fourth"][1], atol=1e-3)
    assert (tokens.about["mask"], words.about["mask"]) == ("token", "word")


def test_the_order_of_the_transcripts_is_irrelevant(bert, tokenizer, labels):
    backwards = dict(reversed(TRANSCRIPTS.items()))
    other = soft_labels(bert, backwards, tokenizer=tokenizer, top_k=6)
    for utterance in TRANSCRIPTS:
        assert all(torch.equal(a, b) for a, b in zip(labels[utterance], other[utterance], strict=True))
    assert list(other.spans) == list(backwards)
    assert other.about["transcripts"] == transcripts_hash(backwards) != labels.about["transcripts"]


def test_equal_transcripts_are_asked_for_once(tokenizer, labels):
    assert len(labels.ids) == sum(len(tokenizer.encode(text)) for text in set(TRANSCRIPTS.values()))
    assert labels.spans["first"] == labels.spans["same"]


def test_the_highest_k_of_a_longer_list_are_the_shorter_list(bert, tokenizer, labels):
    fewer = soft_labels(bert, TRANSCRIPTS, tokenizer=tokenizer, top_k=2)
    for utterance in TRANSCRIPTS:
        assert all(torch.equal(a, b) for a, b in zip(labels.top(2)[utterance], fewer[utterance], strict=True))


def test_too_long_a_transcript_is_refused_not_cut(bert, tokenizer):
    just = "A " * 22  # 24 positions with the marks
    assert len(tokenizer.encode(just.strip())) == 22
    soft_labels(bert, {"just": just.strip()}, tokenizer=tokenizer, top_k=2)
    with pytest.raises(ValueError, match=r"^utterance 'long': has 23 tokens, but BERT takes 22 .* max_tokens: 25"):
        soft_labels(bert, {"just": "YES", "long": just + "A"}, tokenizer=tokenizer, top_k=2)


@pytest.mark.parametrize("k", [0, 33])
def test_there_are_only_so_many_tokens(bert, tokenizer, k):
    with pytest.raises(ValueError, match=f"top_k: found {k}; write 1 to 32"):
        soft_labels(bert, TRANSCRIPTS, tokenizer=tokenizer, top_k=k)


def test_no_transcripts_no_labels(bert, tokenizer, tmp_path):
    for transcripts in ({}, {"nothing": ""}):
        soft_labels(bert, transcripts, tokenizer=tokenizer, top_k=2).save(tmp_path / "labels")
        assert list(SoftLabels.load(tmp_path / "labels", tokenizer=tokenizer.fingerprint).spans) == list(transcripts)


def test_the_file_is_read_as_it_was_written(tmp_path, tokenizer, labels):
    path = tmp_path / "labels.safetensors"
    labels.save(path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    loaded = SoftLabels.load(path, tokenizer=tokenizer.fingerprint)
    assert loaded.about == labels.about
    for utterance in TRANSCRIPTS:
        assert all(torch.equal(a, b) for a, b in zip(loaded[utterance], labels[utterance], strict=True))
        assert torch.equal(loaded.hidden_states(utterance), labels.hidden_states(utterance))
    assert loaded.hidden_dim == labels.hidden.shape[1]


def test_labels_are_checked_against_the_transcripts(tmp_path, tokenizer, labels):
    labels.save(tmp_path / "labels.safetensors")
    loaded = SoftLabels.load(tmp_path / "labels.safetensors", tokenizer=tokenizer.fingerprint)
    tokens = {utterance: tokenizer.encode(text) for utterance, text in TRANSCRIPTS.items()}
    loaded.check(tokens, mask="token")
    loaded.check({}, mask="token")
    for changed, message in [
        ({"third": tokenizer.encode("A GOOD CAT")}, "is of another transcript of utterance 'third' than the one"),
        ({"third": tokens["third"][:-1]}, "is of another transcript of utterance 'third'"),
        ({"seventh": tokens["third"]}, "has no utterance 'seventh' among its 8; make it anew"),
    ]:
        with pytest.raises(ValueError, match=rf"labels\.safetensors: {message}") as error:
            loaded.check(tokens | changed, mask="token")
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"labels\.safetensors: BERT guessed every token, not every word; make"):
        loaded.check(tokens, mask="word")


def test_equal_labels_are_equal_files(tmp_path, bert, tokenizer):
    for name in ("a", "b"):
        soft_labels(bert, TRANSCRIPTS, tokenizer=tokenizer, top_k=4).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_file_of_fewer_can_be_made_from_one_of_more(tmp_path, bert, tokenizer, labels):
    soft_labels(bert, TRANSCRIPTS, tokenizer=tokenizer, top_k=2, hidden_states=True).save(tmp_path / "fewer")
    labels.top(2).save(tmp_path / "from_more")
    assert (tmp_path / "fewer").read_bytes() == (tmp_path / "from_more").read_bytes()


def test_questions_without_an_answer_are_refused(tmp_path, bert, tokenizer):
    path = tmp_path / "labels.safetensors"
    soft_labels(bert, TRANSCRIPTS, tokenizer=tokenizer, top_k=4).save(path)
    labels = SoftLabels.load(path, tokenizer=tokenizer.fingerprint)
    with pytest.raises(ValueError, match=r"labels\.safetensors: has no utterance 'seventh' among its 8; make it anew"):
        labels["seventh"]
    for k in (0, 5):
        with pytest.raises(ValueError, match=rf"holds the 4 most probable tokens of every position, not {k}"):
            labels.top(k)
    for ask in (lambda: labels.hidden_states("first"), lambda: labels.hidden_dim):
        with pytest.raises(ValueError, match=r"labels\.safetensors: holds no hidden states"):
            ask()
    with pytest.raises(ValueError, match=f"of the tokens {tokenizer.fingerprint}, not xyz; make them anew or restore"):
        SoftLabels.load(path, tokenizer="xyz")


def test_a_bert_of_other_tokens_is_refused(bert):
    other = Tokenizer(Tokenizer.estimate(["OTHER WORDS"], vocabulary=11, type="char"))
    with pytest.raises(ValueError, match="BERT was trained on the tokens"):
        soft_labels(bert, {"a": "WORDS"}, tokenizer=other, top_k=2)


def test_other_files_are_refused(tmp_path, tokenizer, labels):
    path = tmp_path / "labels.safetensors"
    labels.save(path)
    with safe_open(path, framework="pt") as file:
        assert json.loads(*file.metadata().values())["tokenizer"] == tokenizer.fingerprint
    content = path.read_bytes()
    for damaged in (b"", content[:10], content[:-1]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"labels\.safetensors: not readable as safetensors"):
            SoftLabels.load(path, tokenizer=tokenizer.fingerprint)
    save_file({"weight": torch.zeros(2)}, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="holds no soft labels"):
        SoftLabels.load(path, tokenizer=tokenizer.fingerprint)
    with pytest.raises(ValueError, match=r"absent: not readable"):
        SoftLabels.load(tmp_path / "absent", tokenizer=tokenizer.fingerprint)
