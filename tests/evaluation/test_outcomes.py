"""Differences between runs, from what they score person by person."""

from __future__ import annotations

import numpy as np
import pytest

from gaitdiff.errors import UserError
from gaitdiff.evaluation.outcomes import Outcome, difference


def test_the_interval_of_a_difference() -> None:
    """Two people with one probe each seed and a known gain: mean and spread as the normal law has them."""
    rng = np.random.default_rng(0)
    probes, none = [4] * 300, [0.0] * 300
    pairs = []
    for _ in range(3):
        first = rng.integers(0, 4, 300)
        pairs.append((Outcome(probes, first.tolist(), none), Outcome(probes, (first + 1).tolist(), none)))
    assert difference(pairs, "rank1") == pytest.approx((25.0, 25.0, 25.0))
    moved = rng.integers(-1, 2, 300)
    pairs = [(Outcome(probes, [2] * 300, none), Outcome(probes, (2 + moved).tolist(), none))]
    gain, low, high = difference(pairs, "rank1")
    error = 25.0 * moved.std() / np.sqrt(300)
    assert gain == pytest.approx(25.0 * moved.mean())
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.06)
    assert (high + low) / 2 == pytest.approx(gain, abs=0.2 * error)


def test_scores_of_other_probes_are_not_compared() -> None:
    with pytest.raises(UserError, match="cannot be compared"):
        difference([(Outcome([3], [1], [0.5]), Outcome([2], [1], [0.5]))], "rank1")
