"""Distil the student autoencoder from TAESD on walkers, write its weights into the package, and measure it.

    python -m tools.distil_student --taesd FOLDER

The teacher's latents of walkers, augmented as in pretraining, are computed once (``--pairs`` keeps them); then the
encoder learns them, and the decoder learns to give the silhouettes back from the teacher's latents and the student's.
Beside the student stands its closed-form rival, ridge regression from patches to latents and back. About half an hour
on one core.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from benchmarks.measure import machine, write
from safetensors.torch import save_file
from torch import Tensor

from gaitdiff.data.augment import AugmentConfig, augment, draw_plan
from gaitdiff.diffusion.autoencoder import Autoencoder, load_autoencoder
from gaitdiff.diffusion.student import Student
from gaitdiff.utils.progress import track
from gaitdiff.walkers import render_sequence

ROOT = Path(__file__).resolve().parents[1]
ASSET = ROOT / "src" / "gaitdiff" / "diffusion" / "assets" / "student.safetensors"
STREET = ROOT / "tests" / "golden" / "street.npz"

#: A walk gives this many frames, this many apart.
PER_WALK, APART = 4, 3


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--taesd", default="taesd", help="TAESD's weights: path, hub id, or what GAITDIFF_TAESD says")
    parser.add_argument("--frames", type=int, default=16000, help="walkers' frames to learn from")
    parser.add_argument("--steps", type=int, default=3000, help="training steps of encoder and decoder each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pairs", type=Path, help="file to keep the teacher's latents in, or to take them from")
    parser.add_argument("--measure", action="store_true", help="measure the student of the package, train nothing")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    teacher = load_autoencoder(args.taesd)
    frames, latents = teacher_pairs(teacher, args.frames, args.seed, args.pairs)
    if not args.measure:
        student = Student()
        train_encoder(student, frames, latents, args.steps)
        train_decoder(student, frames, latents, args.steps)
        save(student, ASSET)
    report = {
        "machine": machine(),
        "distilled": {"frames": len(frames), "steps": args.steps, "seed": args.seed, "bytes": ASSET.stat().st_size},
        "sets": measure(teacher, ClosedForm(frames[:4000], latents[:4000]), args.seed),
    }
    print(write("student", report))
    print(json.dumps(report["sets"], indent=1))


def walkers(count: int, seed: int, augmented: bool, first_person: int = 0) -> Tensor:
    """Silhouettes of ``count / 4`` walks, each of another person, alternately lite and wild: (walks, 4, 64, 64)."""
    walks = [
        render_sequence(seed, first_person + i, 0, ("lite", "wild")[i % 2], frames=PER_WALK * APART)[::APART]
        for i in track(range(count // PER_WALK), "walkers")
    ]
    clips = torch.from_numpy(np.stack(walks)).float() / 255
    if augmented:
        rng = np.random.default_rng([seed, first_person])
        clips = augment(clips, draw_plan(AugmentConfig(), len(clips), 64, 64, rng))
    return clips


def teacher_pairs(teacher: Autoencoder, count: int, seed: int, kept: Path | None) -> tuple[Tensor, Tensor]:
    """Frames (N, 1, 64, 64) and the teacher's latents (N, 4, 8, 8)."""
    if kept and kept.is_file():
        stored = np.load(kept)
        return torch.from_numpy(stored["frames"]).float(), torch.from_numpy(stored["latents"])
    clips = walkers(count, seed, augmented=True)
    latents = torch.cat([teacher.encode(part) for part in track(clips.split(16), "teacher")])  # (walks, 4, 4, 8, 8)
    frames, targets = clips.flatten(0, 1)[:, None], latents.transpose(1, 2).flatten(0, 1)
    if kept:
        np.savez(kept, frames=frames.half().numpy(), latents=targets.numpy())
    return frames, targets


def batches(count: int, steps: int, size: int = 64) -> Iterator[Tensor]:
    """Row numbers of ``steps`` random batches."""
    for _ in track(range(steps), "student"):
        yield torch.randint(count, (size,))


def train_encoder(student: Student, frames: Tensor, latents: Tensor, steps: int) -> None:
    """Regress the teacher's latents."""
    optimizer, schedule = optimise(student.encoder, steps)
    for i in batches(len(frames), steps):
        loss = F.mse_loss(student.encode_frames(frames[i]), latents[i])
        advance(loss, optimizer, schedule)


def train_decoder(student: Student, frames: Tensor, latents: Tensor, steps: int) -> None:
    """Give the silhouettes back, half from the teacher's latents, half from the student's."""
    optimizer, schedule = optimise(student.decoder, steps)
    for i in batches(len(frames), steps):
        with torch.no_grad():
            own = student.encode_frames(frames[i[::2]])
        inputs, targets = torch.cat((own, latents[i[1::2]])), torch.cat((frames[i[::2]], frames[i[1::2]]))
        loss = F.binary_cross_entropy_with_logits(student.decoder(inputs), targets)
        advance(loss, optimizer, schedule)


