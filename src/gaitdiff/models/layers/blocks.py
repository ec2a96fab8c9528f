"""The backbone of GaitBase and DeepGaitV2, and its blocks: on frames one by one, with a convolution over time, in 3-D.

Blocks take and give frames as images, (B·T, C, H, W) with channels last: in memory that is (B, T, H, W, C), so that
convolutions over time look at the same numbers as (B, C, T, H, W) and nothing is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from gaitdiff.models.base import Backbone
from gaitdiff.models.layers.convolution import ClipConv3d, FirstConv2d, PointwiseConv2d
from gaitdiff.models.layers.norm import FrameNorm
from gaitdiff.models.layers.parts import HorizontalPooling, image_frames, initialize, temporal_max
from gaitdiff.models.registry import Rules
from gaitdiff.utils.memory_format import channels_last

#: (in_channels, channels, stride) → block
BlockMaker = Callable[[int, int, int], "ResidualBlock"]


class ResidualBlock(nn.Module):
    """Two steps and a skip path: the identity, or a 1x1 convolution where stride or width change.

    Source: He et al. 2016, "Deep Residual Learning for Image Recognition".
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            conv = PointwiseConv2d(in_channels, channels, stride)
            self.skip = nn.Sequential(conv, FrameNorm(channels))

    def forward(self, frames: Tensor, length: int) -> Tensor:
        """(B·T, C, H, W) → (B·T, C', H', W') with T = ``length``."""
        raise NotImplementedError


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions on each frame."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__(in_channels, channels, stride)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = FrameNorm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = FrameNorm(channels)

    def forward(self, frames: Tensor, length: int) -> Tensor:
        """Frames (B·T, C, H, W) → (B·T, C', H', W') with T = ``length``."""
        seen = F.relu_(self.bn1(self.conv1(frames)))
        return F.relu_(self.bn2(self.conv2(seen)).add_(self.skip(frames)))


class P3DBlock(BasicBlock):
    """Between its two 3x3 convolutions the frames of a moment meet: a residual convolution over three frames.

    Source: Qiu et al. 2017, "Learning Spatio-Temporal Representation with Pseudo-3D Residual Networks".
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__(in_channels, channels, stride)
        self.conv_time = ClipConv3d(channels, channels, size=1)
        self.bn_time = FrameNorm(channels)

    def forward(self, frames: Tensor, length: int) -> Tensor:
        """Frames (B·T, C, H, W) → (B·T, C', H', W') with T = ``length``."""
        seen = F.relu_(self.bn1(self.conv1(frames)))
        moved = F.relu_(self.bn_time(over_time(self.conv_time, seen, length)).add_(seen))
        return F.relu_(self.bn2(self.conv2(moved)).add_(self.skip(frames)))


class Conv3dBlock(ResidualBlock):
    """Two 3x3x3 convolutions; strides are spatial only."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__(in_channels, channels, stride)
        self.conv1 = ClipConv3d(in_channels, channels, stride=stride)
        self.bn1 = FrameNorm(channels)
        self.conv2 = ClipConv3d(channels, channels)
        self.bn2 = FrameNorm(channels)

    def forward(self, frames: Tensor, length: int) -> Tensor:
        """Frames (B·T, C, H, W) → (B·T, C', H', W') with T = ``length``."""
        seen = F.relu_(self.bn1(over_time(self.conv1, frames, length)))
        return F.relu_(self.bn2(over_time(self.conv2, seen, length)).add_(self.skip(frames)))


class Stage(nn.ModuleList):
    """Blocks one after the other; the first carries the stride and the change of width."""

    def __init__(self, make: BlockMaker, in_channels: int, channels: int, stride: int, blocks: int) -> None:
        super().__init__(
            [make(in_channels, channels, stride), *(make(channels, channels, 1) for _ in range(blocks - 1))]
        )

    def forward(self, frames: Tensor, length: int) -> Tensor:
        """(B·T, C, H, W) → (B·T, C', H', W') with T = ``length``."""
        for block in self:
            frames = block(frames, length)
        return frames


class ResidualBackbone(Backbone):
    """A 3x3 convolution on binary frames, residual stages, maximum over time, strips.

    With convolutions over time (p3d, 3d) a packed sequence sees the frames of its neighbours, as in the field's
    reference: the packed form is there for equality with it; batches for training and evaluation hold equal lengths.
    """

    def __init__(
        self,
        makers: Sequence[BlockMaker],
        channels: Sequence[int],
        strides: Sequence[int],
        layers: Sequence[int],
        parts: int,
    ) -> None:
        """The blocks, width, stride and number of blocks of each stage; the stem has the width of the first."""
        super().__init__()
        self.packs = all(make is BasicBlock for make in makers)
        self.sampling = "unordered" if self.packs else "ordered"
        self.stem = nn.Sequential(FirstConv2d(channels[0], 3), FrameNorm(channels[0]), nn.ReLU(inplace=True))
        before = (channels[0], *channels[:-1])
        stages = zip(makers, before, channels, strides, layers, strict=True)
        self.stages = nn.ModuleList([Stage(*stage) for stage in stages])
        self.pool = HorizontalPooling((parts,))
        self.channels, self.parts = channels[-1], parts
        initialize(self)
        channels_last(self)

    def forward(self, clip: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """Clip (B, T, H, W), or packed (1, ΣT, H, W) with ``lengths`` → feature (B, C, P)."""
        frames = self.stem(image_frames(clip))  # (B·T, C1, H, W)
        for stage in self.stages:
            frames = stage(frames, clip.shape[1])
        return self.pool(temporal_max(frames.unflatten(0, clip.shape[:2]), lengths))  # (B, C, P)


def stage_names(number: int, layer: str) -> Rules:
    """OpenGait's names of a residual stage's weights."""
    return [
        (rf"backbone\.stages\.{number}\.(\d+)\.((?:conv|bn)[12]\.\w+)", rf"{layer}.\1.\2"),
        (rf"backbone\.stages\.{number}\.(\d+)\.skip\.(.+)", rf"{layer}.\1.downsample.\2"),
    ]


def over_time(conv: ClipConv3d, frames: Tensor, length: int) -> Tensor:
    """Apply a 3-D convolution, without change of length, to clips that lie frame after frame: (B·T, C, H, W)."""
    clips = frames.unflatten(0, (-1, length)).transpose(1, 2)  # (B, C, T, H, W)
    return conv(clips).transpose(1, 2).flatten(0, 1)
