import random
import re
from collections import Counter
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_distill.text.grammar import DOMAINS, HOMOPHONES, sentence, sentences, vocabulary

MASCULINE = "KNIGHT MAN BOY KING FARMER SAILOR TEACHER PRINCE MALE".split()  # noqa: SIM905
FEMININE = "WOMAN GIRL QUEEN MAID LADY NURSE".split()  # noqa: SIM905
PLURAL = "KNIGHTS MEN BOYS KINGS FARMERS SAILORS TEACHERS PRINCES MALES WOMEN GIRLS QUEENS MAIDS LADIES NURSES".split()  # noqa: SIM905


def draw(num: int, *, seed: int = 0, **options) -> list[str]:
    return list(islice(sentences(random.Random(seed), **options), num))


@pytest.fixture(scope="module")
def supply() -> list[str]:
    return draw(60_000)


@given(seed=st.integers(0, 2**32), domain=st.sampled_from(DOMAINS))
def test_a_sentence_is_5_to_14_upper_case_words_of_the_vocabulary(seed, domain):
    text = sentence(random.Random(seed), domain=domain)
    assert re.fullmatch(r"[A-Z']+( [A-Z']+){4,13}", text)
    assert set(text.split()) <= vocabulary()


def test_the_vocabulary_is_a_few_hundred_words_and_every_one_occurs(supply):
    assert 300 <= len(vocabulary()) <= 450
    assert {word for text in supply for word in text.split()} == vocabulary()


def test_most_tokens_come_from_a_small_core_and_sentences_are_about_8_words():
    tokens = Counter(word for text in draw(9000) for word in text.split())
    core = sum(count for _, count in tokens.most_common(120))
    assert 0.75 < core / tokens.total() < 0.9
    assert 7.5 < tokens.total() / 9000 < 9.5


def test_the_same_seed_gives_the_same_sentences_and_another_seed_others():
    assert draw(100, seed=3) == draw(100, seed=3)
    assert draw(100, seed=3) != draw(100, seed=4)


def test_domains_take_turns():
    own_rng = random.Random(7)
    expected = [sentence(own_rng, domain=domain) for domain in ("news", "stories") * 20]
    assert draw(40, seed=7, domains=("news", "stories")) == expected


def test_excluded_sentences_do_not_come():
    excluded = set(draw(3000, seed=1))
    assert excluded & set(draw(3000, seed=2))
    assert not excluded & set(draw(3000, seed=2, exclude=excluded))


def test_domains_differ_in_their_words():
    words = {domain: {w for text in draw(5000, domains=(domain,)) for w in text.split()} for domain in DOMAINS}
    assert all(len(words[one] - words[other]) > 50 for one in DOMAINS for other in DOMAINS if one != other)


@pytest.mark.parametrize(
    ("subjects", "writes", "own"),
    [(MASCULINE, "WRITES", "HIS"), (FEMININE, "WRITES", "HER"), (PLURAL, "WRITE", "THEIR")],
)
def test_the_verb_and_the_possessive_agree_with_the_subject_over_a_relative_clause(subjects, writes, own):
    pattern = re.compile(rf"THE (?:[A-Z]+ )?({'|'.join(subjects)}) WHO [A-Z' ]+ (WRITES?) TO ([A-Z]+) ")
    found = [match.groups() for text in draw(12_000, domains=("stories",)) if (match := pattern.match(text))]
    assert len(found) > 50
    assert {(verb, possessive) for _, verb, possessive in found} == {(writes, own)}


def test_nouns_of_either_number_stand_between_subject_and_verb():
    pattern = re.compile(rf"THE (?:{'|'.join(MASCULINE)}) WHO SEES THE (SHIPS?) ([A-Z]+) ")
    found = [match.groups() for text in draw(20_000, domains=("stories",)) if (match := pattern.match(text))]
    assert {noun for noun, _ in found} == {"SHIP", "SHIPS"}
    assert not {verb for _, verb in found} & {"WRITE", "SEE", "GO", "WAIT", "ARE", "WERE"}


def test_every_homophone_occurs_and_they_are_frequent(supply):
    tokens = Counter(word for text in supply for word in text.split())
    homophones = {word for words in HOMOPHONES for word in words}
    assert homophones <= tokens.keys()
    assert sum(tokens[word] for word in homophones) > 0.2 * tokens.total()


def test_an_before_a_vowel_and_a_before_a_consonant():
    text = " ".join(draw(9000))
    assert " AN OLD " in text
    assert not re.search(r" A [AEIO]| AN [^AEIOH]", text)


def test_there_are_more_than_a_hundred_thousand_sentences(supply):
    times = Counter(Counter(supply).values())
    richness = sum(times.values()) + times[1] ** 2 / (2 * times[2])  # Chao's lower bound (1984)
    assert richness > 120_000


def test_an_unknown_domain_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'poems'.*write one or more of commands, stories, news"):
        sentence(random.Random(0), domain="poems")
    with pytest.raises(ValueError, match="none"):
        next(sentences(random.Random(0), domains=()))
