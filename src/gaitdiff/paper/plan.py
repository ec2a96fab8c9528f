"""What a grid will cost: seconds of a step, measured on this machine, and bytes of a run folder."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gaitdiff.config.schema import NO_AUGMENT, BatchConfig, FinetuneConfig, ModelConfig, PretrainConfig, RunConfig
from gaitdiff.data.store import SequenceStore, StoreWriter
from gaitdiff.diffusion.autoencoder import load_autoencoder
from gaitdiff.errors import UserError
from gaitdiff.models import create_model
from gaitdiff.paper.grid import Grid, Job
from gaitdiff.training.cost import checkpoint_bytes, kept_checkpoints, make_stage, measure_step
from gaitdiff.training.device import make_accelerator
from gaitdiff.training.finetune import cross_entropy_weight
from gaitdiff.utils.progress import track
from gaitdiff.utils.text import lasting
from gaitdiff.walkers import render_sequence

_FRAMES_A_STEP = 128  # of a measured step on a CPU, larger ones are taken to cost in proportion
_PEOPLE, _SEQUENCES, _FRAMES = 32, 2, 60  # of the walkers that it is measured on
_STEPS = 2  # measured, after one that is not
_USUAL_PEOPLE = {"gait3d": 3000, "grew": 20_000}  # who train, where no store is given


@dataclass(frozen=True)
class Cost:
    """What a run costs.

    Attributes:
        seconds: all steps together, without evaluations.
        size: bytes of its checkpoints.
        stand_in: whether a step was measured with the student in place of TAESD, which is not at hand.
    """

    seconds: float
    size: int
    stand_in: bool = False


def in_words(left: int, jobs: int, cost: Mapping[str, Cost]) -> str:
    """What is to do, and what it costs.

    Args:
        left, jobs: numbers of runs that are not finished, and of all.
        cost: of those that are not.
    """
    if not left:
        return f"0 of {jobs} runs to do"
    seconds, size = sum(one.seconds for one in cost.values()), sum(one.size for one in cost.values()) / 1e9
    student = " (measured with the student in place of TAESD, which is not at hand)"
    return (
        f"{left} of {jobs} runs to do: about {lasting(seconds)} at the pace measured here, without evaluations, and "
        f"{size:.1f} GB of checkpoints{student if any(one.stand_in for one in cost.values()) else ''}"
    )


def costs(grid: Grid, jobs: Sequence[Job]) -> dict[str, Cost]:
    """The costs of runs, by the job's name; steps that are alike are measured once.

    Raises:
        UserError: the settings of a run cannot be.
    """
    runs = {job.run.name: job for job in jobs}  # one seed costs what another does
    steps = {name: _Step.of(grid, job) for name, job in runs.items()}
    alike = {repr(step): step for step in steps.values()}
    measured: dict[str, tuple[float, int, bool]] = {}
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "walkers"
        if alike:
            _make_walkers(store)
        for key, step in track(alike.items(), "measuring steps"):
            measured[key] = step.measured(store, Path(folder))
    found = {}
    for name, job in runs.items():
        seconds, size, stand_in = measured[repr(steps[name])]
        config = grid.config(job)
        if isinstance(config, FinetuneConfig):
            size = max(size, _supervised_bytes(grid, job, config))
        size *= kept_checkpoints(config) + 1  # one more while it is written
        found[name] = Cost(seconds * config.optim.iterations, size, stand_in)
    return {job.name: found[job.run.name] for job in jobs}


def _make_walkers(store: Path) -> None:
    """One walk, beginning elsewhere for each person and sequence: a step takes as long, and it is drawn sooner."""
    walk = render_sequence(0, 0, 0, frames=_FRAMES)
    try:
        with StoreWriter(store, source="one walk") as writer:
            for number in range(_PEOPLE * _SEQUENCES):
                person, sequence = divmod(number, _SEQUENCES)
                writer.add(
                    np.roll(walk, number, axis=0),
                    subject=f"{person}",
                    condition="",
                    view="",
                    sequence=f"{sequence}",
                    split="train",
                    role="",
                )
    except UserError as error:
        raise UserError(
            f"the plan is measured on a few walkers, for which {store.parent} has no place: set TMPDIR to another"
        ) from error


def _model_of(grid: Grid, job: Job) -> ModelConfig:
    config = grid.config(job)
    return config.model if job.start is None else grid.config(job.start).model


def _supervised_bytes(grid: Grid, job: Job, config: FinetuneConfig) -> int:
    """A checkpoint's bytes with as many classes as there are people to train."""
    store = grid.stores.get(job.run.data)
    people = config.data.people or _USUAL_PEOPLE.get(job.run.data, _PEOPLE)
    if store is not None and store.exists() and not config.data.people:
        people = len({row.subject for row in SequenceStore(store).rows if row.split == "train"})
    model = _model_of(grid, job)
    if not model.name:  # starts from something that is not of the grid
        return 0
    classes = people if cross_entropy_weight(config.loss, model) > 0 else 0
    with torch.device("meta"):
        return checkpoint_bytes(create_model(model.name, model.preset, classes, **model.overrides))


