"""The method in one file: a backbone learns to tell walkers apart by guiding a denoiser, without labels.

    python examples/method.py --steps 400

Synthetic people walk; two clips of each walk are drawn. One becomes latents of a frozen autoencoder, and noise; the
gait feature of the other helps a small video U-Net to take the noise away. `gaitdiff pretrain` does the same with
augmentation, checkpoints, several processes and the paper's settings.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from gaitdiff.data.clips import crop_sides
from gaitdiff.data.store import SequenceStore
from gaitdiff.diffusion.autoencoder import load_autoencoder
from gaitdiff.diffusion.denoiser import Denoiser
from gaitdiff.diffusion.objective import ConditionPooling
from gaitdiff.diffusion.schedule import make_schedule
from gaitdiff.diffusion.weighting import loss_weight
from gaitdiff.evaluation.features import extract
from gaitdiff.evaluation.held_out import held_out_rows
from gaitdiff.evaluation.stored import evaluate_store
from gaitdiff.models import create_model
from gaitdiff.walkers import generate

BATCH, FRAMES = 32, 4


def draw(store: SequenceStore, rows: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    """Some consecutive frames of each sequence, (B, T, 64, 64) in [0, 1]."""
    clips = []
    for row in rows:
        first = rng.integers(store.rows[row].frames - FRAMES + 1)
        clips.append(store.clip(int(row), np.arange(first, first + FRAMES)))
    return torch.from_numpy(np.stack(clips)).float() / 255


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument("--steps", type=int, default=400)
    args = parser.parse_args()
    torch.manual_seed(0)
    rng = np.random.default_rng(0)

    with tempfile.TemporaryDirectory() as folder:  # a store of aligned silhouettes; a third of the people is held out
        store = SequenceStore(generate(Path(folder) / "walks", people=args.people, sequences=4, seed=1))
        train, held_out = store.select(split="train"), held_out_rows(store)

        backbone = create_model("smplgait", "walkers").backbone  # clip (B, T, 64, 44) → feature (B, C, P)
        pooling = ConditionPooling("all-parts", backbone.channels, backbone.parts, normalize=True)  # → (B, C·P)
        denoiser = Denoiser.preset("walkers", pooling.width)  # (latents, t, condition, dropped) → noise
        autoencoder = load_autoencoder("student")  # frozen: clip (B, T, 64, 64) → latents (B, 4, T, 8, 8)
        schedule = make_schedule("inverted-cosine")
        optimizer = torch.optim.AdamW([*backbone.parameters(), *denoiser.parameters()], lr=1e-3)

        def rank1() -> float:
            backbone.eval()
            features = extract(backbone, store, held_out, torch.device("cpu"))  # raw features, whole sequences
            backbone.train()
            return float(evaluate_store(features, store, held_out, "leave-one-out")["rank1"])

        print(f"step 0: rank-1 of raw features {rank1():.1f}")
        for step in range(1, args.steps + 1):
            rows = rng.choice(train, BATCH)
            latents = autoencoder.encode(draw(store, rows, rng))  # of one clip
            condition = pooling(backbone(crop_sides(draw(store, rows, rng))))  # of another clip of the same walk
            t = torch.randint(1, schedule.steps + 1, (BATCH,))
            noise = torch.randn_like(latents)
            dropped = torch.rand(BATCH) < 0.15  # for these a learned null takes the condition's place
            predicted = denoiser(schedule.add_noise(latents, noise, t), t, condition, dropped)
            error = (predicted - noise).square().flatten(1).mean(1)
            loss = (loss_weight("mnp", schedule.snr(t)) * error).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % 100 == 0 or step == args.steps:
                print(f"step {step}: loss {loss.item():.4f}, rank-1 of raw features {rank1():.1f}")


if __name__ == "__main__":
    main()
