"""Is somebody's walk recognised among others: rank-1 of look-ups, beside what guessing gives."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gaitdiff.evaluation.metrics import distance_matrix
from gaitdiff.evaluation.ranking import Features

_Z = 1.959964  # of a two-sided interval of 95 %


@dataclass(frozen=True)
class Identified:
    """Look-ups of one probe each among so many people, one walk each.

    Attributes:
        right: probes whose nearest walk is the right person's.
        probes: how many were looked up.
        people: how many they were looked up among.
    """

    right: int
    probes: int
    people: int

    @property
    def rank1(self) -> float:
        """Percent of the probes."""
        return 100.0 * self.right / self.probes

    @property
    def chance(self) -> float:
        """Percent that guessing gets right on average."""
        return 100.0 / self.people

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of rank-1, in percent (Wilson 1927)."""
        n, share = self.probes, self.right / self.probes
        middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        half = _Z / (1 + _Z**2 / n) * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
        return 100.0 * max(middle - half, 0.0), 100.0 * min(middle + half, 1.0)

    @property
    def p_value(self) -> float:
        """Probability that guessing gets as many right or more: one-sided, binomial."""
        n, p = self.probes, 1.0 / self.people
        if p == 1.0 or self.right == 0:
            return 1.0
        logs = (
            math.lgamma(n + 1)
            - math.lgamma(k + 1)
            - math.lgamma(n - k + 1)
            + k * math.log(p)
            + (n - k) * math.log1p(-p)
            for k in range(self.right, n + 1)
        )
        return min(math.fsum(map(math.exp, logs)), 1.0)

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{self.right:,} of {self.probes:,}, rank-1 {self.rank1:.1f} % ({low:.1f} to {high:.1f}), "
            f"chance {self.chance:.2g} %, p = {self.p_value:.2g}"
        )


def identity_check(probes: Features, gallery: Features, metric: str = "cosine") -> Identified:
    """Look each probe up among one walk of each person.

    Args:
        probes: (N, C, P), the features of person 0, 1, … of the gallery; NaN for one that has no features, which is
            never right.
        gallery: (N, C, P), one walk of each of them.
        metric: ``"cosine"`` or ``"euclidean"``.

    Raises:
        UserError: see ``distance_matrix``.
    """
    found = np.asarray(probes)
    some = np.flatnonzero(np.isfinite(found).all((1, 2)))
    nearest = distance_matrix(found[some], gallery, metric).argmin(1).cpu().numpy()
    return Identified(int((nearest == some).sum()), len(found), len(gallery))