@dataclass(frozen=True)
class _Step:
    """What the cost of a step depends on: the settings without the others, and whether the backbone learns."""

    config: Any  # of a stage
    frozen: bool

    @classmethod
    def of(cls, grid: Grid, job: Job) -> _Step:
        config: Any = grid.config(job)
        free: dict[str, Any] = {"out": "", "seed": 0, "run": RunConfig(), "data": replace(config.data, store="")}
        rates: dict[str, Any] = {"iterations": 1, "lr": 1e-9, "backbone_lr_ratio": 1.0, "weight_decay": 0.0}
        free["augment"] = NO_AUGMENT
        if isinstance(config, PretrainConfig):
            rates |= {"backbone_eps": 1e-8, "warmup": 0, "hold_backbone": 0}
            levels: dict[str, Any] = {
                "schedule": "inverted-cosine",
                "weighting": "mnp",
                "gamma": 5.0,
                "p_uncond": 0.15,
                "log_snr": None,
            }
            free["diffusion"] = replace(config.diffusion, start="", freeze_start=False, **levels)
            return cls(replace(config, **free, init="", optim=replace(config.optim, **rates)), False)
        free["optim"] = replace(config.optim, **rates, milestones=(), layer_decay=1.0, freeze_blocks=0)
        free["data"] = replace(free["data"], people=0)
        model = _model_of(grid, job)
        if not model.name:  # from a checkpoint that is not of the grid
            return cls(replace(config, **free), config.mode == "frozen")
        return cls(replace(config, **free, init="", mode="scratch", model=model), config.mode == "frozen")

    def measured(self, store: Path, folder: Path) -> tuple[float, int, bool]:
        """Seconds of a step, bytes of a checkpoint, and whether the student stood in for TAESD."""
        place = make_accelerator(self.config.machine).device
        config, share = self._small(whole=place.type != "cpu")
        config = replace(config, data=replace(config.data, store=str(store)), out=str(folder / "run"))
        stand_in = isinstance(config, PretrainConfig) and not _at_hand(config.diffusion.autoencoder)
        if stand_in:
            config = replace(config, diffusion=replace(config.diffusion, autoencoder="student"))
        stage = make_stage(config)
        if self.frozen:
            stage.module.frozen = True
            stage.module.model.backbone.requires_grad_(False)
        return measure_step(stage, config, _STEPS) / share, checkpoint_bytes(stage.module), stand_in

    def _small(self, whole: bool) -> tuple[Any, float]:
        """The same with a batch of few sequences, and which share of the batch they are."""
        config = self.config
        if isinstance(config, PretrainConfig):
            frames = config.data.latent_frames + config.data.gait_frames
            parts = config.optim.accumulate
            few = min(config.optim.batch, config.optim.batch if whole else max(2, _FRAMES_A_STEP // frames) * parts)
            return replace(config, optim=replace(config.optim, batch=few)), few / config.optim.batch
        clips = config.batch.people * config.batch.sequences
        people = min(_PEOPLE, clips // _SEQUENCES)
        if not whole:
            people = min(people, max(2, _FRAMES_A_STEP // config.data.frames // 4))
        return replace(config, batch=BatchConfig(people, _SEQUENCES)), people * _SEQUENCES / clips


@cache  # it may be looked for on the network
def _at_hand(autoencoder: str) -> bool:
    try:
        load_autoencoder(autoencoder)
    except UserError:
        return False
    return True
