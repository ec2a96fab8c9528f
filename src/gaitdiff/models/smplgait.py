"""SMPLGait without its 3-D branch: a plain convolutional backbone, horizontal pyramid, part FCs and BN necks.

Source: Zheng et al. 2022, "Gait Recognition in the Wild with Dense 3D Representations and A Benchmark".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gaitdiff.errors import UserError
from gaitdiff.models.base import Backbone, GaitModel, Head, Sampling
from gaitdiff.models.layers.convolution import FirstConv2d, HalvingMaxPool2d
from gaitdiff.models.layers.heads import NECK_NAMES, BNNeckHead
from gaitdiff.models.layers.norm import FrameNorm
from gaitdiff.models.layers.parts import HorizontalPooling, image_frames, initialize, temporal_max
from gaitdiff.models.registry import OpenGaitNames, Rules, register_model
from gaitdiff.utils.memory_format import channels_last

#: Of the LeakyReLUs.
_SLOPE = 0.01


@dataclass(frozen=True)
class SMPLGaitConfig:
    """Settings of SMPLGait w/o 3D.

    Attributes:
        channels: widths of the three stages; each is two convolutions, the first two end in 2x2 max pooling.
        bins: strips of the horizontal pyramid.
        embedding: channels of the part FCs.
        stem_stride: 2 lets the first convolution halve the frame in place of the first pooling: a quarter of the work,
            for the narrow preset.
        head_norm: BatchNorm without learned scale before the part FCs; not in the published model, it keeps
            the triplet loss of the narrow preset from resting at its margin.
        batch_norm: BatchNorm after each convolution. The published model has none; the narrow preset needs it, since
            the raw features of an untrained plain network are nearly parallel.
    """

    channels: tuple[int, int, int] = (64, 128, 256)
    bins: tuple[int, ...] = (16, 8, 4, 2, 1)
    embedding: int = 256
    stem_stride: int = 1
    batch_norm: bool = False
    head_norm: bool = False

    def __post_init__(self) -> None:
        if len(self.channels) != 3 or not all(isinstance(width, int) and width > 0 for width in self.channels):
            raise UserError(f"smplgait's channels must be three positive numbers, not {self.channels!r}")
        if not self.bins or not all(isinstance(b, int) and b > 0 and 16 % b == 0 for b in self.bins):
            raise UserError(f"smplgait's bins must divide the 16 rows of its feature map, not {self.bins!r}")


class PlainBackbone(Backbone):
    """Frames one by one through six convolutions, maximum over time, horizontal pyramid."""

    sampling: Sampling = "unordered"

    def __init__(self, config: SMPLGaitConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        in_channels = 1
        for stage, width in enumerate(config.channels):
            if stage == 2 or (stage == 1 and config.stem_stride == 1):
                # LeakyReLU is monotonic: it may follow the maximum, over a quarter of the numbers.
                layers.insert(len(layers) if config.batch_norm else -1, HalvingMaxPool2d())
            for _ in range(2):
                if layers:
                    layers.append(nn.Conv2d(in_channels, width, 3, padding=1, bias=False))
                else:
                    layers.append(FirstConv2d(width, 5, config.stem_stride))  # looks wider than the others
                layers.append(FrameNorm(width) if config.batch_norm else nn.LeakyReLU(_SLOPE, inplace=True))
                in_channels = width
        self.layers = nn.Sequential(*layers)
        self.pool = HorizontalPooling(config.bins)
        self.channels = in_channels
        self.parts = self.pool.parts
        initialize(self)
        channels_last(self)

    def forward(self, clip: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """Clip (B, T, H, W), or packed (1, ΣT, H, W) with ``lengths`` → feature (B, C, P)."""
        planes = image_frames(clip)
        for layer in self.layers:
            planes = layer(planes)
            if isinstance(layer, _BatchNorm):  # its LeakyReLU has no place of its own: weights keep their names
                planes = F.leaky_relu_(planes, _SLOPE)  # (B·T, C, H/4, W/4)
        planes = temporal_max(planes.unflatten(0, clip.shape[:2]), lengths)  # (B, C, H/4, W/4)
        return self.pool(planes)  # (B, C, P)


def _opengait(model: GaitModel) -> Rules:
    return [(r"backbone\.layers\.(\d+)\.weight", r"Backbone.forward_block.feature.\1.conv.weight"), *NECK_NAMES]


_PUBLISHED = SMPLGaitConfig()
_WALKERS = SMPLGaitConfig(
    channels=(16, 32, 64), bins=(16,), embedding=64, stem_stride=2, batch_norm=True, head_norm=True
)


@register_model(
    "smplgait",
    presets={
        "gait3d": _PUBLISHED,
        "grew": _PUBLISHED,
        "casia-b": _PUBLISHED,
        "oumvlp": _PUBLISHED,
        "walkers": _WALKERS,
        "tiny": replace(_WALKERS, channels=(4, 4, 8)),
    },
    opengait=OpenGaitNames(_opengait),
)
def smplgait(config: SMPLGaitConfig, num_classes: int) -> tuple[Backbone, Head]:
    """SMPLGait w/o 3D: 3.19 M parameters before the classifier, feature (B, 256, 31), clips drawn unordered."""
    backbone = PlainBackbone(config)
    head = BNNeckHead(backbone.parts, backbone.channels, config.embedding, num_classes, config.head_norm)
    return backbone, head
