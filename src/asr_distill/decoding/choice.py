"""Which utterances are shown to people, by a rule that knows no transcript."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def evenly_spaced(names: Sequence[str], count: int) -> list[str]:
    """Return `count` names in their order, evenly spaced from the first to the last; all if there are fewer."""
    places = np.linspace(0, len(names) - 1, num=min(count, len(names))).round().astype(int)
    return [names[place] for place in places]
