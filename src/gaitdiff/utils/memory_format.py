"""How frames and convolutions' weights lie in memory, so that convolutions copy nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def as_images(frames: Tensor) -> Tensor:
    """(N, H, W) → (N, 1, H, W), images whose channels lie together, as convolutions like them."""
    # Permuted, not merely contiguous: one channel fits both layouts, and convolutions would answer in the other.
    return frames.unsqueeze(3).contiguous().permute(0, 3, 1, 2)


def channels_last(module: nn.Module) -> None:
    """Lay the weights of 2-D convolutions out as the frames come."""
    for weight in module.parameters():
        if weight.ndim == 4:
            # A 1x1 kernel fits both layouts: contiguous() would keep its strides, which its gradient has not.
            weight.data = weight.data.clone(memory_format=torch.channels_last)
