"""GaitGL: 3-D convolutions over the whole frame and over strips of it side by side.

Source: Lin et al. 2021, "Gait Recognition via Effective Global-Local Feature Representation and Local Temporal
Aggregation".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitdiff.errors import UserError
from gaitdiff.models.base import Backbone, GaitModel, Head, Sampling
from gaitdiff.models.layers.convolution import ClipConv3d
from gaitdiff.models.layers.heads import NECK_NAMES, BNNeckHead, input_norm, over_columns
from gaitdiff.models.layers.parts import PartLinear, initialize, temporal_max
from gaitdiff.models.registry import OpenGaitNames, Rules, register_model

_SLOPE = 0.01


@dataclass(frozen=True)
class GaitGLConfig:
    """Settings of GaitGL.

    Attributes:
        channels: widths of the stages: three (single layers, 8 strips), or four (doubled layers, 2 strips).
        bn_neck: BN necks in place of the original BatchNorm and classifier behind the part FCs.
        stem_stride: 2 lets the first convolution halve the frame in place of the pooling, for the narrow preset.
        head_norm: BatchNorm without learned scale before the part FCs; not in the published model.
    """

    channels: tuple[int, ...] = (32, 64, 128)
    bn_neck: bool = False
    stem_stride: int = 1
    head_norm: bool = False

    def __post_init__(self) -> None:
        if len(self.channels) not in (3, 4) or not all(isinstance(n, int) and n > 0 for n in self.channels):
            raise UserError(f"gaitgl's channels must be three or four positive numbers, not {self.channels!r}")


class GlobalLocal(nn.Module):
    """A convolution over the whole frame, and one over horizontal strips as if each were a frame of its own."""

    def __init__(self, in_channels: int, channels: int, halvings: int) -> None:
        super().__init__()
        self.strips = 2**halvings
        self.whole = ClipConv3d(in_channels, channels)
        self.strip = ClipConv3d(in_channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) → (B, C', T, H, W): the sum of both, each behind its LeakyReLU."""
        # Not in place: the local one may be a view, and the gradient of a view changed in place is copied twice.
        return F.leaky_relu(self.whole(x), _SLOPE).add_(F.leaky_relu(self.local(x), _SLOPE))

    def local(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) → (B, C', T, H, W): the strips' convolution before its LeakyReLU."""
        if self.strips == 1:
            return self.strip(x)
        rows = x.movedim(1, -1).unflatten(2, (self.strips, -1))  # (B, T, S, H/S, W, C), as it lies in memory
        apart = rows.transpose(1, 2).flatten(0, 1).permute(0, 4, 1, 2, 3)  # (B·S, C, T, H/S, W)
        found = self.strip(apart).unflatten(0, (-1, self.strips))  # (B, S, C', T, H/S, W)
        return found.permute(0, 2, 3, 1, 4, 5).flatten(3, 4)


class GeM(nn.Module):
    """Generalised-mean pooling of horizontal strips with a learned exponent.

    Source: Radenović et al. 2019, "Fine-tuning CNN Image Retrieval with No Human Annotation".
    """

    def __init__(self, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.p = nn.Parameter(torch.full((1,), 6.5))

    def forward(self, planes: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, P)."""
        strips = planes.flatten(2).unflatten(2, (self.parts, -1)).clamp(min=1e-6)  # (B, C, P, H·W/P)
        return strips.pow(self.p).mean(-1).pow(1.0 / self.p)


class GlobalLocalBackbone(Backbone):
    """3-D convolutions, every three frames into one, global-local layers, maximum over time, GeM of 64 strips.

    A clip of one frame is repeated three times, one of two frames twice; frames left over when the length is divided
    by three are dropped. Both as in the field's reference. Packed sequences pass one by one.
    """

    sampling: Sampling = "consecutive"
    packs = False

    def __init__(self, config: GaitGLConfig) -> None:
        super().__init__()
        doubled = len(config.channels) == 4
        first, second, third, *fourth = config.channels
        last = fourth[0] if doubled else third
        halvings = 1 if doubled else 3
        self.stem = nn.ModuleList([ClipConv3d(1, first, stride=config.stem_stride)])
        self.shorten = nn.Conv3d(first, first, (3, 1, 1), stride=(3, 1, 1), bias=False)
        self.early = nn.ModuleList([GlobalLocal(first, second, halvings)])
        self.middle = nn.ModuleList([GlobalLocal(second, third, halvings)])
        self.late = nn.ModuleList([GlobalLocal(third, last, halvings)])
        if doubled:
            self.stem.append(ClipConv3d(first, first))
            self.early.append(GlobalLocal(second, second, halvings))
            self.middle.append(GlobalLocal(third, third, halvings))
            self.late.append(GlobalLocal(last, last, halvings))
        self.halve = config.stem_stride == 1
        self.pool = GeM(64)
        self.channels, self.parts = last, self.pool.parts
        initialize(self)
        for weight in self.parameters():  # as utils.memory_format.channels_last, for 3-D convolutions
            if weight.ndim == 5:
                weight.data = weight.data.clone(memory_format=torch.channels_last_3d)

    def forward(self, clip: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """Clip (B, T, H, W), or packed (1, ΣT, H, W) with ``lengths`` → feature (B, C, P)."""
        if lengths is None:
            return self._clips(clip)
        return torch.cat([self._clips(span) for span in clip.split(list(lengths), dim=1)])

    def _clips(self, clip: Tensor) -> Tensor:
        if clip.shape[1] < 3:
            clip = clip.repeat(1, 3 if clip.shape[1] == 1 else 2, 1, 1)
        x = clip.unsqueeze(4).contiguous().permute(0, 4, 1, 2, 3)  # (B, 1, T, H, W), channels last as in image_frames
        for layer in self.stem:
            x = _activate(layer(x))
        x = _activate(self.shorten(x))  # (B, C1, T/3, H, W)
        for layer in self.early:
            x = layer(x)
        if self.halve:
            x = F.max_pool3d(x, (1, 2, 2))  # (B, C2, T/3, H/2, W/2)
        for layer in (*self.middle, *self.late[:-1]):
            x = layer(x)
        last = self.late[-1]
        assert isinstance(last, GlobalLocal)
        # LeakyReLU is monotonic: it may follow the maximum over time, over fewer numbers.
        both = torch.cat([temporal_max(side.transpose(1, 2)) for side in (last.whole(x), last.local(x))], dim=2)
        return self.pool(_activate(both))  # both is (B, C, H, W): global rows, then local rows


class GaitGLHead(Head):
    """The original head: part FCs, BatchNorm, part classifiers. The embedding is the vector after the BatchNorm."""

    def __init__(self, parts: int, channels: int, num_classes: int, normalize: bool) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.norm = input_norm(parts, channels, normalize)
        self.fc = PartLinear(parts, channels, channels)
        self.bn = nn.BatchNorm1d(channels)
        self.classifier = PartLinear(parts, channels, num_classes) if num_classes else None
        initialize(self)

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor | None]:
        """Feature (B, C, P) → embedding (B, C, P), logits (B, K, P) or None."""
        embedding = self.bn(self.fc(over_columns(self.norm, feature)))
        return embedding, self.classifier(embedding) if self.classifier is not None else None


def _activate(x: Tensor) -> Tensor:
    return F.leaky_relu(x, _SLOPE, inplace=True)


def _opengait(model: GaitModel) -> Rules:
    doubled = len(model.config.channels) == 4
    rules: Rules = [
        (r"backbone\.stem\.0\.weight", "conv3d.0.conv3d.weight"),
        (r"backbone\.stem\.1\.weight", "conv3d.2.conv3d.weight"),
        (r"backbone\.shorten\.weight", "LTA.0.conv3d.weight"),
        (r"backbone\.pool\.p", "HPP.p"),
        (r"head\.fc\.weight", "Head0.fc_bin"),
        (r"head\.bn\.(\w+)", r"Bn.\1"),
        (r"head\.classifier\.weight", "Head1.fc_bin"),
        *NECK_NAMES[1:],
    ]
    for ours, theirs in (("early", "GLConvA0"), ("middle", "GLConvA1"), ("late", "GLConvB2")):
        layer = rf"{theirs}.\1" if doubled else theirs
        rules += [
            (rf"backbone\.{ours}\.(\d)\.whole\.weight", f"{layer}.global_conv3d.conv3d.weight"),
            (rf"backbone\.{ours}\.(\d)\.strip\.weight", f"{layer}.local_conv3d.conv3d.weight"),
        ]
    return rules


_NARROW = GaitGLConfig()
_WIDE = GaitGLConfig(channels=(32, 64, 128, 256))
_WALKERS = GaitGLConfig(channels=(8, 16, 32), stem_stride=2, head_norm=True)


@register_model(
    "gaitgl",
    presets={
        "gait3d": _NARROW,
        "grew": _WIDE,
        "casia-b": _NARROW,
        "oumvlp": _WIDE,
        "walkers": _WALKERS,
        "tiny": replace(_WALKERS, channels=(4, 4, 8)),
    },
    min_frames=3,
    opengait=OpenGaitNames(_opengait),
)
def gaitgl(config: GaitGLConfig, num_classes: int) -> tuple[Backbone, Head]:
    """GaitGL: 2.49 M parameters (Gait3D, CASIA-B) or 11.2 M (GREW, OU-MVLP), feature (B, C, 64), drawn consecutive."""
    backbone = GlobalLocalBackbone(config)
    channels, parts = backbone.channels, backbone.parts
    if config.bn_neck:
        return backbone, BNNeckHead(parts, channels, channels, num_classes, config.head_norm)
    return backbone, GaitGLHead(parts, channels, num_classes, config.head_norm)
