"""BatchNorm of frames with what follows it, a sum and a (leaky) ReLU, in one go.

On a CPU, torch's own kernel for channels-last frames adds up statistics in float32 one by one: over the frames of a
usual batch its variances are off by parts in a thousand. The one here sums block by block, in double precision
across blocks, and passes over the frames fewer times, since normalising, adding and rectifying share each block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

#: Numbers in a block. Smaller blocks would fit a core's cache, but every operation waits for its slowest thread: where
#: another program holds a core, a quarter of this takes nearly twice as long.
_BLOCK = 1 << 22


class FrameNorm(nn.BatchNorm2d):
    """BatchNorm over all frames, then an optional sum with another path, then an optional (leaky) ReLU.

    Parameters, statistics and their names are those of ``torch.nn.BatchNorm2d``.
    """

    def __init__(self, channels: int, slope: float | None = 0.0) -> None:
        """``slope`` of the activation: 0 is ReLU, None leaves it out."""
        super().__init__(channels)
        self.slope = slope

    def forward(self, frames: Tensor, skip: Tensor | None = None) -> Tensor:
        """(N, C, H, W) → (N, C, H, W): act(norm(frames) + skip)."""
        if not self.training or frames.device.type != "cpu" or torch.compiler.is_compiling():
            return _finish(super().forward(frames), skip, self.slope)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        frames = frames.contiguous(memory_format=torch.channels_last)
        mean, variance = _statistics(frames.detach())
        count = frames.numel() // frames.shape[1]
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_((variance * count / max(count - 1, 1)).to(self.running_var.dtype), self.momentum)
        scale = (variance + self.eps).rsqrt()
        return _Norm.apply(frames, self.weight, self.bias, skip, mean, scale, self.slope)


def _finish(frames: Tensor, skip: Tensor | None, slope: float | None) -> Tensor:
    if skip is not None:
        frames = frames.add_(skip)
    return frames if slope is None else F.leaky_relu_(frames, slope) if slope else frames.relu_()


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        frames: Tensor,
        weight: Tensor,
        bias: Tensor,
        skip: Tensor | None,
        mean: Tensor,
        scale: Tensor,
        slope: float | None,
    ) -> Tensor:
        dtype = _dtype(frames)
        factor = (weight.double() * scale).to(dtype)
        offset = (bias.double() - mean * scale * weight.double()).to(dtype)
        out = torch.empty_like(frames)
        other = skip if skip is None else skip.contiguous(memory_format=torch.channels_last)
        for x, y, z in _blocks(frames, out, other):
            if frames.dtype == dtype:
                _finish(torch.addcmul(offset, x, factor, out=y), z, slope)
            else:
                y.copy_(_finish(torch.addcmul(offset, x.to(dtype), factor), z, slope))
        ctx.save_for_backward(frames, weight, out if slope is not None else None, mean, scale)
        ctx.slope, ctx.skipped = slope, skip is not None
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        frames, weight, out, mean, scale = ctx.saved_tensors
        dtype, channels = _dtype(frames), frames.shape[1]
        grad = grad.contiguous(memory_format=torch.channels_last)
        inner = torch.empty_like(frames, dtype=dtype)  # the gradient before the activation
        centre = mean.to(dtype)
        total, product = (torch.zeros(channels, dtype=torch.double) for _ in range(2))
        for x, y, g, h in _blocks(frames, out, grad, inner):
            _through(g, y, ctx.slope, h)
            total += h.sum(0)
            product += (x.to(dtype) - centre).mul_(h).sum(0)
        count = frames.numel() // channels
        factor = weight.double() * scale
        slope = -factor * scale.square() * product / count
        constant = (-factor * total / count - slope * mean).to(dtype)
        factor, slope = factor.to(dtype), slope.to(dtype)
        result = torch.empty_like(frames) if ctx.skipped or frames.dtype != dtype else inner
        for x, h, r in _blocks(frames, inner, result):
            r.copy_(h.mul(factor).addcmul_(x.to(dtype), slope).add_(constant))
        grads = (result, (product * scale).to(weight.dtype), total.to(weight.dtype))
        return (*grads, inner.to(frames.dtype) if ctx.skipped else None, None, None, None)


def _through(grad: Tensor, out: Tensor | None, slope: float | None, result: Tensor) -> None:
    """Write the gradient before a (leaky) ReLU into ``result``, from the gradient behind it and what came out of it."""
    if out is None or grad.dtype != result.dtype:
        result.copy_(grad if out is None else grad * torch.where(out > 0, 1.0, slope or 0.0))
    elif slope:
        torch.ops.aten.leaky_relu_backward.grad_input(grad, out, slope, True, grad_input=result)
    else:
        torch.ops.aten.threshold_backward.grad_input(grad, out, 0, grad_input=result)


def _statistics(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (not corrected) of each channel, in double precision, blocks merged after Chan et al. 1979."""
    dtype, channels = _dtype(frames), frames.shape[1]
    mean, squares = (torch.zeros(channels, dtype=torch.double) for _ in range(2))
    seen = 0
    for (block,) in _blocks(frames):
        x = block.to(dtype)
        inner = x.mean(0)
        spread = (x - inner).square_().sum(0)
        delta = inner.double() - mean
        total = seen + len(x)
        squares += spread + delta.square() * (seen * len(x) / total)
        mean += delta * (len(x) / total)
        seen = total
    return mean, squares / max(seen, 1)


def _blocks(*frames: Tensor | None) -> Iterator[tuple[Any, ...]]:
    """The same rows of all tensors, (rows, C), a block at a time; None stays None."""
    rows = [None if x is None else x.permute(0, 2, 3, 1).flatten(0, 2) for x in frames]
    size = max(1, _BLOCK // next(x.shape[1] for x in rows if x is not None))
    splits = [None if x is None else x.split(size) for x in rows]
    for i in range(max(len(split) for split in splits if split is not None)):
        yield tuple(None if split is None else split[i] for split in splits)


def _dtype(frames: Tensor) -> torch.dtype:
    return torch.double if frames.dtype == torch.double else torch.float32
