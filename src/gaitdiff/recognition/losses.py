"""Losses of stage 2: batch-all triplet on part embeddings, and part-wise cross-entropy.

Both are computed in float32 (float64 for float64 input) whatever the autocast, and deterministic; the triplet loss is
differentiable once. On an accelerator nothing waits for the device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from gaitdiff.errors import UserError, nearest

Distance = Literal["euclidean", "cosine"]
DISTANCES: tuple[Distance, ...] = get_args(Distance)

#: On the CPU, comparing slot by slot is faster than sorting up to about this many rows of one identity.
_FEW_ROWS = 48


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
        x: (n, C, P).
        distance: ``"euclidean"`` or ``"cosine"`` (1 - cosine similarity; a zero row is at distance 1 of every row).

    Returns:
        (P, n, n), float32 or float64. The gradient is 0, not infinite, where two rows coincide or a row is zero.

    Raises:
        UserError: unknown distance, or x is not (n, C, P) or empty.
    """
    if distance not in DISTANCES:
        known = ", ".join(DISTANCES)
        raise UserError(f"there is no distance {distance!r}{nearest(distance, DISTANCES)}; known: {known}")
    if x.ndim != 3 or x.numel() == 0:
        raise UserError(f"embeddings must have the shape (n, C, P), none of them 0, not {tuple(x.shape)}")
    found: Tensor = _PairwiseDistance.apply(x, distance)
    return found


def triplet_terms(embedding: Tensor, labels: Tensor, margin: float, distance: Distance) -> TripletTerms:
    """Batch-all triplet loss per part: mean of max(0, d(a, p) - d(a, n) + margin) over its non-zero terms.

    An anchor counts as its own positive, as in the field's reference. Identities may occur unequally often; where all
    rows are of one identity there is no triplet, and the loss is 0. Memory is a few times P · n · n numbers.

    Args:
        embedding: (n, C, P).
        labels: (n,) integers.

    Raises:
        UserError: unknown distance, shapes that do not fit, or labels that are not integers.
    """
    gaps = pairwise_distance(embedding, distance)
    labels = _checked_labels(labels, embedding, "embeddings")
    loss, violated, hardest = _BatchAll.apply(gaps, labels[:, None] == labels[None, :], margin)
    return TripletTerms(loss, violated, hardest, mean_distance=gaps.detach().mean((1, 2)))


def triplet_loss(embedding: Tensor, labels: Tensor, margin: float = 0.2, distance: Distance = "cosine") -> Tensor:
    """Batch-all triplet loss, mean over parts; a scalar. See ``triplet_terms``.

    The paper trains on ``distance="cosine"``, the field's reference on ``"euclidean"``.
    """
    return triplet_terms(embedding, labels, margin, distance).loss.mean()


def cross_entropy(logits: Tensor, labels: Tensor, scale: float = 16.0, smoothing: float = 0.1) -> Tensor:
    """Label-smoothed cross-entropy of ``scale · logits``, mean over sequences and parts; a scalar.

    Args:
        logits: (n, K, P).
        labels: (n,) integers in 0..K-1.
        smoothing: share of the target that is spread evenly over all classes.

    Raises:
        UserError: shapes that do not fit, labels that are not integers, or (seen on the CPU only) outside the classes;
            smoothing that is no share.
    """
    if not 0 <= smoothing <= 1:
        raise UserError(f"smoothing is a share, from 0 to 1, not {smoothing}")
    if logits is None:
        raise UserError("there are no logits: the model never classifies, or was built without num_classes")
    if logits.ndim != 3 or logits.numel() == 0:
        raise UserError(f"logits must have the shape (n, classes, P), none of them 0, not {tuple(logits.shape)}")
    labels = _checked_labels(labels, logits, "logits")
    classes = logits.shape[1]
    if labels.device.type == "cpu" and (int(labels.min()) < 0 or int(labels.max()) >= classes):
        raise UserError(
            f"labels run from {int(labels.min())} to {int(labels.max())}, but the logits have the {classes} classes "
            f"0 to {classes - 1}: number the identities from 0, or build the model with more classes"
        )
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    rows = wide.permute(2, 0, 1).flatten(0, 1)  # (P·n, K); classes of our heads lie side by side in memory
    return F.cross_entropy(rows * scale, labels.long().repeat(logits.shape[2]), label_smoothing=smoothing)


def _checked_labels(labels: Tensor, rows: Tensor, what: str) -> Tensor:
    labels = torch.as_tensor(labels, device=rows.device)
    if labels.shape != (len(rows),):
        raise UserError(f"there are {len(rows)} {what} but labels of the shape {tuple(labels.shape)}: give one a row")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise UserError(f"labels must be integers, not {str(labels.dtype).removeprefix('torch.')}")
    return labels


