"""Does pretraining help? Scratch against fine-tuned over several seeds, and what the pretraining run itself showed.

    python -m benchmarks.transfer --store STORE --pretrained RUN --runs FOLDER

The runs are ordinary ones of ``gaitdiff finetune`` below FOLDER and continue where they were stopped; the result is
benchmarks/results/transfer.json and docs/figures/transfer.png.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.table import Table

from benchmarks.measure import origin, write
from gaitdiff.config.recipe import parse_config
from gaitdiff.config.schema import FinetuneConfig
from gaitdiff.data.store import SequenceStore
from gaitdiff.evaluation.features import gait_energy_images
from gaitdiff.evaluation.held_out import held_out_rows
from gaitdiff.evaluation.stored import evaluate_store
from gaitdiff.report.figures import smoothed
from gaitdiff.training.finetune import finetune
from gaitdiff.training.run_folder import read_config, read_metrics
from gaitdiff.utils.progress import console

FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "transfer.png"
KINDS = ("scratch", "fine-tuned")
BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#777777"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--pretrained", type=Path, required=True, help="run of gaitdiff pretrain")
    parser.add_argument("--runs", type=Path, required=True, help="folder for the supervised runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--people", type=int, nargs="+", default=[0, 40], help="labelled identities; 0 for all")
    parser.add_argument("--only", choices=KINDS, help="make this kind of runs, for another call to gather")
    args, flags = parser.parse_known_args()
    made: dict[str, dict[str, list[Path]]] = {}
    for people in args.people:
        for seed in range(args.seeds):
            for kind in [args.only] if args.only else KINDS:
                start = ["--init", str(args.pretrained)] if kind == "fine-tuned" else []
                argv = ["--recipe", f"walkers/{'finetune' if start else 'scratch'}", *start, *flags]
                argv += ["--data.store", str(args.store), "--data.people", str(people), "--seed", str(seed)]
                argv += ["--out", str(args.runs / f"{kind}-{people}-seed{seed}")]
                run = finetune(parse_config(FinetuneConfig, "transfer", argv))
                made.setdefault(f"{people or 'all'} labelled people", {}).setdefault(kind, []).append(run)
    if args.only:
        return
    report = gather(args.store, args.pretrained, made)
    console.print(table(report))
    console.print(write("transfer", report))
    draw(report, FIGURE)


def evaluations(run: Path) -> list[dict[str, float]]:
    """Scores of a run, each with its step."""
    return [{"step": line["step"], **line["evaluation"]} for line in read_metrics(run) if "evaluation" in line]


def gather(store_path: Path, pretrained: Path, made: dict[str, dict[str, list[Path]]]) -> dict[str, Any]:
    """Everything measured, as plain values."""
    store = SequenceStore(store_path)
    rows = held_out_rows(store)
    logged = [line for line in read_metrics(pretrained) if "loss" in line]
    keys = ("step", "loss", "gap_shuffled", "gap_dropped", "gap_loss", "ap", "an")
    supervised: dict[str, Any] = {}
    for labels, kinds in made.items():
        for kind, runs in kinds.items():
            seeds = [evaluations(run) for run in runs]
            supervised.setdefault(labels, {"steps": [score["step"] for score in seeds[0]]})[kind] = {
                metric: [[round(score[metric], 3) for score in seed] for seed in seeds] for metric in ("rank1", "mAP")
            }
    any_run = next(iter(made.values()))["fine-tuned"][0]
    return {
        **origin(),
        "store": store.header.source,
        "gait_energy_image": evaluate_store(
            gait_energy_images(store, rows), store, rows, read_config(any_run)["run"]["protocol"]
        ),
        "pretraining": {
            "config": settings(pretrained),
            "log": {key: [round(line[key], 7) for line in logged] for key in keys},
            "evaluations": evaluations(pretrained),
        },
        "supervised_config": settings(any_run),
        "supervised": supervised,
    }


def settings(run: Path) -> dict[str, Any]:
    """A run's configuration without what belongs to one machine."""
    config = read_config(run)
    config["data"].pop("store")
    return {key: value for key, value in config.items() if key not in ("out", "init", "machine", "seed", "made_from")}


def table(report: dict[str, Any]) -> Table:
    """Rank-1 over supervised iterations: mean over seeds, and each seed."""
    steps = next(iter(report["supervised"].values()))["steps"]
    shown = Table("rank-1, percent", *(str(step) for step in steps))
    for labels, one in report["supervised"].items():
        for kind in KINDS:
            by_step = zip(*one[kind]["rank1"], strict=True)
            cells = (f"{statistics.mean(v):.1f} ({' '.join(f'{x:.1f}' for x in v)})" for v in by_step)
            shown.add_row(f"{kind}, {labels}", *cells)
    return shown


def draw(report: dict[str, Any], path: Path) -> None:
    """Four panels: condition gap, AP/AN, rank-1 of raw features, scratch against fine-tuned."""
    figure = Figure(figsize=(11, 7.4), layout="constrained")
    FigureCanvasAgg(figure)
    (gap, pairs), (raw, supervised) = figure.subplots(2, 2)
    log = {key: np.array(values) for key, values in report["pretraining"]["log"].items()}
    for key, colour, label in (("gap_shuffled", BLUE, "another's condition"), ("gap_dropped", ORANGE, "no condition")):
        share = 100 * log[key] / log["gap_loss"]
        gap.plot(log["step"], share, ".", ms=2, alpha=0.3, color=colour)
        gap.plot(log["step"], smoothed(log["step"], share), color=colour, label=label)
    gap.axhline(0, color=GREY, lw=0.8)
    low = np.percentile(100 * log["gap_dropped"] / log["gap_loss"], 8)
    gap.set(title="Condition gap", ylabel="% of the loss", ylim=(min(low, -1), None))
    for key, colour, label in (("an", ORANGE, "different sequences (AN)"), ("ap", BLUE, "the same sequence (AP)")):
        pairs.plot(log["step"], log[key], ".", ms=2, alpha=0.3, color=colour)
        pairs.plot(log["step"], smoothed(log["step"], log[key]), color=colour, label=label)
    pairs.set(title="Distance of pairs", ylabel="cosine distance")
    scores = report["pretraining"]["evaluations"]
    for metric, colour in (("cosine", BLUE), ("euclidean", GREEN)):
        steps = [score["step"] for score in scores]
        raw.plot(steps, [score[f"rank1_{metric}"] for score in scores], "o-", ms=3, color=colour, label=metric)
    raw.set(title="Raw features of held-out people", ylabel="rank-1, %")
    for (labels, one), style in zip(report["supervised"].items(), ("-", "--"), strict=False):
        for kind, colour in zip(KINDS, (ORANGE, BLUE), strict=True):
            values = np.array(one[kind]["rank1"])
            label = f"{kind}, {labels}"
            supervised.plot(one["steps"], values.mean(0), "o" + style, ms=3, color=colour, label=label)
            supervised.fill_between(one["steps"], values.min(0), values.max(0), color=colour, alpha=0.12, lw=0)
    supervised.set(title=f"With labels, {len(values)} seeds (band: lowest to highest)", ylabel="rank-1, %")
    for axes in (raw, supervised):
        axes.axhline(report["gait_energy_image"]["rank1"], color=GREY, ls="--", lw=1, label="gait energy image")
    for axes, what in ((gap, "pretraining"), (pairs, "pretraining"), (raw, "pretraining"), (supervised, "supervised")):
        axes.set_xlabel(f"{what} iterations")
        axes.legend(frameon=False, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
