"""Latent clips out of noise: DDIM with classifier-free guidance.

Sources: Song et al. 2021, "Denoising Diffusion Implicit Models"; Ho & Salimans 2022, "Classifier-Free Diffusion
Guidance".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from gaitdiff.diffusion.objective import DiffusionObjective
from gaitdiff.diffusion.schedule import NoiseSchedule
from gaitdiff.errors import NotFiniteError, UserError

#: The least signal-to-noise ratio that sampling begins at.
LEAST_SNR = 0.01


def sampling_levels(schedule: NoiseSchedule, steps: int) -> list[int]:
    """The noise levels t that sampling visits, from the noisiest to 1, evenly spaced; a single one is the noisiest.

    The noisiest is the highest with a signal-to-noise ratio of ``LEAST_SNR``, not T. At T both schedules end in hardly
    any signal, and the clean data are the noise's error divided by √ᾱ: there a denoiser that predicts noise says
    nothing about them, and its least fault becomes hundreds (Lin et al. 2024, "Common Diffusion Noise Schedules and
    Sample Steps are Flawed").

    Raises:
        UserError: less than one step, or more than there are such levels.
    """
    snr = schedule.snr(torch.arange(1, schedule.steps + 1, device=schedule.alpha_bar.device))
    first = max(int((snr >= LEAST_SNR).sum()), 1)
    if not 1 <= steps <= first:
        raise UserError(f"steps is {steps}, but sampling takes from 1 to {first}")
    return [round(level) for level in np.linspace(first, 1, steps).tolist()]


@torch.no_grad()
def sample(
    objective: DiffusionObjective,
    condition: Tensor | None,
    frames: int,
    guidance: float = 2.0,
    steps: int = 16,
    generator: torch.Generator | None = None,
    *,
    count: int | None = None,
    side: int = 8,
    told: Callable[[], None] | None = None,
) -> Tensor:
    """Draw latent clips from what a denoiser has learned.

    DDIM without added noise (η = 0) from white noise. The noise at each step is ε = ε_null + S·(ε_cond − ε_null), both
    of one batch: guidance S = 1 follows the condition as it was trained, 0 goes without, more exaggerates it.

    Where an objective denoises ``frames_apart``, each frame begins with a noise of its own, and nothing but the
    condition ties the frames of a clip together: they are silhouettes, and no movement.

    Args:
        objective: in evaluation mode.
        condition: (B, width) of its pooling; None: the learned null in all of them.
        frames: T of the latent clips, at least 1.
        guidance: S, not negative; without a condition it says nothing.
        steps: see ``sampling_levels``.
        generator: of the noise that clips begin with, on the CPU or the objective's device; torch's own by default.
        count: B, where there is no condition; 1 by default.
        side: h and w, an eighth of the frames' height.
        told: called after each step.

    Returns:
        (B, 4, T, side, side) float32, on the objective's device.

    Raises:
        UserError: an argument is out of its range, or ``count`` is another than that of the conditions.
        NotFiniteError: the latents are no numbers, as with a guidance far too strong.
    """
    if not (math.isfinite(guidance) and guidance >= 0):
        raise UserError(f"guidance is {guidance}, but must be a number from 0 on")
    if frames < 1:
        raise UserError(f"frames is {frames}, but a clip has at least 1")
    levels = sampling_levels(objective.schedule, steps)
    device = objective.schedule.alpha_bar.device
    size = len(condition) if condition is not None else 1 if count is None else count
    if count not in (None, size):
        raise UserError(f"count is {count}, but there are {size} conditions: leave it out")
    if size < 1:
        raise UserError(f"count is {size}, but must be at least 1")
    drawn_on = device if generator is None else generator.device
    x = torch.randn(size, 4, frames, side, side, generator=generator, device=drawn_on).to(device)
    for level, after in pairwise([*levels, 0]):  # 0 is clean data
        noise = _guided(objective, x, level, condition, guidance)
        t, later = (torch.full((size,), one, dtype=torch.long, device=device) for one in (level, after))
        x = objective.schedule.add_noise(objective.schedule.predict_x0(x, noise, t), noise, later)
        if told is not None:
            told()
    if not bool(x.isfinite().all()):
        raise NotFiniteError(f"the samples are not finite at guidance {guidance:g}: lower it, or give another run")
    return x


def _guided(objective: DiffusionObjective, x: Tensor, level: int, condition: Tensor | None, guidance: float) -> Tensor:
    """The guided noise in ``x`` (B, 4, T, h, w) at one level, float32."""
    kind = next((one.dtype for one in objective.denoiser.parameters()), x.dtype)
    x, condition = x.to(kind), condition if condition is None else condition.to(kind)
    t = torch.full((len(x),), level, dtype=torch.long, device=x.device)
    none = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    if condition is None or guidance == 0:
        return objective.predict(x, t, x.new_zeros(len(x), objective.pooling.width), ~none)
    if guidance == 1:
        return objective.predict(x, t, condition, none)
    both = objective.predict(
        torch.cat((x, x)), torch.cat((t, t)), torch.cat((condition, condition)), torch.cat((none, ~none))
    )
    with_it, without = both.chunk(2)
    return without + guidance * (with_it - without)
