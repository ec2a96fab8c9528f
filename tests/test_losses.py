"""Losses against golden numbers and brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gaitdiff.losses import cross_entropy, triplet_loss, triplet_terms
from reference import golden_arrays, golden_document

TRIPLETS = ["normal", "tight", "collapsed", "wide_margin", "duplicate_row"]
ENTROPIES = ["scale16_smooth", "scale16_plain", "scale1_plain", "scale1_smooth"]


@pytest.mark.parametrize("case", TRIPLETS)
def test_triplet_equals_the_reference(case: str) -> None:
    arrays, want = golden_arrays("losses"), golden_document("losses")[f"triplet/{case}"]
    embedding = torch.from_numpy(arrays[f"triplet/{case}/embeddings"]).requires_grad_()
    labels = torch.from_numpy(arrays["labels"])
    terms = triplet_terms(embedding, labels, want["margin"], "euclidean")
    terms.loss.mean().backward()
    assert terms.loss.mean().item() == pytest.approx(want["loss_float64"], abs=1e-4)
    assert terms.violated.tolist() == want["nonzero_triplets_per_part"]
    assert terms.hardest.tolist() == pytest.approx(want["hard_loss_per_part"], abs=5e-3)
    assert terms.mean_distance.tolist() == pytest.approx(want["mean_distance_per_part"], rel=1e-4)
    assert embedding.grad.norm().item() == pytest.approx(want["grad_norm_float64"], rel=1e-4)
    grad = arrays[f"triplet/{case}/grad_float64"]
    assert np.abs(embedding.grad.numpy() - grad).max() < 1e-3 * np.abs(grad).max()


@pytest.mark.parametrize("case", ENTROPIES)
def test_cross_entropy_equals_the_reference(case: str) -> None:
    arrays, want = golden_arrays("losses"), golden_document("losses")[f"cross_entropy/{case}"]
    logits = torch.from_numpy(arrays[f"cross_entropy/{case}/logits"]).requires_grad_()
    loss = cross_entropy(logits, torch.from_numpy(arrays["labels"]), want["scale"], want["label_smoothing"])
    loss.backward()
    assert loss.item() == pytest.approx(want["loss"], rel=1e-5)
    assert logits.grad.norm().item() == pytest.approx(want["grad_norm"], rel=1e-4)


def brute_force(embedding: np.ndarray, labels: list[int], margin: float, distance: str) -> float:
    """The definition, triplet by triplet."""
    losses = []
    for part in range(embedding.shape[2]):
        x = embedding[:, :, part].astype(float)
        terms = []
        for a in range(len(x)):
            for p in range(len(x)):
                for n in range(len(x)):
                    if labels[p] == labels[a] != labels[n]:

                        def d(i: int, j: int, x: np.ndarray = x) -> float:
                            if distance == "cosine":
                                return 1 - x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j])
                            return float(np.linalg.norm(x[i] - x[j]))

                        terms.append(max(0.0, d(a, p) - d(a, n) + margin))
        nonzero = [t for t in terms if t > 0]
        losses.append(sum(nonzero) / len(nonzero) if nonzero else 0.0)
    return float(np.mean(losses))


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_triplet_equals_brute_force_for_unequal_identities(distance: str) -> None:
    rng = np.random.default_rng(0)
    labels = [0, 0, 0, 1, 2, 2, 7]
    embedding = rng.normal(size=(7, 5, 3)).astype(np.float32)
    ours = triplet_loss(torch.from_numpy(embedding), torch.tensor(labels), 0.2, distance)  # type: ignore[arg-type]
    assert ours.item() == pytest.approx(brute_force(embedding, labels, 0.2, distance), rel=1e-5)


def test_gradient_is_finite_where_rows_coincide() -> None:
    embedding = torch.ones(4, 3, 2, requires_grad=True)
    for distance in ("euclidean", "cosine"):
        triplet_loss(embedding, torch.tensor([0, 0, 1, 1]), 0.2, distance).backward()  # type: ignore[arg-type]
        assert embedding.grad.isfinite().all()


def test_unknown_distance_is_refused() -> None:
    with pytest.raises(ValueError, match="euclidean"):
        triplet_loss(torch.ones(2, 3, 1), torch.tensor([0, 1]), 0.2, "manhattan")  # type: ignore[arg-type]
