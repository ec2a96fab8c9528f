"""BatchNorm of frames, as sharp as float32 allows, within one process or over all of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gaitdiff.utils.shares import processes

#: Numbers whose statistics are taken at a time: few enough to stay in a core's cache.
_BLOCK = 1 << 20


class FrameNorm(nn.BatchNorm2d):
    """``torch.nn.BatchNorm2d`` whose statistics, in training on a CPU, are sums of sums in double precision.

    On channels-last frames torch's own add up in float32 one by one: over 200 frames of 64 x 44 pixels its variances
    are off by parts in a thousand, and after the 22 layers of a DeepGaitV2 the gradient points elsewhere.
    """

    def forward(self, frames: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, H, W)."""
        if not self.training or frames.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(frames)
        frames = frames.contiguous(memory_format=torch.channels_last)
        mean, variance = _statistics(frames.detach())
        _remember(self, mean, variance, frames.numel() // frames.shape[1])
        kind = self.weight.dtype
        return _Normalize.apply(frames, self.weight, self.bias, mean.to(kind), variance.to(kind), self.eps)


class _Normalize(torch.autograd.Function):
    """Frames with statistics of their own, already known → normalised, scaled and moved."""

    @staticmethod
    def forward(
        ctx: Any, frames: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(frames, weight, mean, (variance + eps).rsqrt())
        ctx.eps = eps
        return torch.native_batch_norm(frames, weight, bias, mean, variance, False, 0.0, eps)[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        _require_once()
        frames, weight, mean, scale = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        grads = torch.ops.aten.native_batch_norm_backward(
            grad, frames, weight, None, None, mean, scale, True, ctx.eps, [True, True, True]
        )
        return (*grads, None, None, None)


def _require_once() -> None:
    """Refuse to be differentiated a second time, for which ``torch.autograd.grad`` would leave this layer out."""
    if torch.is_grad_enabled():
        raise RuntimeError("BatchNorm in training on a CPU is differentiable once here: leave out create_graph")


def _statistics(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (not corrected) of each channel, (C,) in double precision."""
    blocks, channels = _blocks(frames), frames.shape[1]
    count = frames.numel() // channels
    wide = torch.promote_types(frames.dtype, torch.float32)
    near = blocks[0].to(wide).mean(0)  # sums of differences from something near keep their digits
    total, squares = (torch.zeros(channels, dtype=torch.double) for _ in range(2))
    for block in blocks:
        apart = block - near
        total += apart.sum(0)
        squares += apart.square_().sum(0)
    beyond = total / count
    return near + beyond, squares / count - beyond.square()


def _blocks(frames: Tensor) -> tuple[Tensor, ...]:
    """Frames (N, C, H, W) as rows (N·H·W, C), some at a time: views, where channels lie last."""
    return frames.permute(0, 2, 3, 1).flatten(0, 2).split(max(1, _BLOCK // frames.shape[1]))


@torch.no_grad()
def _remember(norm: _BatchNorm, mean: Tensor, variance: Tensor, count: int) -> None:
    """Move a norm's running statistics towards those of a batch of ``count`` numbers a channel; as torch does."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    norm.num_batches_tracked += 1
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), norm.momentum)
    norm.running_var.lerp_((variance * count / max(count - 1, 1)).to(norm.running_var.dtype), norm.momentum)


class SyncBatchNorm(_BatchNorm):
    """BatchNorm over the samples of all processes, on a CPU, where torch has none."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, …) → (N, C, …)."""
        if not self.training or processes() == 1:
            return super().forward(input)
        frames = input if input.ndim == 4 else input.reshape(*input.shape[:2], -1, 1)
        frames = frames.contiguous(memory_format=torch.channels_last)
        mean, variance, count = _shared_statistics(frames.detach())
        _remember(self, mean, variance, count)
        kind = torch.promote_types(input.dtype, torch.float32) if self.weight is None else self.weight.dtype
        weight = mean.new_ones(len(mean), dtype=kind) if self.weight is None else self.weight
        bias = mean.new_zeros(len(mean), dtype=kind) if self.bias is None else self.bias
        normed: Tensor = _NormalizeShared.apply(frames, weight, bias, mean.to(kind), variance.to(kind), self.eps, count)
        return normed if input.ndim == 4 else normed.reshape(input.shape)  # no view: what follows changes it in place


def _shared_statistics(frames: Tensor) -> tuple[Tensor, Tensor, int]:
    """Mean and variance of each channel over all processes, and how many numbers a channel they are of."""
    mean, variance = _statistics(frames)
    numbers = mean.new_tensor([frames.numel() // len(mean)])
    moments = torch.cat([numbers, numbers * mean, numbers * (variance + mean.square())])
    torch.distributed.all_reduce(moments)
    mean, squares = (moments[1:] / moments[0]).chunk(2)
    return mean, (squares - mean.square()).clamp_(min=0), int(moments[0])


class _NormalizeShared(torch.autograd.Function):
    """``_Normalize`` with statistics of all processes, through which the losses of all see the frames of each."""

    @staticmethod
    def forward(
        ctx: Any, frames: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float, count: int
    ) -> Tensor:
        ctx.save_for_backward(frames, weight, mean, variance)
        ctx.eps, ctx.count = eps, count
        return torch.native_batch_norm(frames, weight, bias, mean, variance, False, 0.0, eps)[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        _require_once()
        frames, weight, mean, variance = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        grads = torch.ops.aten.native_batch_norm_backward(  # with the statistics as constants
            grad, frames, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        constant, of_weight, of_bias = grads
        sums = torch.stack([of_weight, of_bias]).double()
        torch.distributed.all_reduce(sums)
        scale = (variance.double() + ctx.eps).rsqrt()
        slope = weight * scale.square() * sums[0] / ctx.count
        level = weight * scale * sums[1] / ctx.count - mean * slope
        _take_away(constant, frames, slope.to(mean.dtype), level.to(mean.dtype))
        return constant, of_weight, of_bias, None, None, None, None


def _take_away(frames: Tensor, other: Tensor, slope: Tensor, level: Tensor) -> None:
    """``frames -= slope · other + level``, by channel, in the precision of ``slope``; both channels last."""
    for mine, theirs in zip(_blocks(frames), _blocks(other), strict=True):
        mine.sub_(torch.addcmul(level, theirs.to(slope.dtype), slope))


def synchronize(module: nn.Module, device: torch.device) -> None:
    """Give every BatchNorm within a module the statistics of all processes; weights, and their names, stay the same.

    Args:
        device: where it will train; on accelerators the layers are torch's own.
    """
    if device.type != "cpu":
        nn.SyncBatchNorm.convert_sync_batchnorm(module)
        return
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            made = SyncBatchNorm(child.num_features, child.eps, child.momentum, child.affine)
            made._parameters, made._buffers = child._parameters, child._buffers
            setattr(module, name, made)
        else:
            synchronize(child, device)
