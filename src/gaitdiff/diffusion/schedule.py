"""Noise schedules: how much of a latent clip is left at each of the T noise levels."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from gaitdiff.errors import UserError, nearest

#: No step takes away more than this share of ᾱ: the last ones stay above zero (Nichol & Dhariwal 2021).
MAX_BETA = 0.999


def inverted_cosine(u: Tensor, s: float = 0.008) -> Tensor:
    """ᾱ(u) = (2(1+s)/π)·arccos(√u) − s for u in (0, 1] (SODA, Hudson et al. 2023).

    It is the inverse function of the cosine schedule, so it dwells on medium noise.
    """
    return (2.0 * (1.0 + s) / math.pi) * torch.arccos(u.sqrt()) - s


def cosine(u: Tensor, s: float = 0.008) -> Tensor:
    """ᾱ(u) = f(u)/f(0) with f(u) = cos²(π/2·(u+s)/(1+s)) for u in (0, 1] (Nichol & Dhariwal 2021, eq. 17)."""
    return (torch.cos((u + s) / (1.0 + s) * (math.pi / 2)) / math.cos(s / (1.0 + s) * (math.pi / 2))) ** 2


SCHEDULES: dict[str, Callable[[Tensor], Tensor]] = {"inverted-cosine": inverted_cosine, "cosine": cosine}


class NoiseSchedule(nn.Module):
    """ᾱ at the noise levels t = 1..T, and what follows from it.

    ``alpha_bar`` is a (T+1,) float32 buffer indexed by t itself: ``alpha_bar[0]`` is 1 (clean data), and
    ``alpha_bar[1:]`` lies strictly inside (0, 1) and strictly decreases. Methods take t as (B,) integers
    in 1..T, 0 being clean data, and data as (B, …).
    """

    alpha_bar: Tensor

    def __init__(self, curve: Callable[[Tensor], Tensor], steps: int = 1000) -> None:
        super().__init__()
        self.steps = steps
        values = [1.0]
        for value in curve(torch.arange(1, steps + 1, dtype=torch.float64) / steps).tolist():
            values.append(max(value, (1.0 - MAX_BETA) * values[-1]))
        table = torch.tensor(values, dtype=torch.float64).float()
        if not bool((table.diff() < 0).all() and table[-1] > 0):
            raise UserError(
                f"a noise schedule of {steps} steps cannot be held in float32: its values do not strictly "
                "decrease inside (0, 1); use fewer steps"
            )
        self.register_buffer("alpha_bar", table, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> NoiseSchedule:
        """Move, but stay in float32: in fewer bits the first levels would be clean data."""
        exact = self.alpha_bar
        super()._apply(fn, recurse)
        if self.alpha_bar.dtype != exact.dtype:
            self.alpha_bar = exact.to(self.alpha_bar.device)
        return self

    def snr(self, t: Tensor) -> Tensor:
        """Signal-to-noise ratio ᾱ/(1−ᾱ) at t, (B,)."""
        alpha_bar = self.alpha_bar[t]
        return alpha_bar / (1.0 - alpha_bar)

    def levels(self, log_snr: Tensor) -> Tensor:
        """The noise levels t, (B,) int64, whose log SNR are nearest to ``log_snr`` (B,)."""
        known = torch.logit(self.alpha_bar[1:])
        return torch.searchsorted(-(known[1:] + known[:-1]) / 2, -log_snr) + 1

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t = √ᾱ·x0 + √(1−ᾱ)·ε."""
        alpha_bar = self._like(x0, t)
        return alpha_bar.sqrt() * x0 + (1.0 - alpha_bar).sqrt() * noise

    def predict_x0(self, x_t: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The clean data that ``x_t`` is made of when ``noise`` is the noise in it: (x_t − √(1−ᾱ)·ε)/√ᾱ."""
        alpha_bar = self._like(x_t, t)
        return (x_t - (1.0 - alpha_bar).sqrt() * noise) / alpha_bar.sqrt()

    def _like(self, x: Tensor, t: Tensor) -> Tensor:
        return self.alpha_bar[t].view(-1, *[1] * (x.ndim - 1))


def make_schedule(name: str, steps: int = 1000) -> NoiseSchedule:
    """Return the schedule called ``name``: "inverted-cosine" (the paper's) or "cosine".

    Raises UserError for an unknown name or a number of steps that is none or that no table can hold.
    """
    if name not in SCHEDULES:
        raise UserError(f"unknown noise schedule {name!r}{nearest(name, SCHEDULES)}; known are {', '.join(SCHEDULES)}")
    if not isinstance(steps, int) or steps < 1:
        raise UserError(f"a noise schedule needs a whole number of steps, at least 1, not {steps!r}")
    return NoiseSchedule(SCHEDULES[name], steps)
