"""What makes pretraining learn: one lever at a time at equal CPU time, judged by few-label fine-tuning.

    python -m benchmarks.study walkers --out study [--preset wild]
    python -m benchmarks.study pretrain --out study [--only base joint …]
    python -m benchmarks.study judge --out study

The first makes the stores: 2,000 people of preset "market" to pretrain on, 350 and 100 of them, 3,000 more beside them,
the same with nobody turning a corner, and 550 others to fine-tune and test with. The second trains what has not been
trained yet; several of it share the work. The third fine-tunes from what is there and writes
benchmarks/results/learning/study.json. The network is the preset "walkers" at half its width.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.measure import origin, write
from gaitdiff.commands import label_curve
from gaitdiff.config.command_line import command
from gaitdiff.config.recipe import parse_config
from gaitdiff.config.schema import PretrainConfig
from gaitdiff.data.store import Sequence as Walk
from gaitdiff.data.store import SequenceStore, StoreWriter
from gaitdiff.training.pretrain import pretrain
from gaitdiff.training.run_folder import read_config, read_metrics
from gaitdiff.utils.progress import console, say
from gaitdiff.walkers import generate
from gaitdiff.walkers.presets import Preset, get_preset

_NETWORK = '{"channels": [8, 16, 32]}'
_START, _NOTHING, _PLAIN = "walkers/pretrain", "walkers/pretrain_from_nothing", "walkers/pretrain_plain"
_NO_AUGMENTATION = [f"--augment.{name}=0" for name in ("affine", "perspective", "flip", "dilate", "blur")]
_MORE_AUGMENTATION = [f"--augment.{name}=0.5" for name in ("affine", "perspective", "dilate", "blur")]
_DESCENT = ("--optim.backbone_eps=1", "--optim.weight_decay=0")
#: Variants that learn from other walks than the rest.
_STORES = {"straight": "straight", **{f"people-{count}": f"turning-{count}" for count in (100, 350, 5000)}}
#: Name to recipe, time of an iteration on one thread (of "start" 1), and what differs from the recipe.
VARIANTS: dict[str, tuple[str, float, Sequence[str]]] = {
    "start": (_START, 1, ()),
    "nothing": (_NOTHING, 1, ()),
    "plain-recipe": (_PLAIN, 0.72, ()),
    "plain-mean": (_PLAIN, 0.72, ("--diffusion.pooling=mean", "--diffusion.normalize_condition=false")),
    "nothing-log-snr": (_NOTHING, 1, ("--diffusion.log_snr=[0.0,1.5]", "--diffusion.weighting=uniform")),
    "frozen": (_START, 0.88, ("--diffusion.freeze_start=true",)),
    "no-hold": (_START, 1, ("--optim.hold_backbone=0",)),
    "hold-200": (_START, 1, ("--optim.hold_backbone=200",)),
    "gait-16": (_START, 1.76, ("--data.gait_frames=16",)),
    "gait-30": (_START, 3.24, ("--data.gait_frames=30",)),
    "latent-1": (_START, 0.57, ("--data.latent_frames=1",)),
    "latent-8": (_START, 1.4, ("--data.latent_frames=8",)),
    "joint": (_START, 1, ("--diffusion.frames_apart=false",)),
    "no-projector": (_START, 1, ("--diffusion.projector=0",)),
    "mean": (_START, 1, ("--diffusion.pooling=mean",)),
    "not-normalised": (_START, 1, ("--diffusion.normalize_condition=false",)),
    "log-snr": (_START, 1, ("--diffusion.log_snr=[0.0,1.5]", "--diffusion.weighting=uniform")),
    "v-20": (_START, 1, ("--diffusion.weighting=v", "--diffusion.gamma=20")),
    "pdae": (_START, 1, ("--diffusion.weighting=pdae",)),
    "contrast": (_START, 1, ("--diffusion.contrast=1",)),
    "eps-1e-4": (_START, 1, ("--optim.backbone_eps=0.0001",)),
    # With an ε far above any gradient, AdamW is gradient descent with momentum.
    "sgd-10": (_START, 1, (*_DESCENT, "--optim.backbone_lr_ratio=10000")),
    "sgd-100": (_START, 1, (*_DESCENT, "--optim.backbone_lr_ratio=100000")),
    "ratio-0.3": (_START, 1, ("--optim.backbone_lr_ratio=0.3",)),
    "ratio-3": (_START, 1, ("--optim.backbone_lr_ratio=3",)),
    "lr-3e-3": (_START, 1, ("--optim.lr=0.003",)),
    "lr-1e-2": (_START, 1, ("--optim.lr=0.01",)),
    "lr-3e-3-no-projector": (_START, 1, ("--optim.lr=0.003", "--diffusion.projector=0")),
    "lr-1e-2-no-projector": (_START, 1, ("--optim.lr=0.01", "--diffusion.projector=0")),
    "batch-128": (_START, 2.1, ("--optim.batch=128",)),
    "batch-32": (_START, 0.52, ("--optim.batch=32",)),
    "plain": (_START, 1, _NO_AUGMENTATION),
    "more-augmentation": (_START, 1, _MORE_AUGMENTATION),
    "straight": (_START, 1, ()),
    "people-350": (_START, 1, ()),
    "people-100": (_START, 1, ()),
    "people-5000": (_START, 1, ()),
    "contrastive": ("walkers/pretrain_contrastive", 1.43, ()),
    "both": ("walkers/pretrain_both", 1.7, ()),
}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("part", choices=("walkers", "pretrain", "judge"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--preset", default="market", help="of the walkers")
    parser.add_argument("--only", nargs="+", default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--budget", type=int, default=600, help='iterations of "start", others as many as cost that')
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of pretraining")
    parser.add_argument("--people", default="40", help="labelled people, between commas")
    parser.add_argument("--tunings", type=int, default=3, help="seeds of fine-tuning; 0 tells of pretraining alone")
    args = parser.parse_args()
    if args.part == "walkers":
        _walkers(args.out, get_preset(args.preset))
    elif args.part == "pretrain":
        for seed in args.seeds:
            for name in args.only:
                _pretrain(args.out, name, args.budget, seed)
    else:
        _judge(args.out, args.only, args.people, args.tunings)


def _walkers(out: Path, preset: Preset) -> None:
    straight = replace(preset, name=f"{preset.name} without corners", corner=0.0)
    for name, chosen, seed, people, test in (
        ("turning", preset, 21, 2100, 100),
        ("straight", straight, 21, 2100, 100),
        ("labelled", preset, 31, 550, 150),
        ("more", preset, 22, 3000, 0),
    ):
        if not (out / name).exists():
            generate(out / name, people=people, sequences=6, preset=chosen, seed=seed, frames=60, test_people=test)
    for few in (350, 100):
        if not (out / f"turning-{few}").exists():
            _mixed(out / f"turning-{few}", out / "turning", few)
    if not (out / "turning-5000").exists():
        _mixed(out / "turning-5000", out / "turning", 2000, out / "more")


def _mixed(out: Path, source: Path, people: int, more: Path | None = None) -> None:
    """A store with the first people of those to train on, all others, and all of ``more``."""
    store = SequenceStore(source)
    kept = set(sorted({row.subject for row in store.rows if row.split == "train"})[:people])
    told = f"{people} people of {store.header.source}" + (f" and {SequenceStore(more).header.source}" if more else "")
    with StoreWriter(out, source=told, dataset=store.header.dataset) as writer:
        for sequence in store:
            if sequence.row.split != "train" or sequence.row.subject in kept:
                _add(writer, sequence)
        for sequence in SequenceStore(more) if more else ():
            _add(writer, sequence, "more")


def _add(writer: StoreWriter, sequence: Walk, group: str = "") -> None:
    row = sequence.row
    names = {name: getattr(row, name) for name in ("condition", "view", "sequence", "split", "role")}
    writer.add(sequence.frames, subject=f"{group}{row.subject}", **names)


def _pretrain(out: Path, name: str, budget: int, seed: int) -> None:
    """Train a variant, unless another process is at it or it is done."""
    recipe, cost, flags = VARIANTS[name]
    iterations = round(budget / cost)
    folder = out / "runs" / f"{name}-{budget}-{seed}"
    if folder.exists():
        say(f"{folder} is there: finished, stopped, or another process is at it; delete it to train it anew")
        return
    store = out / _STORES.get(name, "turning")
    words = [f"--recipe={recipe}", f"--data.store={store}", f"--out={folder}", f"--model.overrides={_NETWORK}"]
    words += [f"--optim.iterations={iterations}", f"--run.evaluate_every={iterations}", f"--seed={seed}"]
    words += ["--run.protocol=leave-one-out", "--run.log_every=50", "--run.keep=1"]
    words += ["--machine.threads=1", "--machine.precision=float32", *flags]
    pretrain(parse_config(PretrainConfig, "benchmarks.study", words))


def _judge(out: Path, only: Sequence[str], people: str, tunings: int) -> None:
    """Fine-tune from the runs of some variants, and tell of all that are there."""
    runs = {folder.name: folder for folder in sorted((out / "runs").iterdir()) if _finished(folder)}
    judged = {name: folder for name, folder in runs.items() if name.rsplit("-", 2)[0] in only}
    result: dict[str, Any] = {
        **origin(),
        "pretraining": {name: _told(folder) for name, folder in runs.items()},
    }
    if tunings:
        curve = label_curve.run(
            judged,
            out / "labelled",
            out / "labels",
            recipe="walkers/finetune",
            people=people,
            seeds=range(tunings),
            settings=("run.protocol=leave-one-out", "machine.threads=1", "machine.precision=float32"),
        )
        document = json.loads(curve.file.read_text(encoding="utf-8"))
        result["labels"] = {key: document[key] for key in ("about", "seeds", "table")}
    console.print(write("learning/study", result))


def _finished(folder: Path) -> bool:
    evaluated = [record["step"] for record in read_metrics(folder) if "evaluation" in record]
    return bool(evaluated) and evaluated[-1] == read_config(folder)["optim"]["iterations"]


def _told(folder: Path) -> dict[str, Any]:
    """How a run was started, its scores before and after, and the gap by noise level at its end."""
    evaluated = [record for record in read_metrics(folder) if "evaluation" in record]
    scores = [{key: round(value, 2) for key, value in one["evaluation"].items()} for one in evaluated]
    by_noise = evaluated[-1].get("gap_by_noise", {})  # without a denoiser there is none
    gap = {key: [round(value, 2) for value in values] for key, values in by_noise.items()}
    words = " ".join(command(read_config(folder)))
    return {"command": words, "scores_before": scores[0], "scores": scores[-1], "gap_by_noise": gap}


if __name__ == "__main__":
    main()