def _once(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse to make a graph of a gradient; torch's once_differentiable takes it for a constant in silence, often."""

    @functools.wraps(backward)
    def checked(ctx: Any, *grads: Tensor) -> Any:
        if torch.is_grad_enabled():
            raise UserError("gradients of gaitdiff's losses cannot be differentiated again: leave out create_graph")
        return backward(ctx, *grads)

    return checked


class _PairwiseDistance(torch.autograd.Function):
    """(n, C, P) → (P, n, n); one batched matrix product each way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, distance: Distance) -> Tensor:
        ctx.distance, ctx.dtype = distance, x.dtype
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        # The same as permute(2, 0, 1), but PyTorch copies a matrix's transpose faster; no copy where x is such a view.
        rows = wide.flatten(0, 1).t().contiguous().unflatten(1, x.shape[:2])  # (P, n, C)
        gram = _product(rows, rows.mT)
        squares = gram.diagonal(dim1=1, dim2=2).clone()  # (P, n)
        if distance == "cosine":
            lengths = squares.sqrt()
            inverse = torch.where(lengths > 1e-12, lengths.reciprocal(), 0.0)
            gaps = gram.mul_(inverse[:, :, None]).mul_(inverse[:, None, :]).neg_().add_(1.0)
            ctx.save_for_backward(rows, gaps, inverse)
        else:
            gaps = gram.mul_(-2.0).add_(squares[:, :, None]).add_(squares[:, None, :]).clamp_(min=0).sqrt_()
            ctx.save_for_backward(rows, gaps)
        return gaps

    @staticmethod
    @_once
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        if ctx.distance == "cosine":
            # Of row i, with length |xᵢ|: Σⱼ wᵢⱼ (cosᵢⱼ xᵢ / |xᵢ|² - xⱼ / |xᵢ||xⱼ|), where w = grad + gradᵀ.
            rows, gaps, inverse = ctx.saved_tensors
            weights = grad + grad.mT
            own = (weights * (1.0 - gaps)).sum(2).mul_(inverse.square())
            weights.mul_(inverse[:, :, None]).mul_(inverse[:, None, :])
        else:
            # Σⱼ wᵢⱼ (xᵢ - xⱼ) / gapᵢⱼ, and nothing where the gap is 0.
            rows, gaps = ctx.saved_tensors
            half = gaps.square().clamp_(min=torch.finfo(gaps.dtype).tiny).reciprocal_().mul_(gaps).mul_(grad)
            weights = half + half.mT
            own = weights.sum(2)
        matrix = weights.neg_()
        matrix.diagonal(dim1=1, dim2=2).add_(own)
        return _product(matrix, rows).permute(1, 2, 0).to(ctx.dtype), None


class _BatchAll(torch.autograd.Function):
    """Distances (P, n, n) → loss, number violated and hardest violation, (P,) each.

    All of them, and the gradient, follow from one whole number for each distance: how many violated triplets it is in,
    positive where it is to a positive, negative where it is to a negative.
    """

    @staticmethod
    def forward(ctx: Any, gaps: Tensor, same: Tensor, margin: float) -> tuple[Tensor, Tensor, Tensor]:
        nothing = gaps.new_zeros(same.shape)
        negative = gaps + nothing.masked_fill(same, torch.inf)  # (P, n, n), infinite where to a positive
        # On an accelerator, looking at the labels would wait for the device.
        most = int(same.sum(1).max()) if gaps.is_cpu else len(same)
        if most <= _FEW_ROWS:
            counts = _counts_by_slot(gaps, negative, same, margin, most)
        else:
            counts = _counts_by_rank(gaps, same, margin)
        closest = negative.amin(2)  # (P, n), infinite for an anchor without negatives
        scratch = negative  # its memory: fresh one would cost the CPU as much as the arithmetic on it
        farthest = torch.add(gaps, nothing.masked_fill(~same, -torch.inf), out=scratch).amax(2)
        violated = torch.clamp(counts, min=0, out=scratch).sum(2).long().sum(1)  # float32 is exact row by row
        # An anchor's counts sum to 0: distances beyond its closest negative keep the digits that large ones would lose.
        beyond = torch.sub(gaps, closest.nan_to_num(posinf=0.0)[:, :, None], out=scratch)
        divisor = violated.clamp(min=1)
        loss = (beyond.mul_(counts).sum((1, 2)) / divisor + margin) * (violated > 0)
        hardest = (farthest + margin - closest).clamp_(min=0).amax(1)
        ctx.mark_non_differentiable(violated, hardest)
        ctx.save_for_backward(counts, divisor)
        return loss, violated, hardest

    @staticmethod
    @_once
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, None, None]:
        counts, divisor = ctx.saved_tensors
        return counts * (grad / divisor)[:, None, None], None, None


def _counts_by_slot(gaps: Tensor, negative: Tensor, same: Tensor, margin: float, most: int) -> Tensor:
    """Compare the first positive of every anchor with all its negatives at once, then the second, ..., to ``most``."""
    valid, columns = torch.topk(same.to(torch.uint8), most, dim=1)  # (n, most), positives first
    columns = columns.expand(len(gaps), -1, -1)
    reach = (gaps.gather(2, columns) + margin).masked_fill_(valid == 0, -torch.inf)  # (P, n, most)
    counts, beaten, of_positive = torch.zeros_like(gaps), torch.empty_like(gaps), torch.empty_like(reach)
    for slot in range(most):
        torch.gt(reach[:, :, slot, None], negative, out=beaten)  # 1.0 where violated
        of_positive[:, :, slot] = beaten.sum(2)
        counts -= beaten
    return counts.scatter_add_(2, columns, of_positive)


def _counts_by_rank(gaps: Tensor, same: Tensor, margin: float) -> Tensor:
    """Sort every anchor's negatives, and positives moved by the margin, together: who has passed whom?"""
    first = (~same).to(torch.uint8).argsort(dim=1, stable=True)  # positives first, so that they stay so in a tie
    reach = torch.where(same, gaps + margin, gaps).gather(2, first.expand_as(gaps))
    order = reach.argsort(dim=2, stable=True)
    columns = first.expand_as(order).gather(2, order)
    positive = same.expand_as(columns).gather(2, columns)
    passed = positive.cumsum(2)  # positives up to here
    rank = torch.arange(1, len(same) + 1, device=gaps.device)
    counts = torch.where(positive, rank - passed, passed - passed[:, :, -1:])
    return torch.empty_like(gaps).scatter_(2, columns, counts.to(gaps.dtype))


def _product(a: Tensor, b: Tensor) -> Tensor:
    """A batched matrix product in full precision: autocast leaves alone what is told where to write."""
    return torch.bmm(a, b, out=a.new_empty(len(a), a.shape[1], b.shape[2]))
