"""What makes pretraining learn: one lever at a time at equal CPU time, judged by few-label fine-tuning.

    python -m benchmarks.study walkers --out study
    python -m benchmarks.study pretrain --out study [--only base joint …]
    python -m benchmarks.study judge --out study

The first makes three stores: 2,000 people of preset "market" to pretrain on, the same with nobody turning a corner, and
550 others to fine-tune and test with. The second trains what has not been trained yet; several of it share the work.
The third fine-tunes from everything that is there and writes benchmarks/results/learning/study.json. The network is
the preset "walkers" at half its width.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.measure import commit, machine, write
from gaitdiff.commands import label_curve
from gaitdiff.config.recipe import parse_config
from gaitdiff.config.schema import PretrainConfig
from gaitdiff.report.commands import command
from gaitdiff.training.pretrain import pretrain
from gaitdiff.training.run_folder import read_config, read_metrics
from gaitdiff.utils.progress import console, say
from gaitdiff.walkers import generate
from gaitdiff.walkers.presets import get_preset

_NETWORK = '{"channels": [8, 16, 32]}'
_FAST, _OLD = "walkers/pretrain_fast", "walkers/pretrain"
_NO_AUGMENTATION = [f"--augment.{name}=0" for name in ("affine", "perspective", "flip", "dilate", "blur")]
#: Name to recipe, iterations that cost as much as 1,200 of "base" on one thread, and what differs from the recipe.
VARIANTS: dict[str, tuple[str, int, Sequence[str]]] = {
    "base": (_FAST, 1200, ()),
    "start": (_FAST, 1200, ("--diffusion.start=walkers",)),
    "old": (_OLD, 1670, ()),
    "joint": (_FAST, 1200, ("--diffusion.frames_apart=false",)),
    "no-projector": (_FAST, 1200, ("--diffusion.projector=0",)),
    "no-hold": (_FAST, 1200, ("--optim.hold_backbone=0",)),
    "gait-16": (_FAST, 680, ("--data.gait_frames=16",)),
    "gait-30": (_FAST, 370, ("--data.gait_frames=30",)),
    "latent-1": (_FAST, 2100, ("--data.latent_frames=1",)),
    "log-snr": (_FAST, 1200, ("--diffusion.log_snr=[0.0,1.5]", "--diffusion.weighting=uniform")),
    "v-20": (_FAST, 1200, ("--diffusion.weighting=v", "--diffusion.gamma=20")),
    "pdae": (_FAST, 1200, ("--diffusion.weighting=pdae",)),
    "contrast": (_FAST, 1200, ("--diffusion.contrast=1",)),
    "mean": (_FAST, 1200, ("--diffusion.pooling=mean",)),
    "not-normalised": (_FAST, 1200, ("--diffusion.normalize_condition=false",)),
    "eps-1e-4": (_FAST, 1200, ("--optim.backbone_eps=0.0001",)),
    "ratio-0.3": (_FAST, 1200, ("--optim.backbone_lr_ratio=0.3",)),
    "ratio-3": (_FAST, 1200, ("--optim.backbone_lr_ratio=3",)),
    "lr-3e-3": (_FAST, 1200, ("--optim.lr=0.003",)),
    "batch-128": (_FAST, 570, ("--optim.batch=128",)),
    "batch-32": (_FAST, 2290, ("--optim.batch=32",)),
    "plain": (_FAST, 1200, _NO_AUGMENTATION),
    "straight": (_FAST, 1200, ()),
}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("part", choices=("walkers", "pretrain", "judge"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of pretraining")
    parser.add_argument("--people", default="40", help="labelled people, between commas")
    parser.add_argument("--tunings", type=int, default=2, help="seeds of fine-tuning")
    args = parser.parse_args()
    if args.part == "walkers":
        _walkers(args.out)
    elif args.part == "pretrain":
        for seed in args.seeds:
            for name in args.only:
                _pretrain(args.out, name, seed)
    else:
        _judge(args.out, args.people, args.tunings)


def _walkers(out: Path) -> None:
    market = get_preset("market")
    straight = replace(market, name="market without corners", corner=0.0)
    for name, preset, seed, people, test in (
        ("turning", market, 21, 2100, 100),
        ("straight", straight, 21, 2100, 100),
        ("labelled", market, 31, 550, 150),
    ):
        if not (out / name).exists():
            generate(out / name, people=people, sequences=6, preset=preset, seed=seed, frames=60, test_people=test)


def _pretrain(out: Path, name: str, seed: int) -> None:
    """Train a variant, unless another process is at it or it is done."""
    recipe, iterations, flags = VARIANTS[name]
    folder = out / "runs" / f"{name}-{seed}"
    if folder.exists():
        say(f"{folder} is there: finished, stopped, or another process is at it; delete it to train it anew")
        return
    store = out / ("straight" if name == "straight" else "turning")
    words = [f"--recipe={recipe}", f"--data.store={store}", f"--out={folder}", f"--model.overrides={_NETWORK}"]
    words += [f"--optim.iterations={iterations}", f"--run.evaluate_every={iterations}", f"--seed={seed}"]
    words += ["--run.protocol=leave-one-out", "--run.linear_probe=true", "--run.log_every=50", "--run.keep=1"]
    words += ["--machine.threads=1", "--machine.precision=float32", *flags]
    pretrain(parse_config(PretrainConfig, "benchmarks.study", words))


def _judge(out: Path, people: str, tunings: int) -> None:
    runs = {folder.name: folder for folder in sorted((out / "runs").iterdir()) if _finished(folder)}
    settings = ("run.protocol=leave-one-out", "machine.threads=1", "machine.precision=float32")
    curve = label_curve.run(
        runs,
        out / "labelled",
        out / "labels",
        recipe="walkers/finetune",
        people=people,
        seeds=range(tunings),
        settings=settings,
    )
    document = json.loads(curve.file.read_text(encoding="utf-8"))
    result = {
        "commit": commit(),
        "command": f"python -m benchmarks.study judge --out study --people {people} --tunings {tunings}",
        "machine": machine(),
        "pretraining": {name: _told(folder) for name, folder in runs.items()},
        "labels": {key: document[key] for key in ("about", "seeds", "table")},
    }
    console.print(write("learning/study", result))


def _finished(folder: Path) -> bool:
    evaluated = [record["step"] for record in read_metrics(folder) if "evaluation" in record]
    return bool(evaluated) and evaluated[-1] == read_config(folder)["optim"]["iterations"]


def _told(folder: Path) -> dict[str, Any]:
    """How a run was started, its scores before and after, and the gap by noise level at its end."""
    evaluated = [record for record in read_metrics(folder) if "evaluation" in record]
    scores = [{key: round(value, 2) for key, value in one["evaluation"].items()} for one in evaluated]
    gap = {key: [round(value, 2) for value in values] for key, values in evaluated[-1]["gap_by_noise"].items()}
    words = " ".join(command(read_config(folder)))
    return {"command": words, "scores_before": scores[0], "scores": scores[-1], "gap_by_noise": gap}


if __name__ == "__main__":
    main()
