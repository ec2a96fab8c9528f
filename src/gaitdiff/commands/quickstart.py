"""The whole method by one command: walkers, pretraining, transfer, evaluation on held-out people, table, report."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from rich.console import Console
from torch import Tensor

from gaitdiff.commands.evaluate import print_scores
from gaitdiff.config.recipe import parse_config
from gaitdiff.config.schema import FinetuneConfig, MachineConfig, PretrainConfig
from gaitdiff.data.store import SequenceStore
from gaitdiff.errors import UserError
from gaitdiff.evaluation.about import compared
from gaitdiff.evaluation.features import evaluate_store, extract, gait_energy_images, held_out_rows
from gaitdiff.evaluation.scoring import DEFAULT_METRIC
from gaitdiff.models import create_model
from gaitdiff.report.page import BASELINE, QuickstartResult, write_report
from gaitdiff.training.checkpoint import load_checkpoint, read_checkpoint_info
from gaitdiff.training.device import make_accelerator, seeded
from gaitdiff.training.finetune import finetune
from gaitdiff.training.pretrain import pretrain
from gaitdiff.training.run_folder import read_config
from gaitdiff.utils.progress import console
from gaitdiff.walkers import generate, store_source

Config = TypeVar("Config", PretrainConfig, FinetuneConfig)


@dataclass(frozen=True)
class Scale:
    """How much the quick start makes and trains.

    Attributes:
        people, test_people, sequences: of the walkers.
        labelled: how many of the training people have labels for stage 2; stage 1 uses all, and no labels.
        pretrain, transfer: flags on top of the recipes walkers/pretrain and walkers/finetune.
    """

    people: int
    test_people: int
    sequences: int
    labelled: int
    pretrain: tuple[str, ...]
    transfer: tuple[str, ...]


USUAL = Scale(
    people=300,
    test_people=100,
    sequences=6,
    labelled=40,
    pretrain=("--optim.iterations", "1000", "--run.evaluate_every", "250"),
    transfer=(),
)

SMALL = Scale(
    people=40,
    test_people=16,
    sequences=4,
    labelled=12,
    pretrain=(
        *("--optim.iterations", "40", "--optim.batch", "16", "--optim.warmup", "5"),
        *("--run.log_every", "5", "--run.evaluate_every", "20", "--run.save_every", "20"),
    ),
    transfer=(
        *("--optim.iterations", "30", "--optim.milestones", "[20]"),
        *("--run.log_every", "5", "--run.evaluate_every", "10", "--run.save_every", "10"),
    ),
)

#: Every held-out sequence is a probe once: six times the probes of one a person, so less of the outcome is chance.
PROTOCOL = "leave-one-out"
#: The student autoencoder was distilled on walkers of seed 0; these are people it has never seen.
_WALKERS_SEED = 1000
# Rows of the table, in its order.
_UNTRAINED, _PRETRAINED = "untrained features", "pretrained features"
_SCRATCH, _FINETUNED = "trained from scratch", "pretrained, then fine-tuned"


def run(out: Path, *, small: bool = False, device: str = "auto", seed: int = 0) -> Path:
    """Run everything, print the table, write ``out/report/index.html``; the same command continues a stopped run.

    Returns:
        The report's path.

    Raises:
        UserError: anything about the folder or the machine that the user can fix.
    """
    started = time.perf_counter()
    scale = SMALL if small else USUAL
    shared = ("--machine.device", device, "--seed", str(seed), "--run.protocol", PROTOCOL)
    place = make_accelerator(MachineConfig(device=device)).device
    store_path = out / "walkers"
    _say("1/5 walkers", f"{scale.people} synthetic people, {scale.sequences} sequences each")
    _walkers(store_path, scale, _WALKERS_SEED + seed)

    _say("2/5 pretraining", "a backbone learns from unlabelled walks by guiding a denoiser")
    pretrained = out / "pretrain"
    _run(pretrain, PretrainConfig, "walkers/pretrain", pretrained, store_path, (*scale.pretrain, *shared))

    _say("3/5 fine-tuning", f"recognition from {scale.labelled} labelled people, from the pretrained backbone")
    finetuned = out / "finetuned"
    flags = ("--data.people", str(scale.labelled), *scale.transfer, *shared)
    _run(finetune, FinetuneConfig, "walkers/finetune", finetuned, store_path, ("--init", str(pretrained), *flags))
    _say("4/5 baseline", "the same steps from scratch, same seed")
    scratch = out / "scratch"
    _run(finetune, FinetuneConfig, "walkers/scratch", scratch, store_path, flags)

    _say("5/5 evaluation", "held-out people: every walk is looked for among all others, by other cameras")
    store = SequenceStore(store_path)
    scores = _scores(store, pretrained, finetuned, scratch, seed, place)
    verdict = _verdict(scores)
    facts = _facts(store, scale, pretrained, finetuned, (time.perf_counter() - started) / 60, place, seed)
    what = compared(store, held_out_rows(store), PROTOCOL)
    runs = {_PRETRAINED: pretrained, _SCRATCH: scratch, _FINETUNED: finetuned}
    origins = [f"{name}: {read_checkpoint_info(path).origin}" for name, path in runs.items()]
    named = (*origins, *what.lines(DEFAULT_METRIC))
    result = QuickstartResult(
        "gaitdiff quick start", store_path, pretrained, finetuned, scratch, scores, verdict, facts, named
    )
    report = write_report(out / "report", result, place)
    print_scores(scores, what, DEFAULT_METRIC, origins)
    answer = Console(highlight=False)
    answer.print(verdict, soft_wrap=True)
    answer.print(f"report: {report}", soft_wrap=True, markup=False)
    return report


def _say(stage: str, what: str) -> None:
    console.print(f"[bold]{stage}[/bold]  {what}", soft_wrap=True)


def _walkers(path: Path, scale: Scale, seed: int) -> None:
    if not path.exists():
        generate(
            path,
            people=scale.people,
            sequences=scale.sequences,
            preset="lite",
            seed=seed,
            test_people=scale.test_people,
        )
        return
    store = SequenceStore(path)
    wanted = store_source("lite", seed, scale.people)
    if store.header.source != wanted or len(store) != scale.people * scale.sequences:
        raise UserError(f"{path} holds other walkers than this quick start makes: choose another --out")


def _run(
    train: Callable[[Config], Path], kind: type[Config], recipe: str, out: Path, store: Path, flags: Sequence[str]
) -> None:
    argv = ["--recipe", recipe, "--out", str(out), "--data.store", str(store), *flags]
    train(parse_config(kind, "gaitdiff", argv))


def _scores(
    store: SequenceStore, pretrained: Path, finetuned: Path, scratch: Path, seed: int, place: torch.device
) -> dict[str, dict[str, float]]:
    rows = held_out_rows(store)
    learned = load_checkpoint(pretrained, place)
    with seeded(seed):
        fresh = create_model("smplgait", "walkers").eval().to(place)
    features: dict[str, Tensor] = {
        BASELINE: gait_energy_images(store, rows),
        _UNTRAINED: extract(fresh.backbone, store, rows, place),
        _PRETRAINED: extract(learned.backbone, store, rows, place),
        _SCRATCH: extract(load_checkpoint(scratch, place), store, rows, place),
        _FINETUNED: extract(load_checkpoint(finetuned, place), store, rows, place),
    }
    return {name: evaluate_store(value, store, rows, PROTOCOL, DEFAULT_METRIC) for name, value in features.items()}


def _verdict(scores: dict[str, dict[str, float]]) -> str:
    """One sentence on what the numbers show, and what they do not."""
    tuned, scratch = scores[_FINETUNED], scores[_SCRATCH]
    gain, probes = tuned["rank1"] - scratch["rank1"], int(tuned["probes"])
    # Standard error of the difference of two shares as if they came from different probes.
    spread = sum(row["rank1"] * (100 - row["rank1"]) for row in (tuned, scratch)) ** 0.5 / probes**0.5
    where = "above" if gain > 0 else "below" if gain < 0 else "at"
    size = f"{abs(gain):.1f} points {where}" if gain else "exactly at"
    clear = "more than" if abs(gain) > 2 * spread else "no more than"
    return (
        f"Fine-tuned from pretraining is {size} training from scratch in rank-1 on {probes} probes, {clear} chance "
        f"alone may give (two standard errors are {2 * spread:.1f} points): one seed and minutes of training on "
        "synthetic people show how the method runs, not what it gains on real ones."
    )


def _facts(
    store: SequenceStore,
    scale: Scale,
    pretrained: Path,
    finetuned: Path,
    minutes: float,
    place: torch.device,
    seed: int,
) -> dict[str, str]:
    stage1, stage2 = read_config(pretrained)["optim"], read_config(finetuned)["optim"]
    learned_from = scale.people - scale.test_people
    return {
        "people": f"{learned_from} to pretrain on without labels, {scale.test_people} held out",
        "labels": f"of {scale.labelled} people, for recognition",
        "sequences": f"{scale.sequences} a person, {sum(row.frames for row in store.rows)} frames in all",
        "pretraining": f"{stage1['iterations']} iterations of {stage1['batch']} sequences",
        "supervised training": f"{stage2['iterations']} iterations, each of both runs",
        "minutes": f"{minutes:.1f} in this call",
        "command": "gaitdiff quickstart" + (" --small" if scale is SMALL else "") + f" --seed {seed}",
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, {place.type}, torch {torch.__version__}",
    }
