"""Whitening and linear discriminants on features whose right answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from gaitdiff.evaluation import evaluate
from gaitdiff.evaluation.linear import discriminant, whitening


def walks(people: int, each: int, view: float, seed: int) -> tuple[Tensor, list[str]]:
    """(N, 12, 2): six numbers of a person, and six of the view, which are ``view`` times as large."""
    rng = np.random.default_rng(seed)
    person = rng.standard_normal((people, 1, 6, 2)).repeat(each, 1)
    seen = view * rng.standard_normal((people, each, 1, 2)) * np.ones((1, 1, 6, 1))  # one direction
    noise = 0.2 * rng.standard_normal((people, each, 12, 2))
    features = np.concatenate([person, seen], axis=2) + noise
    return torch.from_numpy(features.reshape(-1, 12, 2)).float(), [f"p{i}" for i in range(people) for _ in range(each)]


def rank1(features: Tensor, labels: list[str]) -> float:
    nothing = [""] * len(labels)
    return float(evaluate("leave-one-out", features, labels, nothing, nothing)["rank1"])


def test_a_direction_that_says_nothing_of_who_walks_is_put_in_its_place() -> None:
    learned, people = walks(60, 4, view=2.0, seed=0)
    features, labels = walks(40, 4, view=2.0, seed=1)
    raw = rank1(features, labels)
    white = rank1(whitening(learned)(features), labels)
    linear = rank1(discriminant(learned, people)(features), labels)
    assert raw < 50
    assert white > raw + 15
    assert linear > white + 15


def test_whitened_features_have_equal_spread() -> None:
    rng = np.random.default_rng(2)
    features = torch.from_numpy(rng.standard_normal((500, 5, 2)) * np.array([9, 5, 3, 2, 1])[:, None])
    spread = torch.linalg.svdvals(whitening(features, floor=0.0)(features)[:, :, 0]) / 500**0.5
    # Parts of unit length have five numbers but four degrees of freedom each; the fifth varies all the same.
    assert torch.allclose(spread, torch.ones_like(spread), atol=1e-4)


def test_fewer_walks_than_numbers() -> None:
    features, labels = walks(3, 2, view=1.0, seed=3)
    wide = features.repeat(1, 40, 1)
    for made in (whitening(wide), discriminant(wide, labels)):
        assert torch.isfinite(made(wide)).all()
        assert made(wide).shape[1] <= 5


@pytest.mark.parametrize("features", [torch.zeros(4, 6, 2), torch.ones(4, 6, 2), torch.ones(1, 6, 2)])
def test_features_that_are_all_alike_give_finite_maps(features: Tensor) -> None:
    """As those of a backbone that has collapsed: its run goes on, and says so by its scores."""
    for made in (whitening(features), discriminant(features, ["a", "a", "b", "b"][: len(features)])):
        assert made(features).shape == (len(features), 1, 1)
        assert torch.isfinite(made(features)).all()
