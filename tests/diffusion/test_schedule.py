"""Schedules and loss weights against their closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from gaitdiff.diffusion.schedule import SCHEDULES, make_schedule
from gaitdiff.diffusion.weighting import WEIGHTINGS, loss_weight
from gaitdiff.errors import UserError

T = 1000
S = 0.008


def closed_form(name: str, t: int) -> float:
    u = t / T
    if name == "inverted-cosine":
        return 2 * (1 + S) / math.pi * math.acos(math.sqrt(u)) - S
    f = [math.cos((x + S) / (1 + S) * math.pi / 2) ** 2 for x in (u, 0.0)]
    return f[0] / f[1]


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_alpha_bar_follows_the_closed_form(name: str) -> None:
    table = make_schedule(name).alpha_bar
    expected = [closed_form(name, t) for t in range(1, T)]
    torch.testing.assert_close(table[1:T].double(), torch.tensor(expected).double(), rtol=1e-6, atol=1e-7)
    # u = 1 is where both curves reach zero (or pass it): the clip holds the last value just above it.
    assert closed_form(name, T) < 1e-12
    assert 0 < table[T] < 0.002 * table[T - 1]


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@pytest.mark.parametrize("steps", [1, 2, 10, 100, 1000, 4000])
def test_alpha_bar_is_strictly_inside_and_strictly_decreasing(name: str, steps: int) -> None:
    table = make_schedule(name, steps).alpha_bar
    assert table.dtype == torch.float32
    assert table.shape == (steps + 1,)
    assert table[0] == 1
    assert bool((table[1:] > 0).all())
    assert bool((table[1:] < 1).all())
    assert bool((table.diff() < 0).all())


def test_inverted_cosine_is_the_inverse_of_cosine() -> None:
    """ᾱ_inverted(f(u)) = u, with f(u) = ᾱ_cosine(u)·f(0)."""
    cosine, inverted = SCHEDULES["cosine"], SCHEDULES["inverted-cosine"]
    u = torch.linspace(0.05, 0.95, 50, dtype=torch.float64)
    f0 = math.cos(S / (1 + S) * math.pi / 2) ** 2
    torch.testing.assert_close(inverted(cosine(u) * f0), u, rtol=1e-10, atol=1e-10)


def test_inverted_cosine_dwells_on_medium_noise() -> None:
    def medium(name: str) -> float:
        schedule = make_schedule(name)
        snr = schedule.snr(torch.arange(1, T + 1))
        return ((snr >= 0.2) & (snr <= 5)).double().mean().item()

    assert medium("inverted-cosine") > 1.5 * medium("cosine")


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_noise_is_added_at_the_right_strength_and_taken_off_again(name: str) -> None:
    schedule = make_schedule(name)
    g = torch.Generator().manual_seed(0)
    t = torch.tensor([1, 250, 500, 999])
    x0, noise = torch.randn(2, 4, 4, 3, 8, 8, generator=g).double()
    x_t = schedule.add_noise(x0, noise, t)
    for i, step in enumerate(t.tolist()):
        a = closed_form(name, step)
        torch.testing.assert_close(x_t[i], math.sqrt(a) * x0[i] + math.sqrt(1 - a) * noise[i], rtol=1e-5, atol=1e-5)
        assert schedule.snr(t)[i].item() == pytest.approx(a / (1 - a), rel=1e-3)
    torch.testing.assert_close(schedule.predict_x0(x_t, noise, t), x0, rtol=1e-5, atol=1e-4)


def test_unknown_schedule_names_the_nearest() -> None:
    with pytest.raises(UserError, match="'inverted-cosine'"):
        make_schedule("inverse-cosine")
    with pytest.raises(UserError, match="at least 1, not 0"):
        make_schedule("cosine", 0)
    with pytest.raises(UserError, match="whole number"):
        make_schedule("cosine", 2.5)  # type: ignore[arg-type]


def test_in_half_precision_it_stays_what_it_is() -> None:
    schedule = make_schedule("cosine")
    exact = schedule.alpha_bar.clone()
    for other in (schedule.bfloat16(), schedule.half(), schedule.double(), schedule.to("cpu")):
        assert torch.equal(other.alpha_bar, exact)
        assert other.alpha_bar.dtype == torch.float32


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_weights_follow_their_definitions(name: str) -> None:
    snr = make_schedule(name).snr(torch.arange(1, T + 1))
    values = snr.tolist()
    assert loss_weight("uniform", snr).tolist() == [1.0] * T
    min_snr = torch.tensor([min(1.0, 5 / x) for x in values])
    mnp = torch.tensor([min(1.0, 5 / x, 5 * x) for x in values])
    torch.testing.assert_close(loss_weight("min-snr", snr), min_snr)
    torch.testing.assert_close(loss_weight("mnp", snr), mnp)
    torch.testing.assert_close(loss_weight("v", snr), torch.tensor([min(5.0, (1 + x) / x) for x in values]))
    torch.testing.assert_close(loss_weight("pdae", snr), torch.tensor([x**0.1 / (1 + x) for x in values]))
    inside = (snr >= 0.2) & (snr <= 5)
    assert inside.any()
    assert (~inside).any()
    assert torch.equal(loss_weight("mnp", snr) == 1, inside)


def test_mnp_is_one_exactly_from_a_fifth_to_five() -> None:
    edges = torch.tensor([0.2, 5.0])
    assert loss_weight("mnp", edges).tolist() == [1.0, 1.0]
    beyond = torch.tensor([0.19999, 5.0001])
    assert bool((loss_weight("mnp", beyond) < 1).all())
    snr = torch.logspace(-4, 4, 81, dtype=torch.float64)
    torch.testing.assert_close(loss_weight("mnp", snr), loss_weight("mnp", 1 / snr))  # symmetric in log-SNR


@pytest.mark.parametrize("name", WEIGHTINGS)
@pytest.mark.parametrize("schedule_name", sorted(SCHEDULES))
def test_weighted_errors_agree_between_predictions(name: str, schedule_name: str) -> None:
    """Predicting ε, x0 or v gives the same loss, sample by sample, when each uses its own weight.

    With x_t = √ᾱ·x0 + √(1−ᾱ)·ε fixed, ‖ε−ε̂‖² = SNR·‖x0−x̂0‖² = SNR/(1+SNR)·‖v−v̂‖² (Salimans & Ho 2022).
    """
    schedule = make_schedule(schedule_name).double()
    g = torch.Generator().manual_seed(1)
    t = torch.randint(1, T, (32,), generator=g)
    x0, noise, guess = torch.randn(3, 32, 4, 2, 8, 8, generator=g, dtype=torch.float64)
    alpha_bar = schedule.alpha_bar[t].view(-1, 1, 1, 1, 1)
    x_t = schedule.add_noise(x0, noise, t)
    x0_guess = schedule.predict_x0(x_t, guess, t)

    def velocity(clean: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
        return alpha_bar.sqrt() * eps - (1 - alpha_bar).sqrt() * clean

    snr = schedule.snr(t)

    def loss(factor: torch.Tensor, target: torch.Tensor, got: torch.Tensor) -> torch.Tensor:
        return loss_weight(name, snr) * factor * (target - got).square().flatten(1).mean(1)

    expected = loss(torch.ones_like(snr), noise, guess)
    torch.testing.assert_close(loss(snr, x0, x0_guess), expected, rtol=1e-6, atol=0)
    of_v = loss(snr / (1 + snr), velocity(x0, noise), velocity(x0_guess, guess))
    torch.testing.assert_close(of_v, expected, rtol=1e-6, atol=0)


def test_unknown_weighting_names_the_nearest() -> None:
    snr = torch.ones(1)
    with pytest.raises(UserError, match="'min-snr'"):
        loss_weight("min_snr", snr)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_level_of_a_signal_to_noise_ratio(name: str) -> None:
    """The nearest of all."""
    schedule = make_schedule(name, 200)
    wanted = torch.linspace(-12, 12, 301)
    away = (torch.logit(schedule.alpha_bar[1:].double())[None] - wanted[:, None]).abs()
    assert schedule.levels(wanted).tolist() == (away.argmin(1) + 1).tolist()
