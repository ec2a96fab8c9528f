"""GaitSet: frames as a set, pooled over time after every stage into a global branch beside the frames' own.

Source: Chao et al. 2019, "GaitSet: Regarding Gait as a Set for Cross-View Gait Recognition".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitdiff.errors import UserError
from gaitdiff.models.base import Backbone, GaitModel, Head, Sampling
from gaitdiff.models.layers.convolution import FirstConv2d, halve_by_maxima
from gaitdiff.models.layers.heads import PartHead
from gaitdiff.models.layers.parts import HorizontalPooling, image_frames, initialize, temporal_max
from gaitdiff.models.registry import OpenGaitNames, Rules, register_model
from gaitdiff.utils.memory_format import channels_last

_SLOPE = 0.01


@dataclass(frozen=True)
class GaitSetConfig:
    """Settings of GaitSet.

    Attributes:
        channels: widths of the three stages; OpenGait's form with the input's 1 in front is taken too.
        bins: strips of the horizontal pyramid, of which each of the two branches has one.
        embedding: channels of the part FCs.
        stem_stride: 2 lets the first convolution halve the frame in place of the first pooling: a quarter of the work,
            for the narrow preset.
        head_norm: BatchNorm without learned scale before the part FCs; not in the published model.
    """

    channels: tuple[int, ...] = (32, 64, 128)
    bins: tuple[int, ...] = (16, 8, 4, 2, 1)
    embedding: int = 256
    stem_stride: int = 1
    head_norm: bool = False

    def __post_init__(self) -> None:
        if len(self.channels) == 4 and self.channels[0] == 1:
            object.__setattr__(self, "channels", self.channels[1:])
        if len(self.channels) != 3 or not all(isinstance(width, int) and width > 0 for width in self.channels):
            raise UserError(f"gaitset's channels must be three positive numbers, not {self.channels!r}")
        if not self.bins or not all(isinstance(b, int) and b > 0 and 16 % b == 0 for b in self.bins):
            raise UserError(f"gaitset's bins must divide the 16 rows of its feature map, not {self.bins!r}")


class SetBackbone(Backbone):
    """Two branches: convolutions on each frame, and convolutions on the set's maximum over time; both pooled."""

    sampling: Sampling = "unordered"

    def __init__(self, config: GaitSetConfig) -> None:
        super().__init__()
        one, two, three = config.channels
        self.stem_stride = config.stem_stride
        self.frame1 = _block(FirstConv2d(one, 5, config.stem_stride))
        self.frame2, self.frame3 = _block(_conv(one, two)), _block(_conv(two, three))
        self.set2, self.set3 = _block(_conv(one, two)), _block(_conv(two, three))
        self.pool = HorizontalPooling(config.bins)
        self.channels, self.parts = three, 2 * self.pool.parts
        initialize(self)
        channels_last(self)

    def forward(self, clip: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """Clip (B, T, H, W), or packed (1, ΣT, H, W) with ``lengths`` → feature (B, C, P)."""
        size = clip.shape[:2]

        def over_time(frames: Tensor) -> Tensor:  # (B·T, C, H, W) → (B, C, H, W)
            return temporal_max(frames.unflatten(0, size), lengths)

        # Every block ends before its last LeakyReLU: being monotonic it may follow the maximum, over fewer numbers.
        frames = self.frame1(image_frames(clip))
        frames = _activate(frames if self.stem_stride == 2 else halve_by_maxima(frames))  # (B·T, C1, H/2, W/2)
        whole = _activate(halve_by_maxima(self.set2(over_time(frames))))  # (B, C2, H/4, W/4)
        frames = _activate(halve_by_maxima(self.frame2(frames)))  # (B·T, C2, H/4, W/4)
        whole = _activate(self.set3(whole + over_time(frames)))  # (B, C3, H/4, W/4)
        main = F.leaky_relu(over_time(self.frame3(frames)), _SLOPE)  # (B, C3, H/4, W/4); the maximum keeps its output
        return torch.cat([self.pool(main), self.pool(whole + main)], dim=2)  # (B, C3, 2·P)


def _activate(x: Tensor) -> Tensor:
    return F.leaky_relu(x, _SLOPE, inplace=True)


def _conv(in_channels: int, channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)


def _block(first: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(first, nn.LeakyReLU(_SLOPE, inplace=True), _conv(first.out_channels, first.out_channels))


def _opengait(model: GaitModel) -> Rules:
    return [
        (r"backbone\.frame(\d)\.(\d)\.weight", r"set_block\1.forward_block.\2.conv.weight"),
        (r"backbone\.set(\d)\.(\d)\.weight", r"gl_block\1.\2.conv.weight"),
        (r"head\.fc\.weight", "Head.fc_bin"),
    ]


_NARROW = GaitSetConfig(channels=(32, 64, 128))
_WIDE = GaitSetConfig(channels=(64, 128, 256))
_WALKERS = GaitSetConfig(channels=(16, 32, 64), bins=(16,), embedding=64, stem_stride=2, head_norm=True)


@register_model(
    "gaitset",
    presets={
        "gait3d": _NARROW,
        "grew": _WIDE,
        "casia-b": _NARROW,
        "oumvlp": _WIDE,
        "walkers": _WALKERS,
        "tiny": replace(_WALKERS, channels=(4, 4, 8)),
    },
    opengait=OpenGaitNames(_opengait),
)
def gaitset(config: GaitSetConfig, num_classes: int) -> tuple[Backbone, Head]:
    """GaitSet: 2.59 M parameters (Gait3D, CASIA-B) or 6.31 M (GREW, OU-MVLP), feature (B, C, 62), drawn unordered.

    It has no classifier: its logits are None for any ``num_classes``.
    """
    backbone = SetBackbone(config)
    return backbone, PartHead(backbone.parts, backbone.channels, config.embedding, config.head_norm)
