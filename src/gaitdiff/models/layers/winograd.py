"""Convolutions of width 3 along time or height with half the multiplications, for training in float32 on a CPU.

Four outputs in a row of such a convolution need twelve products; Winograd's F(4, 3) makes six of them, from sums of
six neighbouring inputs and of the three weights, and combines these to the four outputs. Each product here is a
convolution over what remains of the kernel, by torch. The numbers are those of the direct way to some three times
float32's rounding.

Source: Lavin & Gray 2016, "Fast Algorithms for Convolutional Neural Networks".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

#: Fewest products of widths, input times output, for which it pays: the sums cost as much at any width, the
#: convolutions grow with it. Measured: 64 x 128 channels 1.1 times as fast in 3-D, 128 x 128 1.2 times in 2-D (where
#: 64 x 64 loses), 256 x 256 1.3 and 1.5 times, 512 x 512 1.5 and 1.7 times.
_FEWEST = {4: 128 * 128, 5: 64 * 128}


class Conv2d(nn.Conv2d):
    """``torch.nn.Conv2d`` without bias; wide 3x3 ones train by Winograd's algorithm along the height."""

    def forward(self, frames: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C', H', W')."""
        if not _pays(self, frames):
            return super().forward(frames)
        return _Winograd.apply(frames, self.weight.unsqueeze(3), 0)


class Conv3d(nn.Conv3d):
    """``torch.nn.Conv3d`` without bias; wide 3x3x3 ones train by Winograd's algorithm along time."""

    def forward(self, clips: Tensor, strips: int = 1) -> Tensor:
        """(B, C, T, H, W) → (B, C', T', H', W'), horizontal strips as if each were a clip of its own."""
        if _pays(self, clips):
            return _Winograd.apply(clips, self.weight, strips)
        if strips == 1:
            return super().forward(clips)
        apart = _rows(clips, strips).transpose(1, 2).flatten(0, 1)  # (B·S, T, H/S, W, C)
        found = super().forward(apart.permute(0, 4, 1, 2, 3))  # (B·S, C', T, H/S, W)
        return found.unflatten(0, (-1, strips)).permute(0, 2, 3, 1, 4, 5).flatten(3, 4)


def _pays(conv: nn.Conv2d | nn.Conv3d, x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)  # others have matrix units of their own
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and torch.is_grad_enabled()
        and conv.weight.requires_grad
        and conv.bias is None
        and set(conv.kernel_size) == {3}
        and set(conv.stride) == set(conv.padding) == {1}
        and x.shape[2] >= 4
        and conv.in_channels * conv.out_channels >= _FEWEST[x.ndim]
    )


class _Winograd(torch.autograd.Function):
    """A convolution with stride 1, zeros around; only what came in is kept for the backward.

    (N, C, H, W) and (C', C, 3, 1, w) with no strips, or (N, C, T, H, W) and (C', C, 3, h, w) with one or more.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, strips: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.strips = strips
        padding = [weight.shape[3] // 2, weight.shape[4] // 2]
        tiles = _tiles(_rows(x, strips))
        parts = [
            _tiled(F.conv2d(_images(u), w, padding=padding), tiles)
            for u, w in zip(_inputs(tiles), _weights(weight), strict=True)
        ]
        return _joined(_outputs, parts, x, strips)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        padding = [weight.shape[3] // 2, weight.shape[4] // 2]
        tiles, given = _tiles(_rows(x, ctx.strips)), _tiles(_rows(grad, ctx.strips))
        found, weights = [], []
        for u, g, w in zip(_inputs(tiles), _outputs_back(given), _weights(weight), strict=True):
            to_u, to_w, _ = torch.ops.aten.convolution_backward(
                _images(g), _images(u), w, None, [1, 1], padding, [1, 1], False, [0, 0], 1, [True, True, False]
            )
            found.append(_tiled(to_u, tiles))
            weights.append(to_w)
        return _joined(_inputs_back, found, x, ctx.strips), _weights_back(weights), None


def _rows(x: Tensor, strips: int) -> Tensor:
    """(N, C, H, W) → (N, H, W, C) if there are no strips, else (N, C, T, H, W) → (N, T, S, H/S, W, C)."""
    last = x.movedim(1, -1)
    return last.unflatten(2, (strips, -1)) if strips else last


def _tiles(rows: Tensor) -> Tensor:
    """(N, D, ..., C) → (N, D/4, 4, ..., C), zeros behind where 4 does not divide D."""
    missing = -rows.shape[1] % 4
    padded = F.pad(rows, (*(0, 0) * (rows.ndim - 2), 0, missing)) if missing else rows
    return padded.contiguous().unflatten(1, (-1, 4))


def _images(u: Tensor) -> Tensor:
    """(N, D/4, ..., C) → (..., C, H, W)."""
    return u.flatten(0, -4).permute(0, 3, 1, 2)


def _tiled(found: Tensor, tiles: Tensor) -> Tensor:
    """The inverse of ``_images``."""
    return found.permute(0, 2, 3, 1).reshape(*tiles.shape[:2], *tiles.shape[3:-1], -1)


def _joined(write: Callable[..., None], parts: Sequence[Tensor], x: Tensor, strips: int) -> Tensor:
    """Frames or clips of x's size, channels last and no view (so that what follows may work in place), written."""
    size = (len(x), parts[0].shape[-1], *x.shape[2:])
    out = torch.empty_permuted(size, (0, *range(2, x.ndim), 1), dtype=x.dtype)
    rows = _rows(out, strips)
    length = rows.shape[1]
    even = length % 4 == 0
    tiles = rows.unflatten(1, (-1, 4)) if even else rows.new_empty(*parts[0].shape[:2], 4, *rows.shape[2:])
    write(parts, tiles)
    if not even:
        rows.copy_(tiles.flatten(1, 2)[:, :length])
    return out


