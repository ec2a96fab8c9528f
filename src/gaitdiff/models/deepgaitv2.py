"""DeepGaitV2: residual stages on frames, with convolutions over time (p3d), or in 3-D.

Source: Fan et al. 2023, "Exploring Deep Models for Practical Gait Recognition".
"""

from __future__ import annotations

from dataclasses import dataclass

from gaitdiff.errors import UserError, nearest
from gaitdiff.models.base import Backbone, Head
from gaitdiff.models.layers.blocks import BasicBlock, BlockMaker, Conv3dBlock, P3DBlock, ResidualBackbone
from gaitdiff.models.layers.heads import BNNeckHead
from gaitdiff.models.registry import register_model

_BLOCKS: dict[str, BlockMaker] = {"2d": BasicBlock, "p3d": P3DBlock, "3d": Conv3dBlock}
_STRIDES = (1, 2, 2, 1)


@dataclass(frozen=True)
class DeepGaitV2Config:
    """Settings of DeepGaitV2.

    Attributes:
        mode: blocks of the last three stages: ``"2d"``, ``"p3d"`` or ``"3d"``; the first stage is 2-D in all.
        layers: residual blocks of the four stages.
        channels: widths of the four stages.
        embedding: channels of the part FCs.
    """

    mode: str = "p3d"
    layers: tuple[int, ...] = (1, 4, 4, 1)
    channels: tuple[int, ...] = (64, 128, 256, 512)
    embedding: int = 256

    def __post_init__(self) -> None:
        if self.mode not in _BLOCKS:
            raise UserError(
                f"deepgaitv2 has no mode {self.mode!r}{nearest(self.mode, _BLOCKS)}; known: {', '.join(_BLOCKS)}"
            )
        for key, numbers in (("layers", self.layers), ("channels", self.channels)):
            if len(numbers) != 4 or not all(isinstance(n, int) and n > 0 for n in numbers):
                raise UserError(f"deepgaitv2's {key} must be four positive numbers, not {numbers!r}")


_SHALLOW = DeepGaitV2Config(layers=(1, 1, 1, 1))
_DEEP = DeepGaitV2Config(layers=(1, 4, 4, 1))


@register_model(
    "deepgaitv2",
    presets={
        "gait3d": _DEEP,
        "grew": _DEEP,
        "casia-b": _SHALLOW,
        "oumvlp": _SHALLOW,
        "walkers": DeepGaitV2Config(layers=(1, 1, 1, 1), channels=(8, 16, 32, 64), embedding=64),
    },
)
def deepgaitv2(config: DeepGaitV2Config, num_classes: int) -> tuple[Backbone, Head]:
    """DeepGaitV2: p3d has 8.04 M parameters before the classifier (blocks 1 1 1 1) or 13.2 M (1 4 4 1).

    Feature (B, 512, 16); clips drawn ordered, unordered in mode 2d, where no two frames meet before the maximum.
    """
    makers = (BasicBlock, *[_BLOCKS[config.mode]] * 3)
    backbone = ResidualBackbone(makers, config.channels, _STRIDES, config.layers, parts=16)
    return backbone, BNNeckHead(backbone.parts, backbone.channels, config.embedding, num_classes)
