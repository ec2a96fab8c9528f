"""What a grid will cost: seconds of a step, measured on this machine, and bytes of a run folder."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gaitdiff.config.schema import (
    NO_AUGMENT,
    BatchConfig,
    DiffusionConfig,
    FinetuneOptim,
    PretrainConfig,
    PretrainOptim,
    RunConfig,
)
from gaitdiff.errors import UserError
from gaitdiff.paper.grid import Grid, Job
from gaitdiff.training.cost import measure_step
from gaitdiff.training.device import make_accelerator
from gaitdiff.utils.progress import track
from gaitdiff.walkers import generate

_FRAMES_A_STEP = 128  # frames of a measured step on a CPU, larger ones are taken to cost in proportion
_PEOPLE, _FRAMES = 32, 60  # of the walkers that it is measured on
_STEPS = 2  # measured, after one that is not


@dataclass(frozen=True)
class Cost:
    """What a run costs.

    Attributes:
        iterations: of the run.
        seconds: all of them together, without evaluations.
        size: bytes of its checkpoints.
        stand_in: whether a step was measured with the student in place of TAESD, which is not at hand.
    """

    iterations: int
    seconds: float
    size: int
    stand_in: bool = False


def costs(grid: Grid, jobs: Sequence[Job]) -> dict[str, Cost]:
    """The costs of runs, by the job's name; steps that are alike are measured once.

    Raises:
        UserError: the settings of a run cannot be.
    """
    steps = {job.name: _Step.of(grid, job) for job in jobs}
    measured: dict[str, tuple[float, int, bool]] = {}
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "walkers"
        alike = {repr(step): step for step in steps.values()}
        if alike:
            generate(store, people=_PEOPLE, sequences=2, frames=_FRAMES, test_people=0, workers=1)
        for key, step in track(alike.items(), "measuring steps"):
            measured[key] = step.measured(store, Path(folder))
    found = {}
    for job in jobs:
        seconds, size, stand_in = measured[repr(steps[job.name])]
        config = grid.config(job)
        kept = (config.run.keep or config.optim.iterations // config.run.save_every) + 1  # one more while it is written
        found[job.name] = Cost(config.optim.iterations, seconds * config.optim.iterations, size * kept, stand_in)
    return found


@dataclass(frozen=True)
class _Step:
    """What the cost of a step depends on: the settings without the others, and whether the backbone learns."""

    config: Any  # of a stage
    frozen: bool

    @classmethod
    def of(cls, grid: Grid, job: Job) -> _Step:
        config: Any = grid.config(job)
        free: dict[str, Any] = {"out": "", "seed": 0, "run": RunConfig(), "data": replace(config.data, store="")}
        free["augment"] = NO_AUGMENT
        if isinstance(config, PretrainConfig):
            free["optim"] = PretrainOptim(batch=config.optim.batch, warmup=0)
            usual = DiffusionConfig(autoencoder=config.diffusion.autoencoder, denoiser=config.diffusion.denoiser)
            kept = {name: getattr(config.diffusion, name) for name in ("pooling", "projector", "frames_apart")}
            return cls(replace(config, **free, diffusion=replace(usual, **kept)), False)
        free["optim"] = FinetuneOptim(optimizer=config.optim.optimizer, lr=1e-9, milestones=())
        model = config.model if job.start is None else grid.config(job.start).model
        return cls(replace(config, **free, init="", mode="scratch", model=model), config.mode == "frozen")

    def measured(self, store: Path, folder: Path) -> tuple[float, int, bool]:
        """Seconds of a step, bytes of a checkpoint, and whether the student stood in for TAESD."""
        config, share = self._small(whole=make_accelerator(self.config.machine).device.type != "cpu")
        config = replace(config, data=replace(config.data, store=str(store)), out=str(folder / "run"))
        try:
            cost, stand_in = measure_step(config, _STEPS, self.frozen), False
        except UserError:
            if not isinstance(config, PretrainConfig) or config.diffusion.autoencoder == "student":
                raise
            student = replace(config, diffusion=replace(config.diffusion, autoencoder="student"))
            cost, stand_in = measure_step(student, _STEPS), True
        return cost.seconds / share, cost.checkpoint, stand_in

    def _small(self, whole: bool) -> tuple[Any, float]:
        """The same with a batch of few sequences, and which share of the batch they are."""
        config = self.config
        if isinstance(config, PretrainConfig):
            frames = config.data.latent_frames + config.data.gait_frames
            few = min(config.optim.batch, config.optim.batch if whole else max(2, _FRAMES_A_STEP // frames))
            return replace(config, optim=replace(config.optim, batch=few)), few / config.optim.batch
        people = min(_PEOPLE if whole else max(2, _FRAMES_A_STEP // config.data.frames // 4), config.batch.people)
        each = config.batch.sequences if whole else min(2, config.batch.sequences)
        share = people * each / (config.batch.people * config.batch.sequences)
        return replace(config, batch=BatchConfig(people, each)), share
