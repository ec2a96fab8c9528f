"""Look-ups of people, and what guessing would give."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
import pytest

from gaitdiff.evaluation.identity import Identified, identity_check


@pytest.mark.parametrize(("right", "probes", "people"), [(0, 5, 5), (1, 5, 5), (9, 100, 100), (5, 5, 5), (3, 40, 7)])
def test_the_p_value_is_the_binomial_tail(right: int, probes: int, people: int) -> None:
    p = Fraction(1, people)
    tail = sum(comb(probes, k) * p**k * (1 - p) ** (probes - k) for k in range(right, probes + 1))
    found = Identified(right, probes, people)
    assert found.p_value == pytest.approx(float(tail), rel=1e-9)
    assert found.chance == pytest.approx(100 / people)


@pytest.mark.parametrize(("right", "low", "high"), [(0, 0.0, 27.7533), (5, 23.6593, 76.3407), (10, 72.2467, 100.0)])
def test_intervals_are_wilsons(right: int, low: float, high: float) -> None:
    """Of 10; the values are the roots of (p̂ − p)² = z²·p(1 − p)/n, solved by hand."""
    assert Identified(right, 10, 10).interval == pytest.approx((low, high), abs=1e-3)


def test_large_numbers_do_not_overflow() -> None:
    assert 0 <= Identified(60_000, 100_000, 2).p_value < 1e-300
    assert Identified(1, 1, 1).p_value == 1
    assert "9 of 100, rank-1 9.0 % (4.8 to 16.2), chance 1 %" in str(Identified(9, 100, 100))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_a_probe_is_right_where_its_own_person_is_nearest(metric: str) -> None:
    gallery = np.eye(6, dtype=np.float32)[:, :, None].repeat(2, 2)
    probes = gallery[[0, 1, 2, 4, 3, 5]] + 0.1
    probes[0] = np.nan  # somebody without features
    found = identity_check(probes, gallery, metric)
    assert (found.right, found.probes, found.people) == (3, 6, 6)
    assert identity_check(np.full_like(gallery, np.nan), gallery, metric).right == 0
