"""Runs and a store of a few ellipses, of which tests of the report make one."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml

from gaitdiff.config.flat import plain
from gaitdiff.config.schema import FinetuneConfig, PretrainConfig
from gaitdiff.data.store import StoreWriter
from gaitdiff.diffusion.autoencoder import Autoencoder
from gaitdiff.diffusion.denoiser import Denoiser
from gaitdiff.diffusion.objective import ConditionPooling
from gaitdiff.models import create_model
from gaitdiff.training.checkpoint import model_document
from gaitdiff.training.checkpoint_files import save_checkpoint

FRAMES = 6


class Pool(torch.nn.Module):
    """An autoencoder whose result is known: the mean of each 8×8 block, four times."""

    def encode_frames(self, frames: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(frames, 8).expand(-1, 4, -1, -1)

    def decode_frames(self, latents: torch.Tensor) -> torch.Tensor:
        return latents[:, :1].repeat_interleave(8, 2).repeat_interleave(8, 3).clamp(0, 1)


def load_pool(source: str, device: torch.device) -> Autoencoder:
    """What stands in for loading an autoencoder from a folder or the Hub."""
    return Autoencoder(Pool()).to(device)


def blobs(width: float, rng: np.random.Generator) -> np.ndarray:
    """Frames of a swaying ellipse: (T, 64, 64) uint8."""
    frames = np.zeros((FRAMES, 64, 64), np.uint8)
    for frame in frames:
        centre = (32 + int(rng.integers(-4, 5)), 32)
        cv2.ellipse(frame, centre, (max(2, round(width + rng.normal())), 29), 0, 0, 360, 255, -1)
    return frames


def make_store(path: Path, test_people: int = 8) -> Path:
    rng = np.random.default_rng(0)
    with StoreWriter(path, source="ellipses") as writer:
        for person in range(2 + test_people):
            split = "train" if person < 2 else "test"
            for i, view in enumerate(("cam0", "cam1", "cam2")):
                role = "" if split == "train" else "probe" if i == 0 else "gallery"
                writer.add(
                    blobs(5 + 0.8 * person, rng),
                    subject=f"p{person}",
                    condition="nm",
                    view=view,
                    sequence="s0",
                    split=split,
                    role=role,
                )
    return path


def make_run(path: Path, stage: str, config: PretrainConfig | FinetuneConfig, records: list[dict], seed: int) -> Path:
    """A run folder as training leaves it, with weights fresh from their initialisation."""
    path.mkdir()
    resolved = {"stage": stage, **plain(asdict(config))}
    (path / "config.yaml").write_text(yaml.safe_dump(resolved, sort_keys=False), encoding="utf-8")
    (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    torch.manual_seed(seed)
    model = create_model("smplgait", "walkers", 2)
    tensors = {"backbone": model.backbone.state_dict()}
    if stage == "pretrain":
        pooling = ConditionPooling("mean", model.backbone.channels, model.backbone.parts, False)
        tensors |= {
            "pooling": pooling.state_dict(),
            "denoiser": Denoiser.preset("walkers", pooling.width).state_dict(),
        }
    else:
        tensors["head"] = model.head.state_dict()
    document = model_document("smplgait", "walkers", 2, {})
    save_checkpoint(path, 10, tensors, {"model": document}, keep=1)
    return path


def scored(rank1: float) -> dict[str, float]:
    return {"rank1": rank1, "rank5": 75.0, "rank10": 87.5, "mAP": rank1 / 2, "mINP": 12.5, "probes": 8}


def pretrain_records() -> list[dict]:
    gap = {"gap_shuffled": 0.001, "gap_dropped": 0.02, "gap_loss": 0.5}
    logged = [
        {"step": step, "loss": 1 / step, **gap, "ap": 0.1, "an": 0.1 + step / 100, "lr": [1e-4, 5e-4]}
        for step in (5, 10)
    ]
    both = {f"{key}_{metric}": value for key, value in scored(25.0).items() for metric in ("cosine", "euclidean")}
    return [
        {"step": 0, "evaluation": {**both, "probes": 8}},
        *logged,
        {"step": 10, "evaluation": {**both, "probes": 8}},
    ]


def supervised_records(scores: tuple[float, ...]) -> list[dict]:
    evaluated = [{"step": 5 * i, "evaluation": scored(rank1)} for i, rank1 in enumerate(scores)]
    return [{"step": 5, "loss": 0.2, "violated": 0.5}, *evaluated]
