"""GaitPart: convolutions that stay within horizontal strips, and micro-motion pooled over time for each part.

Source: Fan et al. 2020, "GaitPart: Temporal Part-based Model for Gait Recognition".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitdiff.errors import UserError
from gaitdiff.models.base import Backbone, GaitModel, Head, Sampling
from gaitdiff.models.layers.convolution import halve_by_maxima
from gaitdiff.models.layers.heads import PartHead
from gaitdiff.models.layers.parts import HorizontalPooling, image_frames, initialize, temporal_max
from gaitdiff.models.registry import OpenGaitNames, Rules, register_model
from gaitdiff.utils.memory_format import channels_last


@dataclass(frozen=True)
class GaitPartConfig:
    """Settings of GaitPart.

    Attributes:
        layers: what follows what: ``BC-k`` a convolution to k channels, ``FC-k-q`` a focal one, applied to 2^q
            horizontal strips separately, ``M`` 2x2 max pooling. The first has a 5x5 kernel, all others 3x3.
        embedding: channels of the part FCs.
        parts: horizontal strips of the feature.
        squeeze: the micro-motion module narrows C channels to C / squeeze.
        stem_stride: 2 lets the first convolution halve the frame, in place of one pooling that ``layers`` leaves out.
        head_norm: BatchNorm without learned scale before the part FCs; not in the published model.
    """

    layers: tuple[str, ...] = ("BC-32", "BC-32", "M", "FC-64-2", "FC-64-2", "M", "FC-128-3", "FC-128-3")
    embedding: int = 128
    parts: int = 16
    squeeze: int = 4
    stem_stride: int = 1
    head_norm: bool = False

    def __post_init__(self) -> None:
        if not self.layers or self.layers[0] == "M":
            raise UserError("gaitpart's layers must start with a convolution such as 'BC-32'")
        rows = 64
        for index, layer in enumerate(self.layers):
            if not re.fullmatch(r"M|BC-[1-9]\d*|FC-[1-9]\d*-\d", str(layer)):
                raise UserError(f"gaitpart's layers are 'BC-channels', 'FC-channels-halvings' and 'M', not {layer!r}")
            stride = 2 if layer == "M" else 1 if index else self.stem_stride
            strips = _strips(layer)
            if rows % (strips * stride):
                raise UserError(
                    f"gaitpart's layers cannot go on with {layer!r} where {rows} of the frame's 64 rows are left: it "
                    f"needs a multiple of {strips * stride}"
                )
            rows //= stride
        if rows % self.parts:
            raise UserError(f"gaitpart's parts must divide the {rows} rows that its layers leave, not be {self.parts}")


def _strips(layer: str) -> int:
    """How many horizontal strips a layer keeps apart."""
    return 2 ** int(layer.split("-")[2]) if layer.startswith("FC") else 1


class FocalConv(nn.Module):
    """A convolution whose view ends at the edges of horizontal strips, then LeakyReLU if it is to."""

    def __init__(self, in_channels: int, channels: int, kernel: int, stride: int, strips: int, activate: bool) -> None:
        super().__init__()
        self.strips, self.activate = strips, activate
        self.conv = nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2, bias=False)

    def forward(self, frames: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C', H, W)."""
        count, _, height, _ = frames.shape
        # With channels last the strips of a frame lie one after the other, as frames of their own: nothing is copied.
        rows = frames.permute(0, 2, 3, 1).unflatten(1, (self.strips, height // self.strips)).flatten(0, 1)
        found = self.conv(rows.permute(0, 3, 1, 2))
        if self.activate:
            found = F.leaky_relu(found, 0.01, inplace=True)
        return found.permute(0, 2, 3, 1).unflatten(0, (count, self.strips)).flatten(1, 2).permute(0, 3, 1, 2)


class MaxPool(nn.Module):
    """2x2 max pooling, then the LeakyReLU of the convolution before, which is monotonic: so it meets fewer numbers."""

    def __init__(self, activate: bool) -> None:
        super().__init__()
        self.activate = activate

    def forward(self, frames: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, H/2, W/2)."""
        pooled = halve_by_maxima(frames)
        return F.leaky_relu(pooled, 0.01, inplace=True) if self.activate else pooled


class PartConv1d(nn.Module):
    """A convolution over time of its own for each part, without bias, padded to keep the length."""

    def __init__(self, parts: int, in_channels: int, channels: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(parts, channels, in_channels, kernel))
        for weight in self.weight:
            nn.init.xavier_uniform_(weight)

    def forward(self, x: Tensor) -> Tensor:
        """(P, B, T, C) → (P, B, T, C')."""
        kernel, frames = self.weight.shape[3], x.shape[2]
        padded = F.pad(x, (0, 0, kernel // 2, kernel // 2))
        taps = torch.cat([padded[:, :, k : k + frames] for k in range(kernel)], dim=3)  # (P, B, T, kernel·C)
        weight = self.weight.permute(0, 3, 2, 1).flatten(1, 2)  # (P, kernel·C, C')
        return torch.bmm(taps.flatten(1, 2), weight).unflatten(1, x.shape[1:3])


class MicroMotion(nn.Module):
    """Mean + max over a short window of frames, weighted by an attention over time: one branch of the module."""

    def __init__(self, parts: int, channels: int, squeeze: int, last_kernel: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.narrow = PartConv1d(parts, channels, channels // squeeze, 3)
        self.widen = PartConv1d(parts, channels // squeeze, channels, last_kernel)

    def forward(self, x: Tensor) -> Tensor:
        """(P, B, T, C) → (P, B, T, C)."""
        attention = self.widen(F.leaky_relu(self.narrow(x), 0.01, inplace=True)).sigmoid()
        series = x.flatten(0, 1).transpose(1, 2).unsqueeze(3)  # (P·B, C, T, 1), channels last
        window, pad = (self.window, 1), (self.window // 2, 0)
        pooled = F.avg_pool2d(series, window, 1, pad) + F.max_pool2d(series, window, 1, pad)
        return pooled.squeeze(3).transpose(1, 2).unflatten(0, x.shape[:2]) * attention


class PartBackbone(Backbone):
    """Focal convolutions on each frame, strips, micro-motion within each part, maximum over time.

    Each packed sequence passes the micro-motion module alone, as in the field's reference.
    """

    sampling: Sampling = "ordered"

    def __init__(self, config: GaitPartConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for layer, following in zip(config.layers, (*config.layers[1:], ""), strict=True):
            activate = following != "M"
            if layer == "M":
                layers.append(MaxPool(activate))
                continue
            width = int(layer.split("-")[1])
            kernel, stride = (3, 1) if layers else (5, config.stem_stride)  # the very first layer looks wider
            layers.append(FocalConv(channels, width, kernel, stride, _strips(layer), activate))
            channels = width
        self.layers = nn.Sequential(*layers)
        self.pool = HorizontalPooling((config.parts,))
        self.motion3 = MicroMotion(config.parts, channels, config.squeeze, last_kernel=1, window=3)
        self.motion5 = MicroMotion(config.parts, channels, config.squeeze, last_kernel=3, window=5)
        self.channels, self.parts = channels, config.parts
        initialize(self)
        channels_last(self.layers)

    def forward(self, clip: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """Clip (B, T, H, W), or packed (1, ΣT, H, W) with ``lengths`` → feature (B, C, P)."""
        planes = self.layers(image_frames(clip))  # (B·T, C, H/4, W/4)
        strips = self.pool(planes).unflatten(0, clip.shape[:2]).permute(3, 0, 1, 2).contiguous()  # (P, B, T, C)
        if lengths is None:
            return self._over_time(strips)  # (B, C, P)
        return torch.cat([self._over_time(span) for span in strips.split(list(lengths), dim=2)])

    def _over_time(self, strips: Tensor) -> Tensor:
        moved = self.motion3(strips) + self.motion5(strips)  # (P, B, T, C)
        return temporal_max(moved.flatten(0, 1)).unflatten(0, moved.shape[:2]).permute(1, 2, 0)


def _opengait(model: GaitModel) -> Rules:
    assert isinstance(model.backbone, PartBackbone)
    rules, position = [], 0
    for number, layer in enumerate(model.backbone.layers):
        rules.append(
            (rf"backbone\.layers\.{number}\.conv\.weight", f"Backbone.forward_block.feature.{position}.conv.weight")
        )
        position += 2 if isinstance(layer, FocalConv) else 1  # it counts activations too
    for ours, theirs in (("motion3", "conv1d3x1"), ("motion5", "conv1d3x3")):
        prefix = f"TFA.pooling_func.{theirs}.{{part}}"
        rules += [
            (rf"backbone\.{ours}\.narrow\.weight", f"{prefix}.0.conv.weight"),
            (rf"backbone\.{ours}\.widen\.weight", f"{prefix}.2.conv.weight"),
        ]
    return [*rules, (r"head\.fc\.weight", "Head.fc_bin")]


_NARROW = GaitPartConfig()
_WIDE = GaitPartConfig(
    layers=("BC-32", "BC-32", "M", "BC-64", "BC-64", "M", "FC-128-3", "FC-128-3", "FC-256-3", "FC-256-3"),
    embedding=256,
)
_WALKERS = GaitPartConfig(
    layers=("BC-16", "BC-16", "FC-32-2", "FC-32-2", "M", "FC-64-3", "FC-64-3"),
    embedding=64,
    stem_stride=2,
    head_norm=True,
)


@register_model(
    "gaitpart",
    presets={
        "gait3d": _NARROW,
        "grew": _WIDE,
        "casia-b": _NARROW,
        "oumvlp": _WIDE,
        "walkers": _WALKERS,
        "tiny": replace(_WALKERS, layers=("BC-4", "M", "FC-8-2"), embedding=8),
    },
    opengait=OpenGaitNames(_opengait),
)
def gaitpart(config: GaitPartConfig, num_classes: int) -> tuple[Backbone, Head]:
    """GaitPart: 1.20 M parameters (Gait3D, CASIA-B) or 4.84 M (GREW, OU-MVLP), feature (B, C, 16), drawn ordered.

    It has no classifier: its logits are None for any ``num_classes``.
    """
    backbone = PartBackbone(config)
    return backbone, PartHead(backbone.parts, backbone.channels, config.embedding, config.head_norm)
