"""The whole method by one command: walkers, pretraining, transfer with few and many labels, tables, report."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gaitdiff.commands import label_curve
from gaitdiff.commands.evaluate import print_scores
from gaitdiff.config.recipe import parse_config
from gaitdiff.config.schema import PretrainConfig
from gaitdiff.data.store import SequenceStore
from gaitdiff.errors import UserError, require_seed
from gaitdiff.evaluation.about import compared
from gaitdiff.evaluation.features import BASELINE, extract, gait_energy_images
from gaitdiff.evaluation.held_out import held_out_rows
from gaitdiff.evaluation.scoring import DEFAULT_METRIC
from gaitdiff.evaluation.stored import evaluate_store
from gaitdiff.models import create_model
from gaitdiff.report.labels import SCRATCH
from gaitdiff.report.page import Report, write_report
from gaitdiff.training.checkpoint import load_checkpoint, read_checkpoint_info
from gaitdiff.training.device import device_for, seeded
from gaitdiff.training.pretrain import pretrain
from gaitdiff.training.run_folder import read_config
from gaitdiff.utils.locks import writing
from gaitdiff.utils.progress import answers, console
from gaitdiff.walkers import generate, store_source


@dataclass(frozen=True)
class Scale:
    """How much the quick start makes and trains.

    Attributes:
        people, test_people, sequences: of the walkers.
        labelled: how many of the training people have labels for stage 2, by turns; stage 1 uses all, and no labels.
        pretrain: flags on top of the recipe walkers/pretrain.
        finetune: settings on top of the recipe walkers/finetune.
    """

    people: int
    test_people: int
    sequences: int
    labelled: tuple[int, ...]
    pretrain: tuple[str, ...]
    finetune: tuple[str, ...]


USUAL = Scale(
    people=300,
    test_people=100,
    sequences=6,
    labelled=(10, 40, 200),
    pretrain=("--optim.iterations", "250", "--run.evaluate_every", "250"),
    finetune=("optim.iterations=150", "optim.milestones=[120]"),
)

SMALL = Scale(
    people=40,
    test_people=16,
    sequences=4,
    labelled=(8, 24),
    pretrain=(
        *("--optim.iterations", "20", "--optim.batch", "16", "--optim.warmup", "5", "--optim.hold_backbone", "5"),
        *("--run.log_every", "5", "--run.evaluate_every", "20", "--run.save_every", "20"),
    ),
    finetune=("optim.iterations=12", "optim.milestones=[8]", "run.log_every=4"),
)

#: Every held-out sequence is a probe once: six times the probes of one a person, so less of the outcome is chance.
PROTOCOL = "leave-one-out"
#: The student autoencoder was distilled on walkers of seed 0; these are people it has never seen.
_WALKERS_SEED = 1000
# Rows of the table of raw features, in its order.
_UNTRAINED, _OWN, _SHIPPED = (f"raw features, {start}" for start in ("untrained", "these minutes", "shipped"))
#: Arms of the comparison, besides from scratch.
OWN, SHIPPED = "minutes", "shipped"


def run(out: Path, *, small: bool = False, device: str = "auto", seed: int = 0) -> Path:
    """Run everything, print the tables, write ``out/report/index.html``; the same command continues a stopped run.

    Returns:
        The report's path.

    Raises:
        UserError: anything about the folder or the machine that the user can fix.
    """
    require_seed(seed)
    if any((out / name).exists() for name in ("store.json", "config.yaml")):
        raise UserError(f"{out} is a store or a run: choose another --out for the quick start's folder")
    with writing(out):
        return _run(out, SMALL if small else USUAL, device, seed)


def _run(out: Path, scale: Scale, device: str, seed: int) -> Path:
    started = time.perf_counter()
    place = device_for(device)
    store_path = out / "walkers"
    _say("1/4 walkers", f"{scale.people} synthetic people, {scale.sequences} sequences each")
    _walkers(store_path, scale, _WALKERS_SEED + seed)

    _say("2/4 pretraining", "a backbone learns from unlabelled walks by guiding a denoiser")
    pretrained = out / "pretrain"
    flags = ("--machine.device", device, "--seed", str(seed), "--run.protocol", PROTOCOL)
    words = ("--recipe", "walkers/pretrain", "--out", str(pretrained), "--data.store", str(store_path))
    pretrain(parse_config(PretrainConfig, "gaitdiff", (*words, *scale.pretrain, *flags)))

    _say("3/4 fine-tuning", "recognition: from scratch, from these minutes, and from the weights that ship")
    curve = label_curve.run(
        {OWN: pretrained, SHIPPED: Path("walkers")},
        store_path,
        out / "labels",
        recipe="walkers/finetune",
        people=",".join(map(str, scale.labelled)),
        seeds=(seed,),
        settings=(f"run.protocol={PROTOCOL}", *scale.finetune),
        device=device,
    )

    _say("4/4 report", "held-out people: every walk is looked for among all others, by other cameras")
    store, middle = SequenceStore(store_path), curve.table[len(curve.table) // 2]["people"]
    scores = _scores(store, pretrained, seed, place)
    scratch, finetuned = (curve.runs[middle, arm, seed] for arm in (SCRATCH, SHIPPED))
    verdict = _verdict(curve.table)
    facts = _facts(store, scale, pretrained, finetuned, (time.perf_counter() - started) / 60, place, seed)
    what = compared(store, held_out_rows(store), PROTOCOL)
    origins = [f"{name}: {read_checkpoint_info(path).origin}" for name, path in _weights(pretrained)]
    result = Report(
        "gaitdiff quick start",
        store_path,
        pretrained,
        {"shipped, fine-tuned": finetuned, "from scratch": scratch},
        scores,
        verdict,
        facts,
        (*origins, *what.lines(DEFAULT_METRIC)),
        curve.table,
    )
    report = write_report(out / "report", result, place)
    print_scores(scores, what, DEFAULT_METRIC, origins)
    answer = answers()
    answer.print(verdict, soft_wrap=True)
    answer.print(f"report: {report}", soft_wrap=True)
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


def _scores(store: SequenceStore, pretrained: Path, seed: int, place: torch.device) -> dict[str, dict[str, float]]:
    """Raw features, which no label has touched."""
    rows = held_out_rows(store)
    with seeded(seed):
        fresh = create_model("smplgait", "walkers").eval().to(place)
    features: dict[str, Tensor] = {
        BASELINE: gait_energy_images(store, rows),
        _UNTRAINED: extract(fresh.backbone, store, rows, place),
    }
    for name, path in _weights(pretrained):
        features[name] = extract(load_checkpoint(path, place).backbone, store, rows, place)
    return {name: evaluate_store(value, store, rows, PROTOCOL, DEFAULT_METRIC) for name, value in features.items()}


def _weights(pretrained: Path) -> list[tuple[str, Path]]:
    return [(_OWN, pretrained), (_SHIPPED, Path("walkers"))]


def _verdict(table: Sequence[Mapping[str, Any]]) -> str:
    """What the numbers show, and what they do not."""
    row = table[len(table) // 2]
    shipped, own = (row["rank1"][arm] for arm in (SHIPPED, OWN))

    def beside(found: Mapping[str, Any]) -> str:
        low, high = found["interval"]
        gain = found["difference"]
        place = "above" if gain > 0 else "below" if gain < 0 else "from"
        return f"{abs(gain):.1f} points {place} (95% interval over test people {low:+.1f} to {high:+.1f})"

    return (
        f"With {row['people']} people labelled, rank-1 after fine-tuning from the weights that ship, longer "
        f"pretrained on other synthetic people, is {beside(shipped)} training from scratch; from the minutes of "
        f"pretraining just done {beside(own)}. One seed of synthetic people shows how the method runs, not what it "
        "gains on real ones."
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
        "labels": f"of {', '.join(map(str, scale.labelled))} people by turns, for recognition",
        "sequences": f"{scale.sequences} a person, {sum(row.frames for row in store.rows)} frames in all",
        "pretraining": f"{stage1['iterations']} iterations of {stage1['batch']} sequences, with a denoiser that "
        "knows walks already",
        "supervised training": f"{stage2['iterations']} iterations, each of all runs",
        "minutes": f"{minutes:.1f} in this call",
        "command": "gaitdiff quickstart" + (" --small" if scale is SMALL else "") + f" --seed {seed}",
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, {place.type}, torch {torch.__version__}",
    }
