"""Loss weights over the noise levels: which of them the denoiser should spend itself on."""

from __future__ import annotations

import torch
from torch import Tensor

from gaitdiff.errors import UserError, nearest

WEIGHTINGS = ("mnp", "min-snr", "uniform")
PREDICTIONS = ("epsilon", "x0", "v")


def loss_weight(name: str, snr: Tensor, gamma: float = 5.0, prediction: str = "epsilon") -> Tensor:
    """Weight w of each sample's mean squared error, from its signal-to-noise ratio; same shape as ``snr``.

    The names are defined for a network that predicts the noise ε:

    - "uniform": 1
    - "min-snr": min(1, γ/SNR) (Hang et al. 2023)
    - "mnp": min(1, γ/SNR, γ·SNR): also weighs high noise down, symmetric in log-SNR, and is 1 exactly where
      1/γ ≤ SNR ≤ γ

    ``prediction`` names what the network predicts instead; its weighted error then equals the weighted error
    of ε. With x_t = √ᾱ·x0 + √(1−ᾱ)·ε fixed, ‖ε−ε̂‖² = SNR·‖x0−x̂0‖² = SNR/(1+SNR)·‖v−v̂‖², where
    v = √ᾱ·ε − √(1−ᾱ)·x0 (Salimans & Ho 2022).

    Raises UserError for an unknown name or prediction.
    """
    if name == "uniform":
        weight = torch.ones_like(snr)
    elif name == "min-snr":
        weight = (gamma / snr).clamp(max=1.0)
    elif name == "mnp":
        weight = torch.minimum(gamma / snr, gamma * snr).clamp(max=1.0)
    else:
        raise UserError(
            f"unknown loss weighting {name!r}{nearest(name, WEIGHTINGS)}; known are {', '.join(WEIGHTINGS)}"
        )
    if prediction == "epsilon":
        return weight
    if prediction == "x0":
        return weight * snr
    if prediction == "v":
        return weight * (snr / (1.0 + snr))
    raise UserError(
        f"unknown prediction target {prediction!r}{nearest(prediction, PREDICTIONS)}; "
        f"known are {', '.join(PREDICTIONS)}"
    )
