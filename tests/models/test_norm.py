"""BatchNorm of frames against torch's own in double precision, and of two processes against one."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gaitdiff.models import create_model, list_models
from gaitdiff.models.layers.norm import FrameNorm, SyncBatchNorm, synchronize
from worlds import torchrun


def frames(*shape: int, dtype: torch.dtype = torch.double) -> Tensor:
    return torch.randn(shape, dtype=dtype).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("block", [7, 1 << 20])
def test_equals_torch_in_values_gradients_and_statistics(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gaitdiff.models.layers.norm._BLOCK", block)
    torch.manual_seed(0)
    ours, theirs = FrameNorm(3).double(), nn.BatchNorm2d(3).double()
    with torch.no_grad():
        ours.weight.uniform_(0.5, 1.5)
        ours.bias.normal_()
    theirs.load_state_dict(ours.state_dict())
    x = (frames(4, 3, 5, 2) + 100).requires_grad_()
    for _ in range(2):
        y, want = ours(x), theirs(x)
        assert torch.allclose(y, want, atol=1e-10)
        grad = torch.randn_like(y)
        gradients = torch.autograd.grad(y, [x, ours.weight, ours.bias], grad)
        wanted = torch.autograd.grad(want, [x, theirs.weight, theirs.bias], grad)
        for g, w in zip(gradients, wanted, strict=True):
            assert torch.allclose(g, w, atol=1e-10)
    for key, value in theirs.state_dict().items():
        assert torch.allclose(ours.state_dict()[key], value, atol=1e-10)
    assert torch.allclose(ours.eval()(x), theirs.eval()(x), atol=1e-10)


def test_statistics_are_as_sharp_as_float32_allows() -> None:
    """Where torch's own on channels-last frames are off by parts in a thousand."""
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
    half = x.bfloat16().requires_grad_()
    y = norm(half)
    y.float().square().sum().backward()
    assert half.grad is not None
    assert norm.weight.grad is not None
    assert (y.dtype, half.grad.dtype, norm.weight.grad.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
    assert torch.allclose(y.float(), nn.BatchNorm2d(3)(half.float()), atol=5e-2)


@pytest.mark.parametrize("name", list_models())
def test_torch_converts_every_batchnorm(name: str) -> None:
    """By torch's own function, as users know it: same weights under the same names, and as many layers."""
    model = create_model(name, "tiny", 3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    count = sum(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in model.modules())
    clip = torch.rand(2, 6, 64, 44)
    with torch.no_grad():
        want = model.eval()(clip).embedding
        converted = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        assert sum(type(layer) is nn.SyncBatchNorm for layer in converted.modules()) == count
        assert converted.state_dict().keys() == before.keys()
        assert all(torch.equal(value, before[key]) for key, value in converted.state_dict().items())
        assert torch.allclose(converted(clip).embedding, want, atol=1e-5)  # alone, torch's takes a CPU


def gradients(name: str, model: nn.Module, clip: Tensor) -> dict[str, Tensor]:
    """Of a loss that is a mean over sequences, and the statistics after the step."""
    torch.manual_seed(0)
    output = model(clip)
    direction = torch.randn(output.embedding.shape[1:], dtype=clip.dtype)
    (output.embedding * direction).square().sum((1, 2)).mean().backward()
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    found = {key: parameter.grad for key, parameter in inner.named_parameters() if parameter.grad is not None}
    return {**found, **dict(inner.named_buffers())}


def fresh(name: str) -> nn.Module:
    torch.manual_seed(1)
    torch.set_default_dtype(torch.double)
    try:
        return create_model(name, "tiny").train()
    finally:
        torch.set_default_dtype(torch.float32)


SYNCHRONIZED = ("smplgait", "gaitbase", "deepgaitv2", "gaitgl")


def worker(folder: Path) -> None:
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    for name in SYNCHRONIZED:
        model = fresh(name)
        synchronize(model, torch.device("cpu"))
        assert any(isinstance(layer, SyncBatchNorm) for layer in model.modules())
        clip = torch.load(folder / "clip.pt")[3 * rank : 3 * rank + 3]
        parallel = DistributedDataParallel(model)
        torch.save(gradients(name, parallel, clip), folder / f"{name}-{rank}.pt")
        del model, parallel
    x = torch.load(folder / "frames.pt")[2 * rank : 2 * rank + 2]
    torch.save(in_half(SyncBatchNorm(3), x), folder / f"half-{rank}.pt")
    gc.collect()  # no thread of theirs is left when the process ends
    torch.distributed.barrier()  # neither goes while the other still talks to it
    torch.distributed.destroy_process_group()


def in_half(norm: nn.Module, x: Tensor) -> list[Tensor]:
    """What a norm makes of frames in bfloat16, and the gradients of a sum over samples."""
    half = x.bfloat16().requires_grad_()
    y = norm(half)
    (y.float() * torch.linspace(-1, 1, y[0].numel()).view_as(y[0])).square().sum().backward()
    assert half.grad is not None
    assert y.dtype == half.grad.dtype == torch.bfloat16
    return [y.detach().float(), half.grad.float()]


def test_two_processes_train_as_one_does_on_all_samples(tmp_path: Path) -> None:
    clip = torch.rand(6, 6, 64, 44, dtype=torch.double).round()
    torch.save(clip, tmp_path / "clip.pt")
    x = 3 + 2 * frames(4, 3, 9, 7, dtype=torch.float32)
    torch.save(x, tmp_path / "frames.pt")
    torchrun(__file__, tmp_path)
    whole = in_half(FrameNorm(3), x)
    for want, *parts in zip(whole, *(torch.load(tmp_path / f"half-{rank}.pt") for rank in (0, 1)), strict=True):
        assert float((torch.cat(parts) - want).norm() / want.norm()) < 1e-2
    for name in SYNCHRONIZED:
        want = gradients(name, fresh(name), clip)
        for rank in (0, 1):
            found = torch.load(tmp_path / f"{name}-{rank}.pt")
            assert found.keys() == want.keys()
            for key, value in want.items():
                assert torch.allclose(found[key].double(), value.double(), rtol=1e-7, atol=1e-10), (name, key)


def test_second_derivatives_are_refused() -> None:
    """Torch would leave the layer out of them without a word."""
    norm, x = FrameNorm(3), frames(4, 3, 5, 2, dtype=torch.float32).requires_grad_()
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.autograd.grad(norm(x).square().sum(), x, create_graph=True)


if __name__ == "__main__":
    worker(Path(sys.argv[1]))
