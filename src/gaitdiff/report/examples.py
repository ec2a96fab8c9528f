"""What pretraining does to one sequence, step by step: augmentations, latents, noise and its removal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from gaitdiff.config.schema import NO_AUGMENT
from gaitdiff.data.augment import augment, draw_plan
from gaitdiff.data.clips import crop_sides, pad_sides, sample_clip
from gaitdiff.data.store import SequenceStore
from gaitdiff.diffusion.autoencoder import load_autoencoder
from gaitdiff.models import Backbone
from gaitdiff.report.animation import changed_frames
from gaitdiff.training.pretrain import load_objective

#: Names of the augmentations, in the order in which a report shows them.
AUGMENTATIONS = ("affine", "perspective", "flip", "dilate", "blur")

_DRAWS = 15  # draws of an augmentation, the one of median strength is shown
_LEVELS = (0.1, 0.5, 0.9)  # noise levels shown, as shares of the schedule's steps


def augmented(frames: np.ndarray, names: tuple[str, ...], seed: int = 0) -> np.ndarray:
    """A typical draw of some augmentations, the one of median strength among fifteen.

    Args:
        frames: (T, H, W) uint8.
        names: of ``AUGMENTATIONS``; all of them are applied for certain.

    Returns:
        (T, H, W) float32 in 0..1.
    """
    config = replace(NO_AUGMENT, **dict.fromkeys(names, 1.0))
    height, width = frames.shape[1:]
    plan = draw_plan(config, _DRAWS, height, width, np.random.default_rng(seed))
    clip = torch.from_numpy(np.ascontiguousarray(frames)).float().div(255)
    still = clip[:: max(1, len(clip) // 4)]
    change = (augment(still.expand(_DRAWS, *still.shape), plan) - still).abs().mean((1, 2, 3))
    median = int(change.argsort()[_DRAWS // 2])
    return augment(clip[None], plan.of(slice(median, median + 1)))[0].numpy()


def each_augmented(frames: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """What each augmentation changes in (T, H, W) uint8 frames, then all of them: (T, H, W, 3) uint8 by name.

    See ``changed_frames`` for the colours.
    """
    plain = frames.astype(np.float32) / 255
    for name, kinds in [*((name, (name,)) for name in AUGMENTATIONS), ("all together", AUGMENTATIONS)]:
        yield name, changed_frames(plain, augmented(frames, kinds))


@dataclass(frozen=True)
class Denoised:
    """One noise level: ``noised`` and ``predicted`` are decoded clips (T, 64, 64) in 0..1."""

    t: int
    alpha_bar: float
    noised: np.ndarray
    predicted: np.ndarray


@dataclass(frozen=True)
class LatentExample:
    """A clip's way through the autoencoder and the denoiser.

    Attributes:
        frames: (T, 64, 64) in 0..1.
        latents: (4, T, 8, 8).
        decoded: (T, 64, 64) in 0..1, from the latents.
        iou: overlap of ``frames`` and ``decoded`` at a threshold of one half, intersection over union.
        levels: noise levels from low to high.
    """

    frames: np.ndarray
    latents: np.ndarray
    decoded: np.ndarray
    iou: float
    levels: tuple[Denoised, ...]


def latent_example(
    run: Path, config: dict[str, Any], store: SequenceStore, row: int, device: torch.device
) -> LatentExample:
    """Encode a clip, decode it again, noise it, and let the pretrained denoiser predict it from the noise.

    The condition comes from another clip of the same sequence, as in training; noise is drawn from a fixed seed.

    Args:
        run, config: a run of ``gaitdiff pretrain`` and its configuration.
        row: which sequence of the store.

    Raises:
        UserError: the run has no checkpoint, or the autoencoder's weights are not to be had.
    """
    objective = load_objective(run, device)
    sampling = cast(Backbone, objective.backbone).sampling
    autoencoder = load_autoencoder(config["diffusion"]["autoencoder"], device)
    data, available, rng = config["data"], store.rows[row].frames, np.random.default_rng(0)
    window = sample_clip("consecutive", available, data["latent_frames"], rng)
    clip = _clip(store, row, window, device)
    seen = window if data["same_clip"] else sample_clip(sampling, available, data["gait_frames"], rng)
    gait = crop_sides(_clip(store, row, seen, device))
    latents = autoencoder.encode(clip)
    decoded = autoencoder.decode(latents)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0)).to(device)
    with torch.no_grad():
        condition = objective.pooling(objective.backbone(gait))
        levels = []
        for share in _LEVELS:
            t = torch.tensor([max(1, round(share * objective.schedule.steps))], device=device)
            noised = objective.schedule.add_noise(latents, noise, t)
            predicted = objective.predict(noised, t, condition)
            clean = objective.schedule.predict_x0(noised, predicted, t)
            signal = float(objective.schedule.alpha_bar[t])
            levels.append(
                Denoised(int(t), signal, _frames(autoencoder.decode(noised)), _frames(autoencoder.decode(clean)))
            )
    a, b = clip > 0.5, decoded > 0.5
    iou = float((a & b).sum() / (a | b).sum().clamp(min=1))
    return LatentExample(_frames(clip), latents[0].cpu().numpy(), _frames(decoded), iou, tuple(levels))


def _clip(store: SequenceStore, row: int, index: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(pad_sides(store.clip(row, index))).to(device).float().div_(255)[None]


def _frames(clips: Tensor) -> np.ndarray:
    return clips[0].cpu().numpy()