def optimise(part: torch.nn.Module, steps: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Adam, with a short warm-up and a linear way down."""
    optimizer = torch.optim.Adam(part.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.05)
    return optimizer, schedule


def advance(loss: Tensor, optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler) -> None:
    """One step down the gradient."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()


def save(student: Student, path: Path) -> None:
    """Write the weights in half precision."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.half().contiguous() for key, tensor in student.state_dict().items()}, path)


class ClosedForm(torch.nn.Module):
    """Ridge regression: 24×24 pixels to the latent in their middle, 3×3 latents to the 8×8 pixels of the middle one."""

    def __init__(self, frames: Tensor, latents: Tensor) -> None:
        super().__init__()
        self.to_latent = ridge(self.pixels(frames), latents.flatten(2).transpose(1, 2).flatten(0, 1))
        self.to_pixel = ridge(self.neighbours(latents), F.unfold(frames, 8, stride=8).transpose(1, 2).flatten(0, 1))

    def pixels(self, frames: Tensor) -> Tensor:
        """(N, 1, 64, 64) → (N·64, 24·24 + 1)."""
        return with_one(F.unfold(frames, 24, padding=8, stride=8))

    def neighbours(self, latents: Tensor) -> Tensor:
        """(N, 4, 8, 8) → (N·64, 4·9 + 1)."""
        return with_one(F.unfold(latents, 3, padding=1))

    def encode_frames(self, frames: Tensor) -> Tensor:
        """(N, 1, 64, 64) → (N, 4, 8, 8)."""
        return (self.pixels(frames) @ self.to_latent).view(-1, 64, 4).transpose(1, 2).reshape(-1, 4, 8, 8)

    def decode_frames(self, latents: Tensor) -> Tensor:
        """(N, 4, 8, 8) → (N, 1, 64, 64) in 0..1."""
        patches = (self.neighbours(latents) @ self.to_pixel).view(-1, 64, 64).transpose(1, 2)
        return F.fold(patches, 64, 8, stride=8).clamp(0, 1)


def with_one(patches: Tensor) -> Tensor:
    """(N, features, positions) → (N·positions, features + 1), the last being 1."""
    return F.pad(patches.transpose(1, 2).flatten(0, 1), (0, 1), value=1.0)


def ridge(inputs: Tensor, targets: Tensor) -> Tensor:
    """Weights (features, outputs) of the least squares fit."""
    moments = (inputs.T @ inputs).double() + torch.eye(inputs.shape[1], dtype=torch.float64)
    return torch.linalg.solve(moments, (inputs.T @ targets).double()).float()


def measure(teacher: Autoencoder, closed_form: ClosedForm, seed: int) -> dict:
    """Latent error and what is left of the silhouettes, on held-out walkers and on people in a street."""
    rivals = {"student": load_autoencoder("student"), "closed_form": Autoencoder(closed_form)}
    held_out = {
        "walkers": walkers(400, seed + 1, augmented=False),
        "walkers_augmented": walkers(400, seed + 1, augmented=True),
        "street": torch.from_numpy(np.load(STREET)["frames"]).float().view(6, 8, 64, 64) / 255,
    }
    return {name: compare(rivals, teacher, clips) for name, clips in held_out.items()}


def compare(rivals: dict[str, Autoencoder], teacher: Autoencoder, clips: Tensor) -> dict:
    """Numbers of one set of clips (B, T, 64, 64)."""
    theirs = teacher.encode(clips)
    found: dict = {
        "frames": clips.shape[0] * clips.shape[1],
        "latent_std": round(theirs.std().item(), 4),
        "taesd": {"iou": round(iou(clips, teacher.decode(theirs)), 4)},
    }
    for name, rival in rivals.items():
        ours = rival.encode(clips)
        pairs = [torch.stack((theirs[:, c].flatten(), ours[:, c].flatten())) for c in range(4)]
        found[name] = {
            "latent_rmse_over_std": round(((ours - theirs).square().mean().sqrt() / theirs.std()).item(), 4),
            "latent_correlation": [round(torch.corrcoef(pair)[0, 1].item(), 4) for pair in pairs],
            "iou": round(iou(clips, rival.decode(ours)), 4),
            "iou_decoded_by_taesd": round(iou(clips, teacher.decode(ours)), 4),
            "iou_decoding_taesd": round(iou(clips, rival.decode(theirs)), 4),
        }
    return found


def iou(a: Tensor, b: Tensor) -> float:
    """Mean over frames of intersection over union, at 0.5."""
    a, b = (x.flatten(0, 1).flatten(1) > 0.5 for x in (a, b))
    return ((a & b).sum(1) / (a | b).sum(1).clamp(min=1)).mean().item()


if __name__ == "__main__":
    main()
