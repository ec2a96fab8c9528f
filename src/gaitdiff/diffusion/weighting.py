"""Loss weights as a function of the signal-to-noise ratio."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gaitdiff.errors import UserError, nearest

#: (SNR, γ) → weight, for a network that predicts the noise.
WEIGHTINGS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "mnp": lambda snr, gamma: torch.minimum(gamma / snr, gamma * snr).clamp(max=1.0),
    "min-snr": lambda snr, gamma: (gamma / snr).clamp(max=1.0),
    "uniform": lambda snr, gamma: torch.ones_like(snr),
    "v": lambda snr, gamma: ((1.0 + snr) / snr).clamp(max=gamma),
    "pdae": lambda snr, gamma: snr**0.1 / (1.0 + snr),
}


def loss_weight(name: str, snr: Tensor, gamma: float = 5.0) -> Tensor:
    """Weight w of each sample's mean squared error, from its signal-to-noise ratio; same shape as ``snr``.

    The names are defined for a network that predicts the noise ε:

    - "uniform": 1
    - "min-snr": min(1, γ/SNR) (Hang et al. 2023)
    - "mnp": min(1, γ/SNR, γ·SNR): also weighs high noise down, symmetric in log-SNR, and is 1 exactly where
      1/γ ≤ SNR ≤ γ
    - "v": min(γ, (1+SNR)/SNR), the plain error of v up to a weight of γ: high noise counts as much as medium noise
    - "pdae": SNR^0.1/(1+SNR), in which low noise counts little (Zhang et al. 2022)

    Raises:
        UserError: an unknown name.
    """
    if name not in WEIGHTINGS:
        known = f"{nearest(name, WEIGHTINGS)}; known are {', '.join(WEIGHTINGS)}"
        raise UserError(f"unknown loss weighting {name!r}{known}")
    return WEIGHTINGS[name](snr, gamma)
