"""Winograd's convolutions against torch's own, in values and gradients, and where they step aside."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gaitdiff.models.layers import winograd


def plain(conv: nn.Module, x: Tensor) -> Tensor:
    """What torch makes of the same weights."""
    kind = nn.Conv2d if isinstance(conv, nn.Conv2d) else nn.Conv3d
    return kind.forward(conv, x)


def gradients(out: Tensor, x: Tensor, conv: nn.Module) -> list[Tensor]:
    torch.manual_seed(2)
    weights = torch.randn(out.shape, dtype=torch.double).to(out.dtype)
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), [x, *conv.parameters()])]


@pytest.mark.parametrize(
    ("kind", "channels", "size"),
    [
        (winograd.Conv2d, (128, 160), (2, 8, 5)),
        (winograd.Conv2d, (160, 128), (3, 7, 4)),
        (winograd.Conv3d, (64, 128), (1, 4, 3, 2)),
        (winograd.Conv3d, (130, 64), (2, 10, 2, 5)),
    ],
)
@pytest.mark.parametrize("last", [True, False])
def test_equals_the_direct_convolution(
    monkeypatch: pytest.MonkeyPatch, kind: type, channels: tuple[int, int], size: tuple[int, ...], last: bool
) -> None:
    torch.manual_seed(1)
    conv = kind(*channels, 3, padding=1, bias=False).double()
    x = torch.randn(size[0], channels[0], *size[1:], dtype=torch.double)
    if last:
        x = x.contiguous(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d)
    x.requires_grad_()
    want = gradients(plain(conv, x), x, conv)
    with monkeypatch.context() as patch:  # the direct way is closed: it must have gone the other
        patch.setattr(nn.Conv2d, "forward", None)
        patch.setattr(nn.Conv3d, "forward", None)
        got = gradients(conv(x), x, conv)
    for ours, theirs in zip(got, want, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-10)


def test_float32_is_as_sharp_as_said() -> None:
    torch.manual_seed(3)
    conv = winograd.Conv2d(256, 256, 3, padding=1, bias=False)
    x = torch.randn(2, 256, 16, 11, requires_grad=True)
    twin = winograd.Conv2d(256, 256, 3, padding=1, bias=False).double()
    twin.load_state_dict({key: value.double() for key, value in conv.state_dict().items()})
    wide = x.detach().double().requires_grad_()
    for ours, want in zip(gradients(conv(x), x, conv), gradients(plain(twin, wide), wide, twin), strict=True):
        assert ((ours - want).abs().max() / want.std()).item() < 5e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_bias_strides_narrow_layers_short_clips_and_inference_go_the_direct_way(dtype: torch.dtype) -> None:
    torch.manual_seed(4)
    layers = [
        (winograd.Conv2d(128, 128, 3, 2, 1, bias=False), (1, 128, 8, 6)),
        (winograd.Conv2d(128, 128, 3, padding=1), (1, 128, 8, 6)),
        (winograd.Conv2d(8, 8, 3, padding=1, bias=False), (1, 8, 8, 6)),
        (winograd.Conv3d(128, 128, 3, (1, 2, 2), 1, bias=False), (1, 128, 8, 4, 4)),
        (winograd.Conv3d(128, 128, 3, padding=1, bias=False), (1, 128, 3, 4, 4)),
    ]
    for conv, shape in layers:
        x = torch.randn(shape, dtype=dtype)
        assert torch.equal(conv.to(dtype)(x), plain(conv, x))
    conv = winograd.Conv2d(128, 128, 3, padding=1, bias=False)
    x = torch.randn(1, 128, 8, 6)
    with torch.no_grad():
        assert torch.equal(conv(x), plain(conv, x))
    with torch.autocast("cpu", torch.bfloat16):
        assert conv(x).dtype == torch.bfloat16
