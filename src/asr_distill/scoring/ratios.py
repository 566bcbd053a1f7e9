"""Interval of how many times one thing takes as long as another, from one ratio per run and training seed.

Ratios are positive and skewed, so their logarithms are averaged: the mean is the geometric one, and "twice" and "half"
are equally far from 1. Student's t-interval takes every run and seed as one independent measurement of the same ratio.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

FEWEST_RUNS = 3
"""With fewer, how a ratio varies between runs is anybody's guess."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RatioInterval:
    """A mean ratio and its interval; NaN bounds come with a reason."""

    ratio: float
    """Geometric mean; NaN where there is nothing to average."""
    low: float
    high: float
    runs: int
    """How many different runs were measured."""
    error: float = math.nan
    """Standard error of the ratio's logarithm."""
    degrees: int = 0
    """Degrees of freedom of that error."""
    reason: str = ""


def ratio_interval(ratios: Sequence[float], *, runs: int, confidence: float = 0.95) -> RatioInterval:
    """Return the geometric mean of ratios, one per run and seed, with the t-interval of its logarithm.

    Args:
        ratios: positive numbers.
        runs: number of different runs among them.
        confidence: coverage of the interval.

    Raises:
        ValueError: for a ratio that is not positive and finite.
    """
    values = np.asarray(ratios, dtype=np.float64)
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise ValueError(f"{[f'{value:g}' for value in values]}: not all are positive and finite; measure again")
    logs = np.log(values)
    mean = float(logs.mean()) if len(logs) else math.nan
    if runs < FEWEST_RUNS:
        counted = f"{runs} run{'' if runs == 1 else 's'}"
        reason = f"{counted} measured, and an interval needs {FEWEST_RUNS}"
        return RatioInterval(ratio=math.exp(mean), low=math.nan, high=math.nan, runs=runs, reason=reason)
    error = float(logs.std(ddof=1)) / math.sqrt(len(logs))
    degrees = len(logs) - 1
    width = t_quantile(confidence, degrees=degrees) * error
    low, high = math.exp(mean - width), math.exp(mean + width)
    return RatioInterval(ratio=math.exp(mean), low=low, high=high, runs=runs, error=error, degrees=degrees)


def t_quantile(confidence: float, *, degrees: int) -> float:
    """Return t with P(|T| < t) = confidence for Student's t with so many degrees of freedom, to seven digits."""
    angles, mass = _t_distribution(degrees)
    return math.sqrt(degrees) * math.tan(float(np.interp(confidence, mass, angles)))


def t_tail(t: float, *, degrees: int) -> float:
    """Return P(T > t) for Student's t with so many degrees of freedom, to seven decimals; t may be infinite."""
    angles, mass = _t_distribution(degrees)
    within = float(np.interp(math.atan(abs(t) / math.sqrt(degrees)), angles, mass))
    return (1 - within) / 2 if t > 0 else (1 + within) / 2


def _t_distribution(degrees: int) -> tuple[np.ndarray, np.ndarray]:
    """Return angles and P(|T| < sqrt(degrees) tan(angle)).

    With t = sqrt(degrees) tan(angle) the density is proportional to cos(angle) ** (degrees - 1) between 0 and pi / 2,
    which is summed by the trapezium rule.
    """
    angles = np.linspace(0, math.pi / 2, 100_001)
    density = np.cos(angles) ** (degrees - 1)
    mass = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return angles, mass / mass[-1]
