"""Layers that gait backbones and heads share: temporal and horizontal pooling, part-wise maps, the BN neck.

Shapes use the field's letters: B sequences, T frames, C channels, H, W, P parts (horizontal strips), K identities.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitdiff.utils.memory_format import as_images


def image_frames(clip: Tensor) -> Tensor:
    """(B, T, H, W) → (B·T, 1, H, W), frames as images."""
    return as_images(clip.flatten(0, 1))


def temporal_max(frames: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
    """Maximum over the frames of each sequence.

    Args:
        frames: (B, T, ...), or (1, ΣT, ...) with sequences laid end to end.
        lengths: frames of each sequence of the packed form.

    Returns:
        (B, ...); with ``lengths`` one row a length.
    """
    if lengths is None:
        return _max_over_frames(frames)
    spans = frames.split(list(lengths), dim=1)
    return torch.cat([_max_over_frames(span) for span in spans])


def _max_over_frames(frames: Tensor) -> Tensor:
    """Maximum over dimension 1, taken in the order the numbers lie in memory: on a CPU several times as fast."""
    if torch.compiler.is_compiling():
        return frames.amax(dim=1)
    lying = sorted(range(2, frames.ndim), key=frames.stride, reverse=True)
    best = frames.permute(0, 1, *lying).amax(dim=1)
    return best.permute(0, *(lying.index(i) + 1 for i in range(2, frames.ndim)))


class HorizontalPooling(nn.Module):
    """Horizontal pyramid pooling: mean + max over ``b`` equal strips, for every ``b`` of ``bins``.

    Source: Fu et al. 2019, "Horizontal Pyramid Matching for Person Re-identification".
    """

    def __init__(self, bins: Sequence[int]) -> None:
        super().__init__()
        self.bins = tuple(bins)
        self.parts = sum(self.bins)

    def forward(self, planes: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, P) with P the sum of the bins."""
        rows = planes.permute(0, 2, 3, 1).flatten(1, 2)  # (B, H·W, C): so lie the numbers, and so will their gradients
        strips = [rows.unflatten(1, (b, -1)) for b in self.bins]  # (B, b, H·W/b, C)
        return torch.cat([strip.mean(2) + strip.amax(2) for strip in strips], dim=1).transpose(1, 2)


class PartLinear(nn.Module):
    """A bias-free linear map of its own for each part: y[:, :, p] = x[:, :, p] @ weight[p]."""

    def __init__(self, parts: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(parts, in_channels, out_channels))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x: Tensor, normalize: bool = False) -> Tensor:
        """(B, C, P) → (B, C', P); ``normalize`` gives every column of the weight unit length first."""
        weight = F.normalize(self.weight, dim=1) if normalize else self.weight
        return torch.matmul(x.permute(2, 0, 1), weight).permute(1, 2, 0)


class PartBNNeck(nn.Module):
    """BatchNorm over all C·P columns, unit length per part, then a cosine classifier per part.

    Source: Luo et al. 2019, "Bag of Tricks and a Strong Baseline for Deep Person Re-identification", part-wise.
    """

    def __init__(self, parts: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(parts * channels)
        self.classifier = PartLinear(parts, channels, num_classes) if num_classes else None

    def forward(self, embedding: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, C, P) → the normalised feature (B, C, P) and logits (B, K, P), None without classes."""
        feature = F.normalize(self.norm(embedding.flatten(1)).view_as(embedding), dim=1)
        logits = self.classifier(feature, normalize=True) if self.classifier is not None else None
        return feature, logits


def initialize(module: nn.Module) -> None:
    """Initialise as the field's toolbox does, so that training from scratch starts alike.

    Xavier uniform for convolutions and linear layers, zero biases, BatchNorm weights from N(1, 0.02). A part-wise
    map initialises itself (Xavier uniform over its whole (P, C, C') tensor).
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) and layer.affine:
            if not layer.weight.is_meta:  # of those without numbers torch asks its compiler, a second's import
                nn.init.normal_(layer.weight, 1.0, 0.02)
            nn.init.zeros_(layer.bias)