# The three linear maps and their transposes. d1 to d4 are the inputs of a tile; d0 and d5 stand in its neighbours.
#
#   inputs   u0 = 4·d0 - 5·d2 + d4            weights   w0 =  a/4                      outputs   y1 = m0 + p + r
#            u1 = -4·d1 - 4·d2 + d3 + d4                w1 = -(a + b + c)/6                      y2 = q + 2·s
#            u2 =  4·d1 - 4·d2 - d3 + d4                w2 = -(a - b + c)/6                      y3 = p + 4·r
#            u3 = -2·d1 - d2 + 2·d3 + d4                w3 =  (a + 2·b + 4·c)/24                 y4 = q + 8·s + m5
#            u4 =  2·d1 - d2 - 2·d3 + d4                w4 =  (a - 2·b + 4·c)/24       with p, q = m1 + m2, m1 - m2
#            u5 = 4·d1 - 5·d3 + d5                      w5 =  c                             r, s = m3 + m4, m3 - m4


def _inputs(tiles: Tensor) -> Sequence[Tensor]:
    d1, d2, d3, d4 = tiles.unbind(2)
    u0, u1, u2, u3, u4, u5 = tiles.new_empty(6, *d1.shape).unbind()
    even, odd = torch.sub(d4, d2, alpha=4), torch.sub(d3, d1, alpha=4)
    torch.add(even, odd, out=u1)
    torch.sub(even, odd, out=u2)
    torch.sub(d4, d2, out=even)
    torch.sub(d3, d1, out=odd)
    torch.add(even, odd, alpha=2, out=u3)
    torch.sub(even, odd, alpha=2, out=u4)
    torch.sub(even, d2, alpha=4, out=u0)
    u0[:, 1:].add_(d4[:, :-1], alpha=4)
    torch.mul(odd, -4, out=u5).sub_(d3)
    u5[:, :-1] += d1[:, 1:]
    return u0, u1, u2, u3, u4, u5


def _inputs_back(grads: Sequence[Tensor], tiles: Tensor) -> None:
    g0, g1, g2, g3, g4, g5 = grads
    d1, d2, d3, d4 = tiles.unbind(2)
    p, q, r, s = g1 + g2, g1 - g2, g3 + g4, g3 - g4
    torch.sub(g5, q, out=d1).mul_(4).sub_(s, alpha=2)
    torch.add(r, p, alpha=4, out=d2).add_(g0, alpha=5).neg_()
    torch.add(q, s, alpha=2, out=d3).sub_(g5, alpha=5)
    torch.add(p, r, out=d4).add_(g0)
    d1[:, 1:] += g5[:, :-1]
    d4[:, :-1].add_(g0[:, 1:], alpha=4)


def _weights(weight: Tensor) -> list[Tensor]:
    a, b, c = weight.unbind(2)
    near, far = (a + c) / -6, (a + 4 * c) / 24
    maps = a / 4, near - b / 6, near + b / 6, far + b / 12, far - b / 12, c
    return [w.contiguous(memory_format=torch.channels_last) for w in maps]


def _weights_back(grads: Sequence[Tensor]) -> Tensor:
    g0, g1, g2, g3, g4, g5 = grads
    p, q, r, s = g1 + g2, g1 - g2, g3 + g4, g3 - g4
    return torch.stack([g0 / 4 - p / 6 + r / 24, s / 12 - q / 6, r / 6 - p / 6 + g5], 2)


def _outputs(parts: Sequence[Tensor], tiles: Tensor) -> None:
    m0, m1, m2, m3, m4, m5 = parts
    y1, y2, y3, y4 = tiles.unbind(2)
    p, q, r, s = m1 + m2, m1 - m2, m3 + m4, m3 - m4
    torch.add(p, r, out=y1).add_(m0)
    torch.add(q, s, alpha=2, out=y2)
    torch.add(p, r, alpha=4, out=y3)
    torch.add(q, s, alpha=8, out=y4).add_(m5)


def _outputs_back(grad: Tensor) -> Sequence[Tensor]:
    g1, g2, g3, g4 = grad.unbind(2)
    m0, m1, m2, m3, m4, m5 = grad.new_empty(6, *g1.shape).unbind()
    odd, even = g1 + g3, g2 + g4
    torch.add(odd, even, out=m1)
    torch.sub(odd, even, out=m2)
    torch.add(g1, g3, alpha=4, out=odd)
    torch.add(g2, g4, alpha=4, out=even)
    torch.add(odd, even, alpha=2, out=m3)
    torch.sub(odd, even, alpha=2, out=m4)
    return m0.copy_(g1), m1, m2, m3, m4, m5.copy_(g4)
