"""Curves of both stages over their iterations, from the metrics that runs keep."""

from __future__ import annotations

import html
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gaitdiff.config.command_line import differences
from gaitdiff.evaluation.features import BASELINE
from gaitdiff.report.figures import Level, Series, chart, standard_error
from gaitdiff.report.labels import SCORES, label_series, label_table
from gaitdiff.report.pieces import left_out
from gaitdiff.training.run_folder import read_config, read_metrics

_SUPERVISED, _PRETRAINING = "supervised iterations", "pretraining iterations"
_COLOURS = ("blue", "red", "green", "purple", "ink")  # of supervised runs, in their order
_BASELINE = BASELINE.replace(" image", "\nimage")
#: By the objective of pretraining: how the backbone learns; what the loss is, at its axis and in words.
_LEARNS = {
    "diffusion": "only by helping the denoiser",
    "contrastive": "only by telling which two clips are of one sequence",
    "both": "by helping the denoiser, and by telling which two clips are of one sequence",
}
_LOSSES = {
    "diffusion": ("weighted noise error", "Weighted squared error of the predicted noise."),
    "contrastive": ("InfoNCE", "InfoNCE: how surely a clip finds the other clip of its sequence; 0 is for certain."),
    "both": ("noise error + InfoNCE", "Weighted squared error of the predicted noise, and weighted InfoNCE."),
}


class Panel(NamedTuple):
    """A chart with a heading above it and a caption, which may be empty, below."""

    heading: str
    caption: str
    chart: str


def by_labels(table: Sequence[Mapping[str, Any]], baseline: dict[str, float] | None) -> str:
    """Rank-1 and mAP by the number of labelled people, as curves and as a table."""
    panels = []
    for score, name in SCORES.items():
        series = label_series(table, score)
        levels = [Level(baseline[score], _BASELINE)] if baseline else []
        heading = f"{'Rank-1' if score == 'rank1' else name} on held-out people"
        picture = chart(
            heading,
            series,
            x_label="labelled people",
            y_label=f"{name}, %",
            levels=levels,
            percent=True,
            log_x=True,
        )
        panels.append(Panel(heading, "", picture))
    return (
        "<p>All models are the same network with the same head to start from, trained for the same number of "
        "iterations on the same batches; what differs is where the backbone starts. In brackets 95% intervals, by "
        "bootstrap over test people and seeds.</p>" + _grid(panels) + label_table(table)
    )


def transfer(runs: Mapping[str, Path], baseline: dict[str, float] | None) -> str:
    """Rank-1 and mAP of supervised runs, by name, over their iterations."""
    evaluated = {name: _evaluations(run) for name, run in runs.items()}
    shown = [
        (name, colour, evaluated[name]) for name, colour in zip(runs, itertools.cycle(_COLOURS)) if evaluated[name]
    ]
    if not shown:
        return left_out("No run was evaluated while it trained, so there are no curves over iterations")
    panels = [
        *_scores_panel("Rank-1 on held-out people", "rank-1, %", "rank1", shown, _SUPERVISED, baseline),
        *_scores_panel("mAP on held-out people", "mAP, %", "mAP", shown, _SUPERVISED, baseline),
    ]
    first, *others = runs
    unlike = [
        f" Besides where the backbone starts, {first} and {other} differ in: {'; '.join(found)}."
        for other in others
        if (found := differences(read_config(runs[first]), read_config(runs[other])))
    ]
    alike = (
        "All models are the same network with the same head to start from, trained on the same batches; what differs "
        "is where the backbone starts."
    )
    return (
        f"<p>{html.escape(''.join(unlike) if unlike or not others else alike)} Bands are one binomial standard error "
        f"over {_probes(shown[0][2]):,} probes; they tell how sure a point is, not how much another seed would "
        "differ.</p>"
        + "".join(
            left_out(f"The run {name} was not evaluated while it trained") for name in runs if not evaluated[name]
        )
        + _grid(panels)
    )


def pretraining(run: Path, baseline: dict[str, float] | None) -> str:
    """Loss, condition gap, pair distances, and scores of raw features over pretraining."""
    logged = [record for record in read_metrics(run) if "loss" in record]
    evaluated = _evaluations(run)
    measured = [record for record in read_metrics(run) if "gap_by_noise" in record and record["step"] > 0]
    panels, notes, objective = [], [], read_config(run)["objective"]
    if logged:
        panels.append(_loss(logged, objective))
        if objective != "contrastive":
            panels += [_condition_gap(logged), *([_gap_by_noise(measured)] if measured else [])]
        panels += [_distances(logged), _distance_ratio(logged)]
    else:
        notes.append(left_out("The pretraining run logged no losses, so their curves are left out"))
    if evaluated:
        kinds = [("cosine", "blue", evaluated), ("Euclidean", "red", evaluated)]
        kinds += [("whitened", "green", evaluated), ("linear", "purple", evaluated)]
        panels += [
            *_scores_panel("Rank-1 of raw features", "rank-1, %", "rank1", kinds, _PRETRAINING, baseline),
            *_scores_panel("mAP of raw features", "mAP, %", "mAP", kinds, _PRETRAINING, baseline),
        ]
    else:
        notes.append(left_out("Raw features were not scored during pretraining, so their rank-1 is left out"))
    return (
        f"<p>No labels take part in this stage: the backbone learns {_LEARNS[objective]}. Points are what "
        "was logged, lines are smoothed.</p>" + "".join(notes) + _grid(panels)
    )


