"""What one would put together for stage 1 from public packages: the other side of ``benchmarks.pretrain_step``.

A pickle of silhouettes a sequence, OpenCV augmentation frame by frame in the main process, TAESD on three equal
channels, ``video_diffusion_pytorch.Unet3D``, and the backbone of ``benchmarks.plain_models``.
Schedule, weights of noise levels and pooling, a few lines each, are shared with ours, so that losses can be compared.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from torch import Tensor, nn

from gaitdiff.config.schema import AugmentConfig
from gaitdiff.data.augment import AugmentPlan, draw_plan
from gaitdiff.data.clips import sample_clip
from gaitdiff.data.store import SequenceStore
from gaitdiff.diffusion.objective import DiffusionObjective, Noised
from gaitdiff.diffusion.weighting import loss_weight


def write_pickles(store: SequenceStore, folder: Path) -> list[Path]:
    """Sequences of a store as the field keeps them: a pickled array (T, 64, 64) each."""
    paths = []
    for row in range(len(store.rows)):
        paths.append(folder / f"{row:06d}.pkl")
        frames = store.clip(row, np.arange(store.rows[row].frames))
        paths[-1].write_bytes(pickle.dumps(frames, protocol=pickle.HIGHEST_PROTOCOL))
    return paths


class Pickles:
    """Batches of two clips of each sequence, each augmented by itself."""

    def __init__(
        self, paths: list[Path], batch: int, latent_frames: int, gait_frames: int, augment: AugmentConfig
    ) -> None:
        self.paths, self.batch, self.augment = paths, batch, augment
        self.latent_frames, self.gait_frames = latent_frames, gait_frames
        self.rng = np.random.default_rng(0)

    def __call__(self) -> tuple[Tensor, Tensor]:
        """(B, T, 64, 64) and (B, T', 64, 44) in [0, 1]."""
        latent, gait = [], []
        for path in self.rng.choice(len(self.paths), self.batch, replace=False):
            frames = pickle.loads(self.paths[path].read_bytes())
            window = sample_clip("consecutive", len(frames), self.latent_frames, self.rng)
            drawn = sample_clip("unordered", len(frames), self.gait_frames, self.rng)
            latent.append(self._augmented(frames[window]))
            gait.append(self._augmented(frames[drawn])[..., 10:54])
        return torch.from_numpy(np.stack(latent)), torch.from_numpy(np.stack(gait))

    def _augmented(self, clip: np.ndarray) -> np.ndarray:
        plan = draw_plan(self.augment, 1, clip.shape[1], clip.shape[2], self.rng)
        return np.stack([augment_frame(frame, plan) for frame in clip]).astype(np.float32) / 255


def augment_frame(frame: np.ndarray, plan: AugmentPlan) -> np.ndarray:
    """One frame (H, W), uint8, by a plan for one sequence."""
    size = frame.shape[::-1]
    if plan.warped[0]:
        frame = cv2.warpPerspective(frame, plan.homography[0], size, flags=cv2.INTER_LINEAR)
    if plan.flip[0]:
        frame = cv2.flip(frame, 1)
    if plan.dilate[0].any():
        top, bottom = plan.dilate_band[0]
        frame = frame.copy()
        frame[top:bottom] = cv2.dilate(frame[top:bottom], plan.dilate[0].astype(np.uint8))
    if plan.blur_band[0, 1]:
        top, bottom = plan.blur_band[0]
        frame = frame.copy()
        smooth = cv2.GaussianBlur(frame[top:bottom], (3, 3), 0)
        frame[top:bottom] = (smooth > 0.2 * 255) * np.uint8(255)
    return frame


class PeerObjective(nn.Module):
    """Backbone, pooling and Unet3D as one module whose forward is the loss.

    Args:
        ours: whose noise levels, and their weights, it takes.
    """

    def __init__(self, ours: DiffusionObjective, backbone: nn.Module, unet: nn.Module, pooling: nn.Module) -> None:
        super().__init__()
        self.backbone, self.unet, self.pooling = backbone, unet, pooling
        self.schedule, self.weighting, self.gamma = ours.schedule, ours.weighting, ours.gamma
        self.frames_apart = ours.frames_apart

    def forward(self, latents: Tensor, gait: Tensor, noised: Noised) -> Tensor:
        """The loss, a scalar, of latents (B, 4, T, 8, 8) and gait clips (B, T', 64, 44)."""
        condition = self.pooling(self.backbone(gait))
        if self.frames_apart:
            condition = condition.repeat_interleave(latents.shape[2], 0)
            latents = latents.transpose(1, 2).flatten(0, 1).unsqueeze(2)
        x_t = self.schedule.add_noise(latents, noised.noise, noised.t)
        predicted = self._denoise(x_t, noised, condition)
        error = F.mse_loss(predicted.float(), noised.noise, reduction="none").flatten(1).mean(1)
        return (loss_weight(self.weighting, self.schedule.snr(noised.t), self.gamma) * error).mean()

    def _denoise(self, x_t: Tensor, noised: Noised, condition: Tensor) -> Tensor:
        null: Any = self.unet.null_cond_emb
        condition = torch.where(noised.drop[:, None], null.to(condition.dtype), condition)
        return self.unet(x_t, noised.t, cond=condition, null_cond_prob=0.0)


def encode(tiny: AutoencoderTiny, clips: Tensor) -> Tensor:
    """Clips (B, T, 64, 64) in [0, 1] → latents (B, 4, T, 8, 8), through TAESD's three channels."""
    with torch.no_grad():
        rgb = clips.flatten(0, 1)[:, None].repeat(1, 3, 1, 1) * 2 - 1
        latents: Tensor = tiny.encode(rgb).latents
    return latents.unflatten(0, clips.shape[:2]).transpose(1, 2)
