"""The six networks layer by layer, as one writes them from their papers: what benchmarks compare ours with.

Frames are (N, C, H, W) in torch's usual memory format, every activation follows its convolution, strips of GaitPart and
GaitGL are cut out and put together again. Modules come in the order of ours, whose weights they take.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitdiff.models import GaitModel
from gaitdiff.models.registry import model_config


def plain_model(name: str, preset: str, num_classes: int, overrides: dict[str, Any] | None = None) -> nn.Module:
    """A network whose forward takes (B, T, 64, 44) and gives the embedding (B, C, P) and logits (B, K, P) or None."""
    config = model_config(name, preset, overrides or {})
    return PlainModel(
        _BACKBONES[name](config), config, num_classes, neck=name in ("smplgait", "gaitbase", "deepgaitv2")
    )


def take_weights(plain: nn.Module, ours: nn.Module) -> None:
    """Have a plain network compute with the weights of ours."""
    values = ours.state_dict().values()
    plain.load_state_dict(dict(zip(plain.state_dict(), values, strict=True)))


class PlainModel(nn.Module):
    """A backbone, and its head: part FCs, with a BN neck where the model has one; GaitGL's BatchNorm."""

    def __init__(self, backbone: nn.Module, config: Any, num_classes: int, neck: bool) -> None:
        super().__init__()
        self.backbone = backbone
        parts, channels = backbone.size  # type: ignore[misc]
        normed = getattr(config, "head_norm", False)
        self.norm = nn.BatchNorm1d(parts * channels, affine=False) if normed else nn.Identity()
        gaitgl = isinstance(backbone, GaitGL)
        width = channels if gaitgl else config.embedding
        self.fc, self.neck = PartLinear(parts, channels, width), neck
        self.bn = nn.BatchNorm1d(width if gaitgl else parts * width) if gaitgl or neck else None
        self.classifier = PartLinear(parts, width, num_classes) if self.bn and num_classes else None

    def forward(self, clip: Tensor) -> tuple[Tensor, Tensor | None]:
        """Embedding and logits of clips."""
        feature = self.backbone(clip)
        x = self.norm(feature.flatten(1)).view_as(feature)
        embedding = self.fc(x)
        if self.bn is None:
            return embedding, None
        if not self.neck:
            embedding = self.bn(embedding)
            return embedding, None if self.classifier is None else self.classifier(embedding)
        if self.classifier is None:
            return embedding, None
        x = F.normalize(self.bn(embedding.flatten(1)).view_as(embedding), dim=1)
        return embedding, self.classifier(x, normalize=True)


class PartLinear(nn.Module):
    """A linear map for each part."""

    def __init__(self, parts: int, before: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(parts, before, width))

    def forward(self, x: Tensor, normalize: bool = False) -> Tensor:
        """(B, C, P) → (B, C', P)."""
        weight = F.normalize(self.weight, dim=1) if normalize else self.weight
        return x.permute(2, 0, 1).matmul(weight).permute(1, 2, 0)


def strips(planes: Tensor, bins: tuple[int, ...]) -> Tensor:
    """(N, C, H, W) → (N, C, P): mean and maximum of each horizontal strip."""
    n, c = planes.shape[:2]
    cut = [planes.reshape(n, c, b, -1) for b in bins]
    return torch.cat([strip.mean(-1) + strip.max(-1)[0] for strip in cut], -1)


