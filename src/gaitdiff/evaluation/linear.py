"""Closed-form linear maps of features: what of who walks is in them, beside what their distances show as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gaitdiff.errors import NotFiniteError
from gaitdiff.evaluation.metrics import first_not_finite

#: Directions that are kept at most.
_MOST = 256
#: Below any spread or variance: where all features are alike there is none, and a map is finite all the same.
_SMALLEST = 1e-12


@dataclass(frozen=True)
class LinearMap:
    """Features, each part of unit length, less a mean and times a matrix.

    Attributes:
        mean: (C·P,) float64.
        matrix: (C·P, k) float64.
    """

    mean: Tensor
    matrix: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """(N, C, P) → (N, k, 1) float32, for ``evaluate``."""
        return ((unit_rows(features) - self.mean) @ self.matrix).float().unsqueeze(2)


def whitening(features: Tensor, floor: float = 0.05) -> LinearMap:
    """PCA whitening, which needs no labels: every direction counts alike, however few walks differ in it.

    Args:
        features: (N, C, P) of walks to learn from.
        floor: added to each direction's standard deviation, as a share of the largest one, so that noise stays small.

    Raises:
        UserError: features that are not finite.
    """
    mean, directions, spread = _principal(features)
    return LinearMap(mean, directions / (spread + floor * spread[0]).clamp(min=_SMALLEST))


def discriminant(features: Tensor, labels: Sequence[str], floor: float = 0.02) -> LinearMap:
    """Linear discriminant analysis: directions scaled by how much one person's walks differ in them.

    What a linear head could make of the features at best, near enough: an upper bound to compare raw features with.

    Args:
        features: (N, C, P) of walks to learn from.
        labels: N people.
        floor: added to the variance within people, as a share of its mean.

    Raises:
        UserError: features that are not finite.

    Source: Fisher 1936, "The Use of Multiple Measurements in Taxonomic Problems".
    """
    mean, directions, _ = _principal(features)
    within = less_means((unit_rows(features) - mean) @ directions, labels)
    scatter = within.T @ within / len(within)
    scatter += floor * scatter.diagonal().mean().clamp(min=_SMALLEST) * torch.eye(len(scatter), dtype=torch.double)
    return LinearMap(mean, directions @ torch.linalg.cholesky(torch.linalg.inv(scatter)))


def less_means(rows: Tensor, labels: Sequence[str]) -> Tensor:
    """Rows (N, k) less the mean row of those with the same of N labels."""
    _, group = np.unique(np.asarray(labels), return_inverse=True)
    member = F.one_hot(torch.from_numpy(group)).to(rows.dtype)  # (N, groups)
    return rows - member @ ((member.T @ rows) / member.sum(0)[:, None])


def _principal(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, principal directions (C·P, k) and the standard deviations along them."""
    bad = first_not_finite(features)
    if bad is not None:
        raise NotFiniteError(f"feature {bad} is not finite: the model that made it is broken")
    rows = unit_rows(features)
    mean = rows.mean(0)
    _, spread, directions = torch.linalg.svd(rows - mean, full_matrices=False)
    count = min(_MOST, max(1, int((spread > spread[0] * 1e-5).sum())), len(spread))  # one even where all are alike
    return mean, directions[:count].T, spread[:count] / len(rows) ** 0.5


def unit_rows(features: Tensor) -> Tensor:
    """(N, C, P) → (N, C·P) in double precision, each part of unit length."""
    return F.normalize(features.double(), dim=1).flatten(1)
