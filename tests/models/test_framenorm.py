"""BatchNorm of frames with its sum and activation, against torch's own in double precision."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitdiff.models.layers.framenorm import FrameNorm


def frames(*shape: int, dtype: torch.dtype = torch.double) -> Tensor:
    return torch.randn(shape, dtype=dtype).contiguous(memory_format=torch.channels_last)


def expected(norm: nn.BatchNorm2d, x: Tensor, skip: Tensor | None, slope: float | None) -> Tensor:
    y = norm(x)
    if skip is not None:
        y = y + skip
    return y if slope is None else F.leaky_relu(y, slope)


@pytest.mark.parametrize("slope", [0.0, 0.01, None])
@pytest.mark.parametrize("with_skip", [False, True])
@pytest.mark.parametrize("block", [7, 1 << 20])
def test_equals_torch_in_values_gradients_and_statistics(
    slope: float | None, with_skip: bool, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gaitdiff.models.layers.framenorm._BLOCK", block)
    torch.manual_seed(0)
    ours, theirs = FrameNorm(3, slope).double(), nn.BatchNorm2d(3).double()
    with torch.no_grad():
        ours.weight.uniform_(0.5, 1.5)
        ours.bias.normal_()
    theirs.load_state_dict(ours.state_dict())
    inputs = [frames(4, 3, 5, 2).requires_grad_() for _ in range(2 if with_skip else 1)]
    skip = inputs[1] if with_skip else None
    for _ in range(2):
        y, want = ours(inputs[0], skip), expected(theirs, inputs[0], skip, slope)
        assert torch.allclose(y, want, atol=1e-12)
        grad = torch.randn_like(y)
        gradients = torch.autograd.grad(y, [*inputs, ours.weight, ours.bias], grad)
        for g, w in zip(gradients, torch.autograd.grad(want, [*inputs, theirs.weight, theirs.bias], grad), strict=True):
            assert torch.allclose(g, w, atol=1e-12)
    for key, value in theirs.state_dict().items():
        assert torch.allclose(ours.state_dict()[key], value, atol=1e-12)
    assert torch.allclose(ours.eval()(*inputs), expected(theirs.eval(), inputs[0], skip, slope), atol=1e-12)


def test_statistics_are_as_sharp_as_float32_allows() -> None:
    torch.manual_seed(0)
    x = frames(60, 4, 64, 44, dtype=torch.float32).abs().pow(3)
    x[:, :, :, :12] = 3.7  # a background
    norm = FrameNorm(4)
    norm.momentum = 1.0
    norm(x)
    assert torch.allclose(norm.running_mean.double(), x.double().mean((0, 2, 3)), rtol=1e-6)
    assert torch.allclose(norm.running_var.double(), x.double().var((0, 2, 3)), rtol=1e-6)


def test_half_precision_frames_have_gradients_of_their_own_kind() -> None:
    torch.manual_seed(0)
    norm, x = FrameNorm(3), frames(4, 3, 5, 2, dtype=torch.float32)
    half, skip = (x.bfloat16().requires_grad_() for _ in range(2))
    y = norm(half, skip)
    y.float().square().sum().backward()
    assert (y.dtype, half.grad.dtype, skip.grad.dtype, norm.weight.grad.dtype) == (torch.bfloat16,) * 3 + (
        torch.float32,
    )
    want = expected(nn.BatchNorm2d(3), half.float(), skip.float(), 0.0)
    assert torch.allclose(y.float(), want, atol=5e-2)
