"""The denoiser's attentions: over frames, with turned queries and keys and a learned bias, and over positions.

Every tensor is laid out as in ``gaitdiff.diffusion.denoiser``: (T, B, H, W, C).
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class TemporalContext:
    """What all temporal attentions of one forward pass share."""

    bias: Tensor  # (heads, T, T), added to the attention scores
    rotation: Tensor  # (T, d, d), by which each frame's queries and keys are turned: y = x·rotation

    def project_turned(self, tokens: Tensor, weight: Tensor) -> Tensor:
        """Project (T, N, C) by a weight (heads·d, C), and turn each head by its frame's angles: (T, N, heads·d).

        A rotation is linear: it can be done to the weight as well, which is cheaper where tokens outnumber channels.
        """
        T, N, C = tokens.shape
        d = self.rotation.shape[-1]
        if N < C:
            return (F.linear(tokens, weight).view(T, -1, d) @ self.rotation).view(T, N, -1)
        return tokens @ (weight.t().reshape(-1, d) @ self.rotation).view(T, C, -1)


def kept_in_half(x: Tensor) -> AbstractContextManager[object]:
    """A context in which norms and softmaxes of half precision give half precision; they add up in float32 anyway.

    Autocast has them give float32, twice the memory to go through.
    """
    return torch.autocast(x.device.type, enabled=False) if x.dtype.itemsize < 4 else nullcontext()


def softmax(x: Tensor, dim: int) -> Tensor:
    """Softmax in the type of ``x``, whose sums are float32 at least."""
    with kept_in_half(x):
        return x.softmax(dim)


class PreNorm(nn.Module):
    """Layer normalisation over the channels, computed in float32 at least, with a gain and no bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(…, C) → the same shape and type."""
        with kept_in_half(x):
            return F.layer_norm(x, self.gamma.shape, self.gamma.to(x.dtype), eps=1e-5)


class Attention(nn.Module):
    """What the three attentions share: pre-norm, projections without bias, and the way back to the channels."""

    def __init__(self, channels: int, heads: int, head_dim: int, out_bias: bool = False) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.norm = PreNorm(channels)
        self.qkv = nn.Linear(channels, 3 * heads * head_dim, bias=False)
        self.out = nn.Linear(heads * head_dim, channels, bias=out_bias)

    def per_frame(self, x: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values of each frame's positions, each (T·B, heads, HW, d)."""
        tokens = self.norm(x).flatten(2, 3).flatten(0, 1)  # (T·B, HW, C)
        projected = (F.linear(tokens, w) for w in self.qkv.weight.chunk(3))
        return tuple(y.unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2) for y in projected)


class TemporalAttention(Attention):
    """Residual attention over the frames, at each position by itself, with rotary angles and a position bias."""

    def forward(self, x: Tensor, context: TemporalContext) -> Tensor:
        """Features (T, B, H, W, C) → the same shape."""
        T, B, H, W, _ = x.shape
        tokens = self.norm(x).flatten(1, 3)  # (T, BHW, C)
        wq, wk, wv = self.qkv.weight.chunk(3)
        if T == 1:  # a frame by itself attends to itself, whatever its scores; they stay part of the graph, for DDP
            y = F.linear(tokens, wv) + 0.0 * context.bias.sum().to(tokens.dtype)
            return x + self.out(y).reshape(x.shape)
        q = context.project_turned(tokens, wq * self.head_dim**-0.5)
        k = context.project_turned(tokens, wk)
        v = F.linear(tokens, wv)
        # Views (BHW, heads, T, d): positions and heads are one batch axis, no copies.
        q, k, v = (y.unflatten(-1, (self.heads, self.head_dim)).permute(1, 2, 0, 3) for y in (q, k, v))
        y = attend(q, k, v, context.bias)
        return x + self.out(y.permute(2, 0, 1, 3).reshape(T, B, H, W, -1))


class SpatialAttention(Attention):
    """Residual full attention over the positions of each frame."""

    def forward(self, x: Tensor) -> Tensor:
        """Features (T, B, H, W, C) → the same shape."""
        q, k, v = self.per_frame(x)
        y = F.scaled_dot_product_attention(q, k, v)  # (T·B, heads, HW, d)
        return x + self.out(y.transpose(1, 2).reshape(*x.shape[:-1], -1))


class LinearSpatialAttention(Attention):
    """Residual attention over the positions of each frame in linear time (Shen et al. 2021)."""

    def __init__(self, channels: int, heads: int, head_dim: int) -> None:
        super().__init__(channels, heads, head_dim, out_bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """Features (T, B, H, W, C) → the same shape."""
        q, k, v = self.per_frame(x)
        found = softmax(k, dim=-2).transpose(-1, -2) @ v  # (T·B, heads, d, d)
        y = softmax(q, dim=-1) @ (found * self.head_dim**-0.5)  # (T·B, heads, HW, d)
        return x + self.out(y.transpose(1, 2).reshape(*x.shape[:-1], -1))


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """softmax(q·kᵀ + bias)·v over (…, T, d), with q already scaled.

    Plain products: no kernel is fused for a bias that learns, and what stands in for one computes in float32.
    """
    return softmax(q @ k.transpose(-1, -2) + bias.to(q.dtype), dim=-1) @ v


class RelativePositionBias(nn.Module):
    """A learned bias per head for each pair of frames, by their distance in T5's buckets (Raffel et al. 2020).

    Half the buckets are for frames at or before the query, half for frames behind it; in each half, the first half
    counts single frames, and the rest grow logarithmically up to ``max_distance``.
    """

    def __init__(self, heads: int, buckets: int = 32, max_distance: int = 32) -> None:
        super().__init__()
        self.buckets, self.max_distance = buckets, max_distance
        self.table = nn.Parameter(torch.randn(buckets, heads))

    def forward(self, positions: Tensor) -> Tensor:
        """(T,) integer positions → (heads, T, T), query by key."""
        ahead = positions[None, :] - positions[:, None]  # key − query
        return self.table[self.bucket(ahead)].permute(2, 0, 1)

    def bucket(self, ahead: Tensor) -> Tensor:
        """Bucket number of each signed distance."""
        half = self.buckets // 2
        single = half // 2
        distance = ahead.abs()
        growth = torch.log(distance.clamp(min=1) / single) / math.log(self.max_distance / single)
        coarse = (single + (growth * (half - single)).long()).clamp(max=half - 1)
        return torch.where(distance < single, distance, coarse) + half * (ahead > 0)