def _loss(records: list[dict[str, Any]], objective: str) -> Panel:
    y_label, caption = _LOSSES[objective]
    series = [_logged("loss", records, "loss", "blue")]
    return Panel("Loss", caption, chart("Pretraining loss", series, x_label=_PRETRAINING, y_label=y_label))


def _condition_gap(records: list[dict[str, Any]]) -> Panel:
    caption = (
        "By how much the loss would rise with a wrong condition. Above zero, the denoiser listens to the backbone."
    )
    series = [
        _logged("another’s\ncondition", records, "gap_shuffled", "blue", of="gap_loss", scale=100.0),
        _logged("no\ncondition", records, "gap_dropped", "red", of="gap_loss", scale=100.0),
    ]
    picture = chart("Condition gap", series, x_label=_PRETRAINING, y_label="gap, % of the loss", levels=[Level(0.0)])
    return Panel("Condition gap", caption, picture)


def _gap_by_noise(records: list[dict[str, Any]]) -> Panel:
    caption = (
        "The same by noise level, on clips that were not trained on. Left, almost all is noise; right, almost none. "
        "Bands are one standard error."
    )
    shown = {records[i]["step"]: records[i] for i in (0, (len(records) - 1) // 2, len(records) - 1)}
    series = []
    for (step, record), colour in zip(shown.items(), ("muted", "purple", "blue")[-len(shown) :], strict=True):
        found = record["gap_by_noise"]
        series.append(Series(f"step {step:,}", found["log_snr"], found["gap"], colour, found["error"]))
    picture = chart(
        "Condition gap by noise level",
        series,
        x_label="log signal-to-noise ratio",
        y_label="gap, % of the loss there",
        levels=[Level(0.0)],
    )
    return Panel("Condition gap by noise level", caption, picture)


def _distances(records: list[dict[str, Any]]) -> Panel:
    series = [_logged("AN", records, "an", "red"), _logged("AP", records, "ap", "blue")]
    picture = chart("Distances of raw features", series, x_label=_PRETRAINING, y_label="cosine distance")
    return Panel("Distances of pairs", "AP: two clips of one sequence. AN: clips of two sequences.", picture)


def _distance_ratio(records: list[dict[str, Any]]) -> Panel:
    caption = "How many times farther apart different sequences lie. At 1 they are not told apart."
    series = [_logged("AN / AP", records, "an", "purple", of="ap")]
    picture = chart("AN over AP", series, x_label=_PRETRAINING, y_label="ratio", levels=[Level(1.0)])
    return Panel("AN over AP", caption, picture)


def _evaluations(run: Path) -> list[dict[str, Any]]:
    """``step`` and scores of a run's evaluations."""
    return [{"step": r["step"], **r["evaluation"]} for r in read_metrics(run) if "evaluation" in r]


def _probes(records: list[dict[str, Any]]) -> int:
    return int(records[-1]["probes"])


def _scores_panel(
    heading: str,
    y_label: str,
    key: str,
    curves: Sequence[tuple[str, str, list[dict[str, Any]]]],
    x_label: str,
    baseline: dict[str, float] | None,
) -> list[Panel]:
    """One score over iterations; rank-1 with a band of a binomial standard error. None where no evaluation has it.

    Args:
        curves: (label, colour, evaluations); ``key_label`` is read where ``key`` itself is not in an evaluation, which
            may have neither: GREW's protocol gives no mAP, and a probe may be switched on in the middle of a run.
    """
    series = []
    for label, colour, records in curves:
        found = [
            (record["step"], record[name], record["probes"])
            for record in records
            for name in (key, f"{key}_{label.lower()}")
            if name in record
        ]
        if found:
            steps, values, probes = zip(*found, strict=True)
            error = [standard_error(*one) for one in zip(values, probes, strict=True)] if key == "rank1" else None
            series.append(Series(label, steps, values, colour, error))
    if not series:
        return []
    levels = [Level(baseline[key], _BASELINE)] if baseline and key in baseline else []
    picture = chart(heading, series, x_label=x_label, y_label=y_label, levels=levels, percent=True)
    return [Panel(heading, "", picture)]


def _logged(
    label: str, records: list[dict[str, Any]], key: str, colour: str, of: str | None = None, scale: float = 1.0
) -> Series:
    """A logged quantity, or ``scale`` times its ratio to another one."""
    nan = float("nan")
    values = [_number(record.get(key)) for record in records]
    if of is not None:
        values = [scale * v / (_number(record.get(of)) or nan) for v, record in zip(values, records, strict=True)]
    return Series(label, [record["step"] for record in records], values, colour, smooth=True)


def _number(value: Any) -> float:
    """NaN where a run has none."""
    return float(value) if isinstance(value, int | float) else float("nan")


def _grid(panels: Sequence[Panel]) -> str:
    """Charts with headings and captions, two abreast where there is room."""
    cells = (
        f"<figure><h3>{panel.heading}</h3>{panel.chart}<figcaption>{panel.caption}</figcaption></figure>"
        for panel in panels
    )
    return f'<div class="charts">{"".join(cells)}</div>'
