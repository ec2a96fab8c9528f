"""Sampling against closed forms, and against DDIM as it is written down."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from gaitdiff.diffusion.denoiser import Denoiser
from gaitdiff.diffusion.objective import ConditionPooling, DiffusionObjective
from gaitdiff.diffusion.sampling import LEAST_SNR, sample, sampling_levels
from gaitdiff.diffusion.schedule import NoiseSchedule, make_schedule
from gaitdiff.errors import NotFiniteError, UserError

WIDTH = 4  # of conditions


class Gaussian(nn.Module):
    """The best denoiser of latents N(μ, s²): μ is the condition by channel, and 0 without one."""

    def __init__(self, schedule: NoiseSchedule, deviation: float) -> None:
        super().__init__()
        self.schedule, self.deviation = schedule, deviation

    def forward(self, x: Tensor, t: Tensor, condition: Tensor, drop: Tensor) -> Tensor:
        mean = condition.masked_fill(drop[:, None], 0)[:, :, None, None, None]
        alpha_bar = self.schedule.alpha_bar[t].view(-1, 1, 1, 1, 1)
        variance = alpha_bar * self.deviation**2 + 1 - alpha_bar
        return (1 - alpha_bar).sqrt() * (x - alpha_bar.sqrt() * mean) / variance


def objective(denoiser: nn.Module, name: str = "inverted-cosine", apart: bool = False) -> DiffusionObjective:
    pooling = ConditionPooling("mean", WIDTH, 2, normalize=False)
    return DiffusionObjective(nn.Identity(), pooling, denoiser, make_schedule(name), frames_apart=apart).eval()


def learned(apart: bool) -> DiffusionObjective:
    torch.manual_seed(0)
    return objective(Denoiser(dim=8, cond_dim=WIDTH, dim_mults=(1, 2), heads=1, head_dim=8), apart=apart)


def conditions(count: int = 3) -> Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(5))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("name", ["inverted-cosine", "cosine"])
@pytest.mark.parametrize("deviation", [0.3, 1.0])
def test_each_step_shrinks_the_distance_from_the_mean_of_a_gaussian(name: str, deviation: float, apart: bool) -> None:
    """From ᾱ to ᾱ' by (√(ᾱᾱ')·s² + √((1−ᾱ)(1−ᾱ'))) / (ᾱ·s² + 1−ᾱ), which follows from the best noise by hand."""
    schedule, condition = make_schedule(name), conditions()
    x = sample(objective(Gaussian(schedule, deviation), name, apart), condition, 4, 1.0, 16, seeded())
    signals = [float(schedule.alpha_bar[level]) for level in (*sampling_levels(schedule, 16), 0)]
    mean = condition[:, :, None, None, None]
    away = torch.randn(3, 4, 4, 8, 8, generator=seeded()) - math.sqrt(signals[0]) * mean
    for one, after in pairwise(signals):
        kept = math.sqrt(one * after) * deviation**2 + math.sqrt((1 - one) * (1 - after))
        away = away * kept / (one * deviation**2 + 1 - one)
    torch.testing.assert_close(x, mean + away, rtol=1e-4, atol=1e-4)


def test_many_steps_give_the_gaussian() -> None:
    schedule, condition = make_schedule("cosine"), conditions()
    x = sample(objective(Gaussian(schedule, 0.5), "cosine"), condition, 8, 1.0, 200, seeded())
    assert x.std((2, 3, 4)).mean() == pytest.approx(0.5, rel=0.03)
    away = (x.mean((2, 3, 4)) - condition).abs() - 0.05 * condition.abs()  # a twentieth is lost at the start
    assert away.max() < 4 * 0.5 / math.sqrt(8 * 64)


@pytest.mark.parametrize("steps", [1, 2, 16])
def test_who_knows_the_latents_lands_on_them(steps: int) -> None:
    schedule, condition = make_schedule("inverted-cosine"), conditions()
    x = sample(objective(Gaussian(schedule, 0.0)), condition, 2, 1.0, steps, seeded())
    torch.testing.assert_close(x, condition[:, :, None, None, None].expand_as(x), rtol=0, atol=1e-4)


@pytest.mark.parametrize("guidance", [0.0, 1.0, 2.5])
def test_guidance_moves_the_mean_by_its_factor(guidance: float) -> None:
    """With s = 0 the guided noise is that of latents at S·μ."""
    schedule, condition = make_schedule("inverted-cosine"), conditions()
    x = sample(objective(Gaussian(schedule, 0.0)), condition, 2, guidance, 8, seeded())
    torch.testing.assert_close(x, guidance * condition[:, :, None, None, None].expand_as(x), rtol=0, atol=1e-4)


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_it_is_ddim_as_it_is_written_down(steps: int, apart: bool) -> None:
    made, condition, guidance = learned(apart), conditions(), 2.5
    levels = [*sampling_levels(made.schedule, steps), 0]
    x = torch.randn(3, 4, 5, 8, 8, generator=seeded())
    none = torch.zeros(3, dtype=torch.bool)
    for level, after in pairwise(levels):
        t, alpha, beta = torch.full((3,), level), made.schedule.alpha_bar[level], made.schedule.alpha_bar[after]
        pieces = x.split(1, dim=2) if apart else [x]
        with torch.no_grad():
            with_it, without = (
                torch.cat([made.denoiser(piece, t, condition, drop) for piece in pieces], 2) for drop in (none, ~none)
            )
        noise = without + guidance * (with_it - without)
        x = beta.sqrt() * (x - (1 - alpha).sqrt() * noise) / alpha.sqrt() + (1 - beta).sqrt() * noise
    torch.testing.assert_close(sample(made, condition, 5, guidance, steps, seeded()), x, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("steps", [1, 2, 16])
@pytest.mark.parametrize("name", ["inverted-cosine", "cosine"])
def test_it_is_the_ddim_of_diffusers(name: str, steps: int) -> None:
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    made = objective(Gaussian(make_schedule(name), 0.7), name)
    levels, condition, none = sampling_levels(made.schedule, steps), conditions(), torch.zeros(3, dtype=torch.bool)
    kept = made.schedule.alpha_bar[[0, *reversed(levels)]].double()
    scheduler = DDIMScheduler(
        num_train_timesteps=steps, trained_betas=(1 - kept[1:] / kept[:-1]).tolist(), clip_sample=False
    )
    scheduler.set_timesteps(steps)
    x = torch.randn(3, 4, 5, 8, 8, generator=seeded())
    for place, level in zip(scheduler.timesteps.tolist(), levels, strict=True):
        noise = made.denoiser(x, torch.full((3,), level), condition, none)
        x = scheduler.step(noise, place, x).prev_sample
    torch.testing.assert_close(sample(made, condition, 5, 1.0, steps, seeded()), x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("apart", [False, True])
def test_no_guidance_is_no_condition(apart: bool) -> None:
    made = learned(apart)
    without = sample(made, None, 2, steps=4, generator=seeded(), count=3)
    assert torch.equal(sample(made, conditions(), 2, 0.0, 4, seeded()), without)
    assert not torch.equal(sample(made, conditions(), 2, 1.0, 4, seeded()), without)
    assert sample(made, None, 2, steps=1).shape == (1, 4, 2, 8, 8)


def test_the_generator_decides_and_every_step_is_told() -> None:
    made, told = learned(apart=False), []
    one = sample(made, conditions(), 2, steps=4, generator=seeded(), told=lambda: told.append(1))
    assert len(told) == 4
    assert torch.equal(one, sample(made, conditions(), 2, steps=4, generator=seeded()))
    assert not torch.equal(one, sample(made, conditions(), 2, steps=4, generator=seeded(1)))
    assert one.grad_fn is None


@pytest.mark.parametrize("name", ["inverted-cosine", "cosine"])
def test_levels_go_from_where_something_is_left_to_the_cleanest(name: str) -> None:
    schedule = make_schedule(name)
    (first,) = sampling_levels(schedule, 1)
    snr = schedule.snr(torch.tensor([first, first + 1]))
    assert snr[0] >= LEAST_SNR > snr[1]
    assert sampling_levels(schedule, first) == list(range(first, 0, -1))
    some = sampling_levels(schedule, 16)
    assert (some[0], some[-1], len(set(some))) == (first, 1, 16)
    gaps = [a - b for a, b in pairwise(some)]
    assert max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.double])
def test_denoisers_of_any_precision_sample(kind: torch.dtype) -> None:
    expected = sample(learned(apart=False), conditions(), 2, steps=4, generator=seeded())
    made = sample(learned(apart=False).to(kind), conditions().to(kind), 2, steps=4, generator=seeded())
    assert made.dtype == torch.float32
    off = (made - expected).norm() / expected.norm()
    assert off < (0.02 if kind == torch.bfloat16 else 1e-5)


def test_mistakes() -> None:
    made = learned(apart=False)
    for arguments, sentence in (
        ({"steps": 0}, "steps is 0"),
        ({"steps": 1000}, "from 1 to 999"),
        ({"frames": 0}, "frames is 0"),
        ({"guidance": -1.0}, "guidance is -1"),
        ({"guidance": math.nan}, "guidance is nan"),
        ({"count": 2}, "there are 3 conditions"),
    ):
        with pytest.raises(UserError, match=sentence):
            sample(made, conditions(), **{"frames": 2, **arguments})
    with pytest.raises(UserError, match="count is 0, but must be at least 1"):
        sample(made, None, 2, count=0)
    with pytest.raises(NotFiniteError, match="not finite at guidance"):
        sample(made, conditions(), 2, 1e38)
