"""Latent diffusion of silhouette clips: schedules, loss weights, denoiser, autoencoder."""

from gaitdiff.diffusion.autoencoder import Autoencoder, load_autoencoder
from gaitdiff.diffusion.denoiser import Denoiser
from gaitdiff.diffusion.denoiser_reference import load_reference_state_dict, reference_state_dict
from gaitdiff.diffusion.objective import ConditionPooling, DiffusionObjective, Noised
from gaitdiff.diffusion.sampling import sample, sampling_levels
from gaitdiff.diffusion.schedule import NoiseSchedule, make_schedule
from gaitdiff.diffusion.weighting import loss_weight

__all__ = [
    "Autoencoder",
    "ConditionPooling",
    "Denoiser",
    "DiffusionObjective",
    "NoiseSchedule",
    "Noised",
    "load_autoencoder",
    "load_reference_state_dict",
    "loss_weight",
    "make_schedule",
    "reference_state_dict",
    "sample",
    "sampling_levels",
]
