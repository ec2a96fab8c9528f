"""A backbone that is spared the clips whose condition is dropped, beside one that takes all: the same numbers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gaitdiff.config.schema import DiffusionConfig
from gaitdiff.diffusion.objective import Noised
from gaitdiff.models import create_model
from gaitdiff.training.pretexts import build_objective

SMALL = {
    "smplgait": {"channels": [4, 8, 8], "batch_norm": False, "head_norm": False},
    "gaitset": {"head_norm": False},
    "gaitpart": {"head_norm": False},
    "gaitgl": {"head_norm": False},
    "gaitbase": {},
}
PAPER: dict[str, Any] = {"pooling": "mean", "normalize_condition": False, "projector": 0, "frames_apart": False}
COUNT = 6


def objective(name: str, **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    backbone = create_model(name, "walkers", **SMALL[name]).backbone
    made = build_objective(backbone, DiffusionConfig(**{"denoiser": "walkers", "start": "", **PAPER, **settings}))
    for parameter in made.denoiser.parameters():  # zeros at its end would hide what the condition does
        nn.init.normal_(parameter, std=0.05)
    return made


def step(module: nn.Module, drop: Tensor) -> tuple[Tensor, dict[str, Tensor], int, dict[str, Tensor]]:
    """Loss, gradients, how many clips the backbone took, and the buffers afterwards."""
    module, seen = copy.deepcopy(module).train(), []
    module.backbone.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(COUNT, 4, 2, 8, 8, generator=generator)
    clips = torch.rand(COUNT, 4, 64, 44, generator=generator)
    noise = torch.randn(module.apart(latents).shape, generator=generator)
    noised = Noised(torch.arange(1, len(noise) + 1) * 50, noise, drop.repeat_interleave(len(noise) // COUNT))
    loss = module(latents, clips, noised)
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in module.named_parameters()}
    return loss.detach(), gradients, sum(seen), dict(module.named_buffers())


DROPS = {
    "some": [False, True, False, False, True, False],
    "none": [False] * COUNT,
    "all": [True] * COUNT,
}


@pytest.mark.parametrize("which", DROPS)
@pytest.mark.parametrize("name", SMALL)
def test_loss_and_gradients_are_the_same(name: str, which: str) -> None:
    module, drop = objective(name), torch.tensor(DROPS[which])
    loss, gradients, taken, buffers = step(module, drop)
    module.spares = True
    found, found_gradients, found_taken, found_buffers = step(module, drop)
    assert taken == COUNT
    norms = any("running_mean" in buffer for buffer in buffers)
    assert norms == (name == "gaitbase")  # whose statistics are of all clips
    assert found_taken == (COUNT if norms else max(1, COUNT - int(drop.sum())))
    torch.testing.assert_close(found, loss, rtol=1e-6, atol=0.0)
    for key, gradient in gradients.items():
        assert (gradient is None) == (found_gradients[key] is None), key
        if gradient is not None:
            slack = 1e-5 * float(gradient.abs().max())  # sums of other sizes are rounded otherwise
            torch.testing.assert_close(found_gradients[key], gradient, rtol=1e-4, atol=slack, msg=key)
    torch.testing.assert_close(found_buffers, buffers)


@pytest.mark.parametrize("settings", [{"normalize_condition": True}, {"frames_apart": True}, {"contrast": 1.0}])
def test_clips_that_others_need_are_not_left_out(settings: dict[str, Any]) -> None:
    module, drop = objective("smplgait", **settings), torch.tensor(DROPS["some"])
    module.spares = True
    *_, taken, _ = step(module, drop)
    assert taken == COUNT
