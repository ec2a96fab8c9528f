"""``gaitdiff generate``: walks that a pretrained denoiser makes, like somebody's or like nobody's in particular."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from gaitdiff.commands.judge import Checked, Judge
from gaitdiff.commands.likeness import Likeness, like_each_once, like_one, like_test_people, parse_like
from gaitdiff.commands.synthetic import MADE_BY, check_output, open_output
from gaitdiff.data.clips import crop_sides
from gaitdiff.diffusion.autoencoder import load_autoencoder
from gaitdiff.diffusion.objective import DiffusionObjective
from gaitdiff.diffusion.sampling import sample, sampling_levels
from gaitdiff.errors import UserError, require_seed
from gaitdiff.models import Backbone
from gaitdiff.training.checkpoint import CheckpointInfo, read_checkpoint_info
from gaitdiff.training.checkpoint_files import tensor_file
from gaitdiff.training.device import device_for
from gaitdiff.training.pretrain import load_objective
from gaitdiff.training.run_folder import read_config
from gaitdiff.utils.progress import progress_bar, say
from gaitdiff.utils.text import counted, printable

GUIDANCE = 2.0

_MOST_FRAMES, _MOST_WALKS = 1000, 100_000
_AT_ONCE = 256  # frames that are denoised together
_NOISE = 3  # the stream of random numbers that noise comes from; likeness.py has those before it


@dataclass(frozen=True)
class Wish:
    """What is to be made.

    Attributes:
        like: ``STORE`` or ``STORE:ROW``; None: like nobody in particular.
        guidance: how much the condition counts, see ``gaitdiff.diffusion.sampling.sample``.
        frames: of each walk; None: as many as the run was trained on.
        steps: of denoising.
        count: walks.
        seed: of noise, and of what is drawn of a store.
        check: look each walk up among other walks of the people that they are like.
        judge: checkpoint whose features are compared then; None: the run's own backbone.
    """

    like: str | None = None
    guidance: float = GUIDANCE
    frames: int | None = None
    steps: int = 16
    count: int = 1
    seed: int = 0
    check: bool = False
    judge: Path | None = None

    def __post_init__(self) -> None:
        require_seed(self.seed)
        for flag, value, most in (("count", self.count, _MOST_WALKS), ("frames", self.frames, _MOST_FRAMES)):
            if value is not None and not 1 <= value <= most:
                raise UserError(f"--{flag} is {value}, but must be from 1 to {most:,}")
        if self.judge is not None and not self.check:
            raise UserError("--judge names whose features --check compares: add --check")
        if self.check and self.like is None:
            raise UserError("--check looks for people: give --like a store")

    def likeness(self) -> Likeness | None:
        """Whom the walks are like.

        Raises:
            UserError: no such store, walk or people.
        """
        if self.like is None:
            return None
        store, row = parse_like(self.like)
        if row is not None and self.check:
            raise UserError("--check looks for several people: give --like a store, without a row")
        if row is not None:
            return like_one(store, row, self.count, self.seed)
        return (like_each_once if self.check else like_test_people)(store, self.count, self.seed)


def generate(run: Path, out: Path | None, wish: Wish, device: str = "auto") -> Checked | None:
    """Make walks, and write them to ``out`` where it is given.

    Args:
        run: of ``gaitdiff pretrain``.
        out: a ``.gif`` or ``.png`` file, in which a white frame marks a real walk, or the folder of a new store.

    Returns:
        What ``wish.check`` asks for.

    Raises:
        UserError: no run of pretraining, no such walks, an argument out of its range, or ``out`` cannot be written.
    """
    likeness = wish.likeness()
    config, info = _pretraining(run)
    trained: int = config["data"]["latent_frames"]
    frames = wish.frames or trained
    check_output(out, likeness, wish.count, frames)
    if likeness is not None:
        info.require_height(likeness.store)
    place = device_for(device)
    objective = load_objective(run, place)
    sampling_levels(objective.schedule, wish.steps)
    autoencoder = load_autoencoder(config["diffusion"]["autoencoder"], place)
    side = (info.height or 64) // 8
    judge = Judge(wish.judge or run, likeness, frames, place) if wish.check and likeness is not None else None
    if out is not None:
        _tell_limits(run, objective, frames, trained)
    generator = torch.Generator().manual_seed(_state(wish.seed))
    each = max(_AT_ONCE // frames, 1)
    parts = [range(i, min(i + each, wish.count)) for i in range(0, wish.count, each)]
    source = _source(run, info, wish, likeness)
    with (
        open_output(out, likeness, frames, 8 * side, source) as put,
        progress_bar("denoising", wish.steps * len(parts)) as bar,
    ):
        for numbers in parts:
            latents = sample(
                objective,
                None if likeness is None else _condition(objective, likeness, numbers, config["data"]),
                frames,
                wish.guidance,
                wish.steps,
                generator,
                count=len(numbers),
                side=side,
                told=bar.advance,
            )
            clips = autoencoder.decode(latents).cpu().numpy()
            for number, clip in zip(numbers, clips, strict=True):
                put(number, clip)
            if judge is not None:
                judge.see(list(clips))
    return None if judge is None else judge.verdict()


def _pretraining(run: Path) -> tuple[dict[str, Any], CheckpointInfo]:
    """A run's settings, and what its newest checkpoint says.

    Raises:
        UserError: it is no run of pretraining, or has no denoiser.
    """
    give = "give a run folder of gaitdiff pretrain"
    info = read_checkpoint_info(run)
    if not info.folder.resolve().is_relative_to(run.resolve()):  # a folder of its name may be there, of data say
        raise UserError(f"{run} is a backbone that ships, without a denoiser to generate with: {give}")
    config = read_config(run)
    if config["stage"] != "pretrain":
        raise UserError(f"{run} is a run of gaitdiff {config['stage']}, without a denoiser to generate with: {give}")
    if missing := [stem for stem in ("denoiser", "pooling") if not tensor_file(info.folder, stem).is_file()]:
        raise UserError(f"{info.folder} holds no {missing[0]} to generate with: {give}")
    return config, info


def _condition(objective: DiffusionObjective, likeness: Likeness, numbers: range, data: dict[str, Any]) -> torch.Tensor:
    """The conditions of some walks, (B, width), of gait clips drawn as in training."""
    backbone = cast(Backbone, objective.backbone)
    own = (backbone.sampling, data["gait_frames"])
    drawn = ("consecutive", data["latent_frames"]) if data["same_clip"] else own
    clips = np.stack([likeness.clip(number, *drawn) for number in numbers])
    gait = torch.from_numpy(crop_sides(clips)).to(objective.schedule.alpha_bar.device).float().div_(255)
    with torch.no_grad():
        return cast(torch.Tensor, objective.pooling(backbone(gait)))


def _tell_limits(run: Path, objective: DiffusionObjective, frames: int, trained: int) -> None:
    if objective.frames_apart and frames > 1:
        say(f"{run} denoises each frame by itself: what it makes are silhouettes, and no movement")
    elif frames > trained:
        say(f"{run} has learned from clips of {counted(trained, 'frame')}, and may not move well for {frames}")


def _state(seed: int) -> int:
    return int(np.random.SeedSequence([seed, _NOISE]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _source(run: Path, info: CheckpointInfo, wish: Wish, likeness: Likeness | None) -> str:
    """What files say of the walks in them."""
    how = "like nobody in particular" if likeness is None else f"like {likeness.whose}, guidance {wish.guidance:g}"
    return printable(f"{MADE_BY}, {info.origin}, {how}, {wish.steps} steps, seed {wish.seed}")
