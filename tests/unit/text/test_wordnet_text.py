"""Example sentences of WordNet, from files of its layout with sentences of our own."""

import json

import pytest
import yaml

from asr_distill import cli_language_models as stages
from asr_distill.text.text_corpus import WORDNET_FILES, prepare_text, wordnet_lines

LICENCE = '  1 This text stands before the synsets.  \n  2 It is "no example at all".  \n'
SYNSETS = {
    "data.noun": [
        '00001000 03 n 01 bowl 0 001 @ 00001001 n 0000 | a round dish; "the cat drank from a bowl"; "two bowls"  ',
        "00001001 03 n 02 dish 0 plate 1 000 | what food is put on  ",
    ],
    "data.verb": [
        '00002000 30 v 01 nod 0 000 01 + 02 00 | move it; "She nodded to us!"; "Don\'t nod so often" - a teacher  '
    ],
    "data.adj": ['00003000 00 s 01 tiny(a) 0 000 | very small ("tiny" is the usual word)  '],
    "data.adv": ['00004000 02 r 01 soon 0 000 | before long; "we will be there soon"  '],
}


@pytest.fixture
def wordnet(tmp_path):
    for name, lines in SYNSETS.items():
        (tmp_path / name).write_text(LICENCE + "".join(f"{line}\n" for line in lines))
    return tmp_path


def test_examples_of_three_words_or_more(wordnet):
    assert list(wordnet_lines(wordnet)) == [
        "the cat drank from a bowl",
        "She nodded to us!",
        "Don't nod so often",
        "we will be there soon",
    ]


def test_test_transcripts_are_left_out(wordnet):
    kept, counts = prepare_text(wordnet_lines(wordnet), exclude=["SHE NODDED TO US"])
    assert kept == ["THE CAT DRANK FROM A BOWL", "DON'T NOD SO OFTEN", "WE WILL BE THERE SOON"]
    assert (counts.read, counts.overlapping) == (4, 1)


@pytest.mark.parametrize("name", WORDNET_FILES)
def test_a_missing_file_is_named(wordnet, name):
    (wordnet / name).unlink()
    with pytest.raises(ValueError, match=rf"{name}: not found; put WordNet's data\.noun, .* there"):
        list(wordnet_lines(wordnet))


def test_files_of_something_else_are_refused(wordnet):
    (wordnet / "data.verb").write_text("a plain text\n")
    with pytest.raises(ValueError, match=r"data\.verb: line 1 has no gloss after a '\|'; this is no WordNet"):
        list(wordnet_lines(wordnet))
    (wordnet / "data.verb").write_bytes(b"\xff\xfe\n")
    with pytest.raises(ValueError, match=r"data\.verb: line 1: not UTF-8"):
        list(wordnet_lines(wordnet))


def test_without_any_example_there_is_no_text(tmp_path):
    for name in WORDNET_FILES:
        (tmp_path / name).write_text("00003000 00 s 01 tiny 0 000 | very small  \n")
    with pytest.raises(ValueError, match="hold no example sentence"):
        list(wordnet_lines(tmp_path))


def test_the_stage_reads_it_where_a_scale_says_so(wordnet, monkeypatch):
    monkeypatch.setattr(stages, "start", lambda *_, **__: None)
    models = {
        "text": {"source": "wordnet", "path": wordnet.name},
        "bert": {"layers": 1, "heads": 1, "dim": 8, "feed_forward": 8, "max_tokens": 16},
        "bert_training": {"steps": 2, "batch_tokens": 64, "learning_rate": 0.001, "warmup_steps": 1},
    }
    record, said = wordnet / "record.yaml", wordnet / "said.jsonl"
    record.write_text(yaml.safe_dump({"data": str(wordnet.parent), "language_models": models}))
    said.write_text(json.dumps({"id": "1", "text": "WE WILL BE THERE SOON"}) + "\n")
    stages.text(record, [said], labelled=[], output=wordnet / "text.txt", counts=wordnet / "text.json")
    assert (wordnet / "text.txt").read_text().splitlines()[-1] == "DON'T NOD SO OFTEN"
    assert json.loads((wordnet / "text.json").read_text())["overlapping"] == 1
