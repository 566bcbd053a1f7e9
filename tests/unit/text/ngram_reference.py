"""A slow n-gram model, straight from the formulas: counts in dictionaries, a probability at a time."""

from __future__ import annotations

from collections import Counter

from asr_distill.text.ngram import FALLBACK


class SlowNgram:
    """Interpolated modified Kneser-Ney; words are tokens, "<s>" and "</s>"."""

    def __init__(self, sentences, *, order, vocabulary, prune=()):
        self.order, self.vocabulary = order, vocabulary
        self.thresholds = [*prune, *[prune[-1] if prune else 0] * order][:order]
        self.raw = Counter()
        for sentence in sentences:
            words = ("<s>", *sentence, "</s>")
            for n in range(1, order + 1):
                self.raw.update(words[i : i + n] for i in range(len(words) - n + 1))
        self.adjusted = {gram: self._adjusted(gram) for gram in self.raw if gram != ("<s>",)}
        self.discounts = [self._discounts(n) for n in range(1, order + 1)]

    def words(self):
        return [*range(1, self.vocabulary), "</s>"]

    def prob(self, history, word):
        """Return P(word | exactly these words), of which at most order - 1 count."""
        history = tuple(history)[max(0, len(history) - self.order + 1) :]
        lower = self.prob(history[1:], word) if history else 1 / self.vocabulary
        n = len(history) + 1
        followers = [gram for gram in self.adjusted if len(gram) == n and gram[:-1] == history]
        if not followers:
            return lower
        total = sum(self.adjusted[gram] for gram in followers)
        kept = [gram for gram in followers if self._is_kept(gram)]
        freed = sum(self._discount(gram) for gram in kept) + sum(self.adjusted[g] for g in {*followers} - {*kept})
        gram = (*history, word)
        own = self.adjusted[gram] - self._discount(gram) if gram in kept else 0
        return own / total + freed / total * lower

    def _adjusted(self, gram):
        if len(gram) == self.order or gram[0] == "<s>":
            return self.raw[gram]
        return len({longer[0] for longer in self.raw if longer[1:] == gram})

    def _discounts(self, n):
        ones, twos, threes, fours = (
            sum(len(gram) == n and found == count for gram, found in self.adjusted.items()) for count in (1, 2, 3, 4)
        )
        if 0 in (ones, twos, threes):
            return FALLBACK
        y = ones / (ones + 2 * twos)
        found = (1 - 2 * y * twos / ones, 2 - 3 * y * threes / twos, 3 - 4 * y * fours / threes)
        return found if min(found) > 0 else FALLBACK

    def _discount(self, gram):
        return self.discounts[len(gram) - 1][min(self.adjusted[gram], 3) - 1]

    def _is_kept(self, gram):
        threshold = self.thresholds[len(gram) - 1]
        return threshold == 0 or self.raw[gram] > threshold
