"""Convolutions and pooling around what torch's libraries do wrongly or slowly: the same numbers as its own layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FirstConv2d(nn.Conv2d):
    """A convolution without bias of frames, which have one channel: the same numbers as ``nn.Conv2d``.

    In half precision a GPU's library computes as if there were eight channels; a matrix product over the windows that
    the kernel sees has a fifth of that work, a third with kernels of 3.
    """

    def __init__(self, channels: int, size: int, stride: int = 1) -> None:
        super().__init__(1, channels, size, stride, padding=size // 2, bias=False)

    def forward(self, frames: Tensor) -> Tensor:
        """(N, 1, H, W) → (N, C, ⌈H/s⌉, ⌈W/s⌉)."""
        if frames.device.type != "cuda" or not torch.is_autocast_enabled("cuda") or self.stride != (1, 1):
            return super().forward(frames)
        return by_windows(frames.to(torch.get_autocast_dtype("cuda")), self.weight)


def by_windows(frames: Tensor, weight: Tensor) -> Tensor:
    """Convolve frames (N, 1, H, W) by a weight (C, 1, k, k), k odd, in a matrix product: (N, C, H, W)."""
    size = weight.shape[-1]
    spare = -size % 8  # columns of zeros: rows of windows begin where a GPU reads fast
    edge = size // 2
    padded = F.pad(frames[:, 0], (edge, edge + spare, edge, edge))
    windows = padded.unfold(1, size, 1).unfold(2, size + spare, 1)  # (N, H, W, k, k + spare)
    return F.linear(windows.flatten(3), F.pad(weight[:, 0], (0, spare)).flatten(1)).permute(0, 3, 1, 2)


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


def halve_by_maxima(frames: Tensor) -> Tensor:
    """Pool (N, C, H, W) → (N, C, ⌊H/2⌋, ⌊W/2⌋) by 2x2 maxima: the same numbers as ``F.max_pool2d``.

    On a CPU torch notes where each maximum was, which gradients alone need, and converts half precision number by
    number; without gradients maxima of rows, and then of columns, take a fifth to three quarters of the time.
    """
    learns = torch.is_grad_enabled() and frames.requires_grad
    if learns or frames.device.type != "cpu" or torch.compiler.is_compiling():
        return F.max_pool2d(frames, 2)
    height, width = frames.shape[2] // 2 * 2, frames.shape[3] // 2 * 2
    rows = torch.maximum(frames[:, :, 0:height:2], frames[:, :, 1:height:2])
    return torch.maximum(rows[..., 0:width:2], rows[..., 1:width:2])


class HalvingMaxPool2d(nn.Module):
    """``halve_by_maxima`` as a layer."""

    def forward(self, frames: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, ⌊H/2⌋, ⌊W/2⌋)."""
        return halve_by_maxima(frames)


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