class SMPLGait(nn.Module):
    """SMPLGait w/o 3D: each convolution, BatchNorm if any, LeakyReLU; then pooling."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for stage, width in enumerate(config.channels):
            for _ in range(2):
                kernel, stride = (3, 1) if layers else (5, config.stem_stride)
                layers.append(nn.Conv2d(before, width, kernel, stride, kernel // 2, bias=False))
                layers += [nn.BatchNorm2d(width)] if config.batch_norm else []
                layers.append(nn.LeakyReLU(inplace=True))
                before = width
            if stage == 1 or (stage == 0 and config.stem_stride == 1):
                layers.append(nn.MaxPool2d(2))
        self.layers, self.bins = nn.Sequential(*layers), config.bins
        self.size = sum(self.bins), before

    def forward(self, clip: Tensor) -> Tensor:
        """(B, T, 64, 44) → (B, C, P)."""
        planes = self.layers(clip.flatten(0, 1)[:, None])
        return strips(planes.unflatten(0, clip.shape[:2]).max(1)[0], self.bins)


class GaitSet(nn.Module):
    """GaitSet: convolutions on frames, and on their maximum."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        one, two, three = config.channels
        self.frame1, self.pool = self._block(1, one, 5, config.stem_stride), config.stem_stride == 1
        self.frame2, self.frame3 = self._block(one, two), self._block(two, three)
        self.set2, self.set3 = self._block(one, two), self._block(two, three)
        self.bins, self.size = config.bins, (2 * sum(config.bins), three)

    def _block(self, before: int, width: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
        first = nn.Conv2d(before, width, kernel, stride, kernel // 2, bias=False)
        second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        return nn.Sequential(first, nn.LeakyReLU(inplace=True), second, nn.LeakyReLU(inplace=True))

    def forward(self, clip: Tensor) -> Tensor:
        """(B, T, 64, 44) → (B, C, P)."""

        def most(frames: Tensor) -> Tensor:
            return frames.unflatten(0, clip.shape[:2]).max(1)[0]

        frames = self.frame1(clip.flatten(0, 1)[:, None])
        frames = F.max_pool2d(frames, 2) if self.pool else frames
        whole = F.max_pool2d(self.set2(most(frames)), 2)
        frames = F.max_pool2d(self.frame2(frames), 2)
        whole = self.set3(whole + most(frames))
        main = most(self.frame3(frames))
        return torch.cat([strips(main, self.bins), strips(whole + main, self.bins)], -1)


class FocalConv(nn.Conv2d):
    """GaitPart's convolution, strip by strip."""

    strips = 1

    def forward(self, frames: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C', H, W)."""
        step = frames.shape[2] // self.strips
        return torch.cat([super(FocalConv, self).forward(strip) for strip in frames.split(step, 2)], 2)


class PartConv1d(nn.Module):
    """A convolution over time for each part."""

    def __init__(self, parts: int, before: int, width: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(parts, width, before, kernel))

    def forward(self, x: Tensor) -> Tensor:
        """(B, P, C, T) → (B, P, C', T)."""
        pad = self.weight.shape[3] // 2
        found = [F.conv1d(x[:, p], weight, padding=pad) for p, weight in enumerate(self.weight)]
        return torch.stack(found, 1)


class MicroMotion(nn.Module):
    """A short window's mean and maximum, weighted by attention."""

    def __init__(self, parts: int, channels: int, squeeze: int, last: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.narrow = PartConv1d(parts, channels, channels // squeeze, 3)
        self.widen = PartConv1d(parts, channels // squeeze, channels, last)

    def forward(self, x: Tensor) -> Tensor:
        """(B, P, C, T) → (B, P, C, T)."""
        attention = self.widen(F.leaky_relu(self.narrow(x))).sigmoid()
        series, how = x.flatten(0, 1), (self.window, 1, self.window // 2)
        return (F.avg_pool1d(series, *how) + F.max_pool1d(series, *how)).view_as(x) * attention


class GaitPart(nn.Module):
    """GaitPart: focal convolutions, strips, micro-motion of each."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for word in config.layers:
            kind, *numbers = word.split("-")
            if kind == "M":
                layers.append(nn.MaxPool2d(2))
                continue
            width = int(numbers[0])
            kernel, stride = (3, 1) if layers else (5, config.stem_stride)
            conv = FocalConv(before, width, kernel, stride, kernel // 2, bias=False)
            conv.strips = 2 ** int(numbers[1]) if kind == "FC" else 1
            layers += [conv, nn.LeakyReLU(inplace=True)]
            before = width
        self.layers = nn.Sequential(*layers)
        self.motion3 = MicroMotion(config.parts, before, config.squeeze, 1, 3)
        self.motion5 = MicroMotion(config.parts, before, config.squeeze, 3, 5)
        self.size = config.parts, before

    def forward(self, clip: Tensor) -> Tensor:
        """(B, T, 64, 44) → (B, C, P)."""
        planes = self.layers(clip.flatten(0, 1)[:, None])
        series = strips(planes, (self.size[0],)).unflatten(0, clip.shape[:2]).permute(0, 3, 2, 1).contiguous()
        return (self.motion3(series) + self.motion5(series)).max(3)[0].transpose(1, 2)


class GlobalLocal(nn.Module):
    """GaitGL's layer: a convolution of the whole frame, and one of its strips."""

    def __init__(self, before: int, width: int, halvings: int) -> None:
        super().__init__()
        self.strips = 2**halvings
        self.whole, self.strip = (nn.Conv3d(before, width, 3, padding=1, bias=False) for _ in range(2))

    def forward(self, x: Tensor, join: str = "sum") -> Tensor:
        """(B, C, T, H, W) → (B, C', T, H, W), or twice the rows."""
        local = torch.cat([self.strip(part) for part in x.split(x.shape[3] // self.strips, 3)], 3)
        whole, local = F.leaky_relu(self.whole(x)), F.leaky_relu(local)
        return whole + local if join == "sum" else torch.cat([whole, local], 3)


class GeM(nn.Module):
    """Generalised mean."""

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.ones(1))

    def forward(self, strips: Tensor) -> Tensor:
        """(B, C, P, N) → (B, C, P)."""
        return strips.clamp(min=1e-6).pow(self.p).mean(-1).pow(1 / self.p)


class GaitGL(nn.Module):
    """GaitGL of three stages or, doubled, of four."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        doubled = len(config.channels) == 4
        widths = config.channels if doubled else (*config.channels, config.channels[-1])
        halvings = 1 if doubled else 3
        stride = (1, config.stem_stride, config.stem_stride)
        stem = [nn.Conv3d(1, widths[0], 3, stride, 1, bias=False)]
        stem += [nn.Conv3d(widths[0], widths[0], 3, padding=1, bias=False)] if doubled else []
        self.stem = nn.ModuleList(stem)
        self.shorten = nn.Conv3d(widths[0], widths[0], (3, 1, 1), (3, 1, 1), bias=False)
        self.stages = nn.ModuleList()
        for before, width in itertools.pairwise(widths):
            layers = [GlobalLocal(before, width, halvings)]
            self.stages.append(nn.ModuleList(layers + ([GlobalLocal(width, width, halvings)] if doubled else [])))
        self.gem = GeM()
        self.pool, self.size = config.stem_stride == 1, (64, widths[-1])

    def forward(self, clip: Tensor) -> Tensor:
        """(B, T, 64, 44) → (B, C, P)."""
        x = clip[:, None]
        for layer in (*self.stem, self.shorten):
            x = F.leaky_relu(layer(x))
        layers = [layer for stage in self.stages for layer in stage]  # type: ignore[attr-defined]
        first = len(self.stages[0])  # type: ignore[arg-type]
        for i, layer in enumerate(layers):
            x = F.max_pool3d(x, (1, 2, 2)) if i == first and self.pool else x
            x = layer(x, "rows" if layer is layers[-1] else "sum")
        rows = x.max(2)[0]
        return self.gem(rows.reshape(*rows.shape[:2], self.size[0], -1))


class Block(nn.Module):
    """A residual block; with a convolution over time between its two, as DeepGaitV2's pseudo-3-D ones have."""

    def __init__(self, before: int, width: int, stride: int, over_time: bool) -> None:
        super().__init__()
        self.skip = nn.Sequential()
        if stride != 1 or before != width:
            self.skip = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.time = nn.Conv3d(width, width, (3, 1, 1), padding=(1, 0, 0), bias=False) if over_time else None
        self.bn_time = nn.BatchNorm2d(width) if over_time else None

    def forward(self, frames: Tensor, length: int) -> Tensor:
        """(B·T, C, H, W) → (B·T, C', H', W')."""
        x = F.relu(self.bn1(self.conv1(frames)))
        if self.time is not None and self.bn_time is not None:
            moved = self.time(x.unflatten(0, (-1, length)).transpose(1, 2)).transpose(1, 2).flatten(0, 1)
            x = F.relu(self.bn_time(moved) + x)
        return F.relu(self.bn2(self.conv2(x)) + self.skip(frames))


class Residual(nn.Module):
    """GaitBase, and DeepGaitV2 with blocks that are pseudo-3-D but for the first stage's."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        pseudo = hasattr(config, "mode")
        strides = (1, 2, 2, 1) if pseudo else config.strides
        before = config.channels[0]
        self.stem = nn.Sequential(nn.Conv2d(1, before, 3, padding=1, bias=False), nn.BatchNorm2d(before), nn.ReLU())
        self.blocks = nn.ModuleList()
        for stage, (width, stride, count) in enumerate(zip(config.channels, strides, config.layers, strict=True)):
            for i in range(count):
                self.blocks.append(Block(before, width, 1 if i else stride, pseudo and stage > 0))
                before = width
        self.size = 16 if pseudo else config.parts, before

    def forward(self, clip: Tensor) -> Tensor:
        """(B, T, 64, 44) → (B, C, P)."""
        x = self.stem(clip.flatten(0, 1)[:, None])
        for block in self.blocks:
            x = block(x, clip.shape[1])
        return strips(x.unflatten(0, clip.shape[:2]).max(1)[0], (self.size[0],))


_BACKBONES = {
    "smplgait": SMPLGait,
    "gaitset": GaitSet,
    "gaitpart": GaitPart,
    "gaitgl": GaitGL,
    "gaitbase": Residual,
    "deepgaitv2": Residual,
}


def differ_by(plain: nn.Module, ours: GaitModel, clip: Tensor) -> float:
    """Largest distance of embeddings of the same clips in training mode, as a share of their RMS."""
    with torch.no_grad():
        one, other = plain.train()(clip)[0], ours.train()(clip).embedding
    return float((one - other).abs().max() / other.square().mean().sqrt())
