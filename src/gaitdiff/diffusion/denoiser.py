"""The denoiser: a factorised space-time U-Net that predicts the noise in a latent clip (Ho et al. 2022).

Every tensor inside is (T, B, H, W, C). With channels last, norms and projections run over contiguous memory, and
convolutions see T·B images in PyTorch's channels-last format. With frames first, attention over the frames of each
position reads its queries, keys and values where the projections wrote them. Neither needs a copy.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitdiff.diffusion.attention import (
    LinearSpatialAttention,
    RelativePositionBias,
    SpatialAttention,
    TemporalAttention,
    TemporalContext,
    kept_in_half,
)
from gaitdiff.errors import UserError, nearest


class Denoiser(nn.Module):
    """Video U-Net over latent clips, guided by a gait condition.

    ``dim`` 32, 64 and 128 with the other defaults are the paper's three sizes: 3,655,316, 11,576,084 and 40,215,572
    parameters, the fixed rotary frequencies counted.

    Args:
        dim: channels at the first level.
        cond_dim: width of the condition.
        dim_mults: channels of each level, in multiples of ``dim``; the resolution halves between levels.
        channels: latent channels.
        heads, head_dim: of every attention.
    """

    def __init__(
        self,
        dim: int = 64,
        cond_dim: int = 256,
        dim_mults: tuple[int, ...] = (1, 2, 4),
        channels: int = 4,
        heads: int = 8,
        head_dim: int = 32,
    ) -> None:
        super().__init__()
        if dim % 2 or dim < 4 or head_dim % 2:
            raise UserError(f"the denoiser's dim ({dim}) must be even and at least 4, its head_dim ({head_dim}) even")
        self.dim, self.head_dim = dim, head_dim
        widths = [dim * m for m in dim_mults]
        pairs = list(zip([dim, *widths[:-1]], widths, strict=True))
        embedding = 4 * dim + cond_dim

        def level(c_in: int, c_out: int, resample: nn.Module | None) -> Level:
            return Level(c_in, c_out, embedding, heads, head_dim, resample)

        self.null_condition = nn.Parameter(torch.randn(cond_dim))
        # Fixed, but a parameter: the published parameter counts include it. At most 32 dims of a head are turned.
        turned = min(head_dim, 32)
        frequencies = 10000.0 ** -(torch.arange(0, turned, 2).float() / turned)
        self.rotary_frequencies = nn.Parameter(frequencies, requires_grad=False)
        self.position_bias = RelativePositionBias(heads)
        self.time_mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, 4 * dim))

        self.stem = FrameConv(channels, dim, 7, padding=3)
        self.stem_attention = TemporalAttention(dim, heads, head_dim)
        last = len(pairs) - 1
        self.downs = nn.ModuleList(
            level(a, b, FrameConv(b, b, 4, stride=2, padding=1) if i < last else None) for i, (a, b) in enumerate(pairs)
        )
        middle = widths[-1]
        self.middle_in = ResidualBlock(middle, middle, embedding)
        self.middle_spatial = SpatialAttention(middle, heads, head_dim)
        self.middle_temporal = TemporalAttention(middle, heads, head_dim)
        self.middle_out = ResidualBlock(middle, middle, embedding)
        self.ups = nn.ModuleList(
            level(2 * b, a, FrameConvTranspose(a, a, 4, stride=2, padding=1) if i < last else None)
            for i, (a, b) in enumerate(reversed(pairs))
        )
        self.final_block = ResidualBlock(2 * dim, dim)
        self.final = nn.Linear(dim, channels)

    @classmethod
    def preset(cls, name: str, cond_dim: int = 256) -> Denoiser:
        """Build a named size: "small", "base", "large" (the paper's 3.7 M, 11.6 M, 40.2 M), or one for a CPU.

        Those for a CPU are "walkers", and "walkers-small" and "walkers-large" of half and twice its channels.

        Raises UserError for an unknown name.
        """
        if name not in PRESETS:
            raise UserError(f"unknown denoiser preset {name!r}{nearest(name, PRESETS)}; known are {', '.join(PRESETS)}")
        return cls(cond_dim=cond_dim, **PRESETS[name])

    def forward(self, x: Tensor, t: Tensor | float, condition: Tensor | None, drop: Tensor | None = None) -> Tensor:
        """Predict the noise in ``x``.

        Args:
            x: noisy latent clips, (B, 4, T, H, W); H and W divisible by 2 for each level but the first.
            t: noise levels, (B,), integers or floats, or one for all.
            condition: gait conditions, (B, cond_dim); None: the learned null vector for all.
            drop: where True, the learned null vector takes the condition's place, (B,) boolean.

        Returns:
            The predicted noise, shaped as ``x``.

        Raises:
            UserError: shapes that do not fit.
        """
        t, condition = self._checked(x, t, condition)
        embedding = F.silu(self.embed(t, condition, drop))  # (B, 4·dim + cond_dim)
        temporal = self.temporal_context(x.shape[2], x.device)

        h = self.stem(x.permute(2, 0, 3, 4, 1))  # (T, B, H, W, dim)
        h = stem = self.stem_attention(h, temporal)
        skips: list[Tensor] = []
        for down in self.downs:
            skip, h = down(h, embedding, temporal)
            skips.append(skip)
        h = self.middle_in(h, embedding)
        h = self.middle_spatial(h)
        h = self.middle_temporal(h, temporal)
        h = self.middle_out(h, embedding)
        for up in self.ups:
            _, h = up(torch.cat((h, skips.pop()), dim=-1), embedding, temporal)
        h = self.final_block(torch.cat((h, stem), dim=-1))
        return self.final(h).permute(1, 4, 0, 2, 3).to(x.dtype)

    def _checked(self, x: Tensor, t: Tensor | float, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        """Levels and conditions as many as there are clips."""
        count, step, width = len(x), 2 ** (len(self.downs) - 1), len(self.null_condition)
        if x.ndim != 5 or x.shape[1] != self.final.out_features or x.shape[3] % step or x.shape[4] % step:
            raise UserError(
                f"noisy latents must have the shape (B, {self.final.out_features}, T, H, W), H and W divisible by "
                f"{step}, not {tuple(x.shape)}"
            )
        t = torch.as_tensor(t, device=x.device)
        if t.numel() == 1:
            t = t.reshape(1).expand(count)
        if condition is None:
            condition = self.null_condition.expand(count, -1)
        if t.shape != (count,) or condition.shape != (count, width):
            raise UserError(
                f"of {count} clips noise levels must have the shape ({count},) and conditions ({count}, {width}), not "
                f"{tuple(t.shape)} and {tuple(condition.shape)}"
            )
        return t, condition

    def embed(self, t: Tensor, condition: Tensor, drop: Tensor | None = None) -> Tensor:
        """The embedding of noise level and condition, side by side: (B, 4·dim + cond_dim)."""
        if drop is not None:
            condition = torch.where(drop[:, None], self.null_condition.to(condition.dtype), condition)
        time = self.time_mlp(sinusoidal(t, self.dim).to(self.null_condition.dtype))
        return torch.cat((time, condition.to(time.dtype)), dim=-1)

    def temporal_context(self, frames: int, device: torch.device) -> TemporalContext:
        """Position bias and rotary embedding for clips of ``frames`` frames (Su et al. 2021)."""
        positions = torch.arange(frames, device=device)
        angles = positions[:, None] * self.rotary_frequencies  # one for each pair of neighbouring dims
        angles = F.pad(angles, (0, self.head_dim // 2 - angles.shape[1]))  # (T, d/2)
        cos, sin = angles.cos(), angles.sin()
        turns = torch.stack((cos, sin, -sin, cos), dim=-1).unflatten(-1, (2, 2))  # (T, d/2, 2, 2)
        pairs = torch.eye(turns.shape[1], device=device)
        rotation = torch.einsum("tpij,pq->tpiqj", turns, pairs).reshape(frames, self.head_dim, self.head_dim)
        return TemporalContext(self.position_bias(positions), rotation.to(self.null_condition.dtype))


PRESETS: dict[str, dict] = {
    "small": {"dim": 32},
    "base": {"dim": 64},
    "large": {"dim": 128},
    "walkers": {"dim": 16, "dim_mults": (1, 2), "heads": 1, "head_dim": 32},
    "walkers-small": {"dim": 8, "dim_mults": (1, 2), "heads": 1, "head_dim": 32},
    "walkers-large": {"dim": 32, "dim_mults": (1, 2), "heads": 1, "head_dim": 32},
}


def sinusoidal(t: Tensor, width: int) -> Tensor:
    """Sines, then cosines, of t·exp(−ln(10000)·i/(width/2−1)): (B,) → (B, width)."""
    half = width // 2
    step = -math.log(10000.0) / (half - 1)
    frequencies = torch.exp(step * torch.arange(half, device=t.device, dtype=torch.float32))
    angles = t.float()[:, None] * frequencies
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


class FrameConv(nn.Conv2d):
    """A convolution of each frame: (T, B, H, W, C_in) → (T, B, H', W', C_out)."""

    def forward(self, x: Tensor) -> Tensor:
        """(T, B, H, W, C) → (T, B, H', W', C')."""
        return _each_frame(super().forward, x)


class FrameConvTranspose(nn.ConvTranspose2d):
    """A transposed convolution of each frame: (T, B, H, W, C_in) → (T, B, H', W', C_out)."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(T, B, H, W, C) → (T, B, H', W', C')."""
        return _each_frame(super().forward, x)


def _each_frame(convolution: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    images = x.flatten(0, 1).permute(0, 3, 1, 2)  # (T·B, C, H, W), channels-last in memory
    return convolution(images).permute(0, 2, 3, 1).unflatten(0, x.shape[:2])


class ChannelNorm(nn.Module):
    """x / ‖x‖₂ · √C · γ over the channels: RMS normalisation, computed in float32 at least."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(…, C) → the same shape and type."""
        with kept_in_half(x):
            return F.rms_norm(x, self.gamma.shape, self.gamma.to(x.dtype), eps=1e-24)


class ResidualBlock(nn.Module):
    """Two normalised convolutions beside a shortcut; the embedding scales and shifts the first."""

    def __init__(self, c_in: int, c_out: int, embedding: int | None = None) -> None:
        super().__init__()
        self.conv1 = FrameConv(c_in, c_out, 3, padding=1)
        self.norm1 = ChannelNorm(c_out)
        self.conv2 = FrameConv(c_out, c_out, 3, padding=1)
        self.norm2 = ChannelNorm(c_out)
        self.modulation = nn.Linear(embedding, 2 * c_out) if embedding else None
        self.shortcut = nn.Linear(c_in, c_out) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """(T, B, H, W, C) and an embedding (B, E) → (T, B, H, W, C')."""
        h = self.norm1(self.conv1(x))
        if self.modulation is not None:
            scale, shift = self.modulation(embedding)[:, None, None].chunk(2, dim=-1)  # each (B, 1, 1, C)
            h = h * (scale + 1) + shift
        h = self.norm2(self.conv2(F.silu(h)))
        return F.silu(h) + self.shortcut(x)


class Level(nn.Module):
    """One resolution of the U-Net: two residual blocks and the two attentions.

    Returns their output and the same resampled for the next level.
    """

    def __init__(
        self, c_in: int, c_out: int, embedding: int, heads: int, head_dim: int, resample: nn.Module | None
    ) -> None:
        super().__init__()
        self.block1 = ResidualBlock(c_in, c_out, embedding)
        self.block2 = ResidualBlock(c_out, c_out, embedding)
        self.spatial = LinearSpatialAttention(c_out, heads, head_dim)
        self.temporal = TemporalAttention(c_out, heads, head_dim)
        self.resample = resample or nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor, context: TemporalContext) -> tuple[Tensor, Tensor]:
        """(T, B, H, W, C) → what the way up takes over, and what the next resolution sees."""
        x = self.block2(self.block1(x, embedding), embedding)
        x = self.temporal(self.spatial(x), context)
        return x, self.resample(x)
