"""Convolutions that go around errors of torch's CPU library, oneDNN: the same numbers as torch's own layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PointwiseConv2d(nn.Conv2d):
    """A 1x1 convolution without bias that takes its stride before it convolves: the same numbers as ``nn.Conv2d``.

    Given the stride, torch's CPU library reads and writes beyond its buffers in the weight gradient where the input has
    fewer channels than a vector register (oneDNN issue 6035): gradients are wrong, or the process ends.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__(in_channels, channels, 1, stride, bias=False)

    def forward(self, frames: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C', ⌈H/s⌉, ⌈W/s⌉)."""
        down, right = self.stride
        return F.conv2d(frames[:, :, ::down, ::right], self.weight)


class ClipConv3d(nn.Conv3d):
    """A convolution over three frames, without bias, that keeps the length: the same numbers as ``nn.Conv3d``.

    Args:
        in_channels, channels: widths.
        size: height and width of the kernel, 1 or 3.
        stride: over height and width.

    Of clips of one or two frames, torch's CPU library leaves numbers of bfloat16 unwritten on processors with
    AVX-512-BF16 (torch 2.13, oneDNN 3.12): of one frame the output, of two the weight gradient is what lay in memory.
    So a clip that is shorter than the kernel gets its frames of zeros beforehand.
    """

    def __init__(self, in_channels: int, channels: int, size: int = 3, stride: int = 1) -> None:
        edge = size // 2
        super().__init__(in_channels, channels, (3, size, size), (1, stride, stride), (1, edge, edge), bias=False)
        self.edge = edge

    def forward(self, clips: Tensor) -> Tensor:
        """(B, C, T, H, W) → (B, C', T, ⌈H/s⌉, ⌈W/s⌉)."""
        if not _in_half(clips) or clips.shape[2] >= 3:  # an exported model asks for no length
            return super().forward(clips)
        padded = F.pad(clips, (0, 0, 0, 0, 1, 1))
        return F.conv3d(padded, self.weight, None, self.stride, (0, self.edge, self.edge))


def _in_half(values: Tensor) -> bool:
    """Whether a CPU convolves them in bfloat16."""
    half = values.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")
    return half and values.device.type == "cpu"
