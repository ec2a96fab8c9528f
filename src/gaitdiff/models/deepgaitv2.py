"""DeepGaitV2: residual stages on frames, with convolutions over time (p3d), or in 3-D.

Source: Fan et al. 2023, "Exploring Deep Models for Practical Gait Recognition".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from gaitdiff.errors import UserError, nearest
from gaitdiff.models.base import Backbone, GaitModel, Head
from gaitdiff.models.layers.blocks import BasicBlock, BlockMaker, Conv3dBlock, P3DBlock, ResidualBackbone, stage_names
from gaitdiff.models.layers.heads import NECK_NAMES, BNNeckHead
from gaitdiff.models.registry import OpenGaitNames, Rules, register_model

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


def _opengait(model: GaitModel) -> Rules:
    mode = model.config.mode
    stages = stage_names(0, "layer1.forward_block")
    for stage in (1, 2, 3):
        layer = f"layer{stage + 1}"
        if mode == "p3d":
            ours, theirs = rf"backbone\.stages\.{stage}\.(\d+)", rf"{layer}.\1"
            stages += [
                (rf"{ours}\.conv([12])\.weight", rf"{theirs}.conv\2.forward_block.0.weight"),
                (rf"{ours}\.bn([12])\.(\w+)", rf"{theirs}.conv\2.forward_block.1.\3"),
                (rf"{ours}\.conv_time\.weight", rf"{theirs}.shortcut3d.weight"),
                (rf"{ours}\.bn_time\.(\w+)", rf"{theirs}.sbn.\2"),
            ]
        stages += stage_names(stage, f"{layer}.forward_block" if mode == "2d" else layer)
    return [(r"backbone\.stem\.(\d)\.(\w+)", r"layer0.forward_block.\1.\2"), *stages, *NECK_NAMES]


def _deeper(model: GaitModel) -> str:
    """OpenGait keeps the 1x1 convolutions of stages with a convolution over time, or in 3-D, as 1x1x1."""
    return r"(?!)" if model.config.mode == "2d" else r"backbone\.stages\.[123]\.\d+\.skip\.0\.weight"


_SHALLOW = DeepGaitV2Config(layers=(1, 1, 1, 1))
_DEEP = DeepGaitV2Config(layers=(1, 4, 4, 1))
_WALKERS = DeepGaitV2Config(layers=(1, 1, 1, 1), channels=(8, 16, 32, 64), embedding=64)


@register_model(
    "deepgaitv2",
    presets={
        "gait3d": _DEEP,
        "grew": _DEEP,
        "casia-b": _SHALLOW,
        "oumvlp": _SHALLOW,
        "walkers": _WALKERS,
        "tiny": replace(_WALKERS, channels=(4, 4, 8, 8)),
    },
    opengait=OpenGaitNames(_opengait, _deeper),
)
def deepgaitv2(config: DeepGaitV2Config, num_classes: int) -> tuple[Backbone, Head]:
    """DeepGaitV2: p3d has 8.04 M parameters before the classifier (blocks 1 1 1 1) or 13.2 M (1 4 4 1).

    Feature (B, 512, 16); clips drawn ordered, unordered in mode 2d, where no two frames meet before the maximum.
    """
    makers = (BasicBlock, *[_BLOCKS[config.mode]] * 3)
    backbone = ResidualBackbone(makers, config.channels, _STRIDES, config.layers, parts=16)
    return backbone, BNNeckHead(backbone.parts, backbone.channels, config.embedding, num_classes)
