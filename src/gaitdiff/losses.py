"""Losses of stage 2: batch-all triplet on part embeddings, and part-wise cross-entropy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Distance = Literal["euclidean", "cosine"]


@dataclass
class TripletTerms:
    """The batch-all triplet loss and what is worth watching of it, per part (P,).

    Attributes:
        loss: mean over the violated triplets, 0 where there are none.
        violated: number of violated triplets.
        hardest: the largest violation.
        mean_distance: mean over all n x n distances.
    """

    loss: Tensor
    violated: Tensor
    hardest: Tensor
    mean_distance: Tensor


def pairwise_distance(x: Tensor, distance: Distance) -> Tensor:
    """Distances between all pairs of rows, per part.

    Args:
        x: (B, C, P).
        distance: ``"euclidean"`` or ``"cosine"`` (1 - cosine similarity).

    Returns:
        (P, B, B), float32. Euclidean distances have gradient 0, not infinity, where two rows coincide.
    """
    rows = x.permute(2, 0, 1).float()  # (P, B, C)
    if distance == "cosine":
        rows = F.normalize(rows, dim=2)
        return 1.0 - rows @ rows.mT
    if distance != "euclidean":
        raise ValueError(f"distance must be 'euclidean' or 'cosine', not {distance!r}")
    norms = rows.square().sum(2)
    squared = norms[:, :, None] + norms[:, None, :] - 2.0 * rows @ rows.mT
    positive = squared > 0
    return torch.where(positive, squared, 1.0).sqrt() * positive


def triplet_terms(embedding: Tensor, labels: Tensor, margin: float, distance: Distance) -> TripletTerms:
    """Batch-all triplet loss per part: mean of max(0, d(a, p) - d(a, n) + margin) over its non-zero terms.

    An anchor counts as its own positive, as in the field's reference. Identities may occur unequally often. Memory
    is bounded by P · n · n · (most rows of one identity).

    Args:
        embedding: (n, C, P).
        labels: (n,) integers.
    """
    gaps = pairwise_distance(embedding, distance)  # (P, n, n)
    same = labels[:, None] == labels[None, :]  # (n, n)
    most = int(same.sum(1).max())
    # Positives of each anchor first, padded to the most that any anchor has: (n, most).
    padded, order = torch.topk(same.to(torch.uint8), most, dim=1)
    valid = padded.bool()[:, :, None] & ~same[:, None, :]  # (n, most, n)
    to_positive = gaps.gather(2, order.expand(len(gaps), -1, -1))  # (P, n, most)
    violation = F.relu(to_positive[..., None] - gaps[:, :, None, :] + margin) * valid
    violated = (violation > 0).sum((1, 2, 3))
    return TripletTerms(
        loss=violation.sum((1, 2, 3)) / violated.clamp(min=1),
        violated=violated,
        hardest=violation.detach().amax((1, 2, 3)),
        mean_distance=gaps.detach().mean((1, 2)),
    )


def triplet_loss(embedding: Tensor, labels: Tensor, margin: float = 0.2, distance: Distance = "euclidean") -> Tensor:
    """Batch-all triplet loss, mean over parts; a scalar. See ``triplet_terms``.

    The paper trains on ``distance="cosine"``, the field's reference on ``"euclidean"``.
    """
    return triplet_terms(embedding, labels, margin, distance).loss.mean()


def cross_entropy(logits: Tensor, labels: Tensor, scale: float = 16.0, smoothing: float = 0.1) -> Tensor:
    """Label-smoothed cross-entropy of ``scale · logits``, mean over sequences and parts; a scalar.

    Args:
        logits: (n, K, P).
        labels: (n,) integers in 0..K-1.
    """
    target = labels[:, None].expand(-1, logits.shape[2])
    return F.cross_entropy(logits.float() * scale, target, label_smoothing=smoothing)
