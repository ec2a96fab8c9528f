"""A run's scores in words, as they come and at its end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.table import Table

from gaitdiff.training.run_folder import read_metrics
from gaitdiff.utils.progress import console, say

_ROWS = 12  # of the table, at most


def in_words(scores: Mapping[str, float]) -> str:
    """Rank-1 and mAP of an evaluation, of each kind of features that it tells apart."""
    found = []
    for key, value in scores.items():
        name, _, kind = key.partition("_")
        if name in ("rank1", "mAP"):
            found.append(f"{name.replace('rank1', 'rank-1')} {kind + ' ' if kind else ''}{value:.1f}")
    return ", ".join(found)


def tell_scores(run: Path, wanted: bool = True) -> None:
    """Say a run's scores by step, all kinds of features side by side; nothing where there is one evaluation or none."""
    found = [(one["step"], one["evaluation"]) for one in read_metrics(run) if "evaluation" in one]
    kinds = dict.fromkeys(key.partition("_")[2] for _, scores in found for key in scores if key.startswith("rank1"))
    if not wanted or len(found) < 2:
        return
    say(f"{run.name}: rank-1 / mAP by step")
    table = Table(box=None, pad_edge=False)
    for name in ("step", *kinds):
        table.add_column(name, justify="right")
    for place in sorted({round(i * (len(found) - 1) / (_ROWS - 1)) for i in range(_ROWS)}):
        step, scores = found[place]
        values = [[scores.get(f"{score}_{kind}" if kind else score) for score in ("rank1", "mAP")] for kind in kinds]
        cells = [" / ".join("-" if value is None else f"{value:.1f}" for value in pair) for pair in values]
        table.add_row(str(step), *cells)
    console.print(table)
