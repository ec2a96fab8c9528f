"""GaitBase: a ResNet-9 on each frame, maximum over time, strips, part FCs and BN necks.

Source: Fan et al. 2023, "OpenGait: Revisiting Gait Recognition Toward Better Practicality".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from gaitdiff.errors import UserError
from gaitdiff.models.base import Backbone, GaitModel, Head
from gaitdiff.models.layers.blocks import BasicBlock, ResidualBackbone, stage_names
from gaitdiff.models.layers.heads import NECK_NAMES, BNNeckHead
from gaitdiff.models.registry import OpenGaitNames, Rules, register_model


@dataclass(frozen=True)
class GaitBaseConfig:
    """Settings of GaitBase.

    Attributes:
        channels: widths of the stages; the stem has the first.
        layers: residual blocks of each stage.
        strides: of the first block of each stage; all together they divide the 64 rows down to a multiple of ``parts``.
        parts: horizontal strips of the feature.
        embedding: channels of the part FCs.
    """

    channels: tuple[int, ...] = (64, 128, 256, 512)
    layers: tuple[int, ...] = (1, 1, 1, 1)
    strides: tuple[int, ...] = (1, 2, 2, 1)
    parts: int = 16
    embedding: int = 256

    def __post_init__(self) -> None:
        counts = {len(self.channels), len(self.layers), len(self.strides)}
        numbers = (*self.channels, *self.layers, *self.strides)
        if len(counts) != 1 or not all(isinstance(n, int) and n > 0 for n in numbers):
            raise UserError(
                f"gaitbase needs one positive number a stage in channels, layers and strides, not {self.channels!r}, "
                f"{self.layers!r} and {self.strides!r}"
            )
        rows = 64
        for stride in self.strides:
            rows = -(-rows // stride)
        if rows % self.parts:
            raise UserError(f"gaitbase's parts must divide the {rows} rows of its feature map, not be {self.parts}")


def _opengait(model: GaitModel) -> Rules:
    prefix = "Backbone.forward_block"
    stages = [rule for stage in range(4) for rule in stage_names(stage, f"{prefix}.layer{stage + 1}")]
    return [
        (r"backbone\.stem\.0\.weight", f"{prefix}.conv1.conv.weight"),
        (r"backbone\.stem\.1\.(\w+)", rf"{prefix}.bn1.\1"),
        *stages,
        *NECK_NAMES,
    ]


_PUBLISHED = GaitBaseConfig()
_WALKERS = GaitBaseConfig(channels=(16, 32, 64, 64), strides=(2, 2, 1, 1), embedding=64)


@register_model(
    "gaitbase",
    presets={
        "gait3d": _PUBLISHED,
        "grew": _PUBLISHED,
        "casia-b": _PUBLISHED,
        "oumvlp": _PUBLISHED,
        "walkers": _WALKERS,
        "tiny": replace(_WALKERS, channels=(4, 4, 8, 8)),
    },
    opengait=OpenGaitNames(_opengait),
)
def gaitbase(config: GaitBaseConfig, num_classes: int) -> tuple[Backbone, Head]:
    """GaitBase: 7.00 M parameters before the classifier, feature (B, 512, 16), clips drawn unordered."""
    makers = (BasicBlock,) * len(config.channels)
    backbone = ResidualBackbone(makers, config.channels, config.strides, config.layers, config.parts)
    return backbone, BNNeckHead(backbone.parts, backbone.channels, config.embedding, num_classes)
