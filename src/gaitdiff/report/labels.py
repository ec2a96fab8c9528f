"""Scores by the number of labelled people, as curves and as a table."""

from __future__ import annotations

import html
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gaitdiff.report.figures import Series

#: The arm that starts from fresh weights; the others have the names of their checkpoints.
SCRATCH = "scratch"
#: Keys of the scores, and how they are called.
SCORES = {"rank1": "rank-1", "mAP": "mAP"}
_COLOURS = ("blue", "green", "purple", "ink")  # of the checkpoints' curves


def label_series(table: Sequence[Mapping[str, Any]], score: str) -> list[Series]:
    """The curves of a score over the number of labelled people, each arm's with its spread over seeds.

    Args:
        table: see ``gaitdiff.commands.label_curve.LabelCurve``.
        score: "rank1" or "mAP".
    """
    arms = list(table[0][score])
    colours = dict(zip([arm for arm in arms if arm != SCRATCH], itertools.cycle(_COLOURS), strict=False))
    people, series = [row["people"] for row in table], []
    for arm in arms:
        values = np.array([row[score][arm]["scores"] for row in table])  # (numbers of people, seeds)
        spread = values.std(1, ddof=1).tolist() if values.shape[1] > 1 else None
        label = "from scratch" if arm == SCRATCH else arm
        series.append(Series(label, people, values.mean(1).tolist(), colours.get(arm, "red"), spread))
    return series


def label_table(table: Sequence[Mapping[str, Any]]) -> str:
    """The same as an HTML table, with differences from scratch and their intervals."""
    heads = "".join(f"<th>{name}</th><th>over scratch</th>" for name in SCORES.values())
    rows = []
    for row in table:
        for place, arm in enumerate(row["rank1"]):
            people = f"{row['people']} labelled people" if place == 0 else ""
            cells = "".join(_cells(row[score][arm]) for score in SCORES)
            rows.append(f'<tr><th scope="row">{people}</th><th scope="row">{html.escape(_name(arm))}</th>{cells}</tr>')
    return (
        f'<div class="scroll"><table>\n<thead><tr><th></th><th>starts</th>{heads}</tr></thead>\n<tbody>\n'
        + "\n".join(rows)
        + "\n</tbody></table></div>\n"
    )


def _name(arm: str) -> str:
    return "from scratch" if arm == SCRATCH else f"from {arm}"


def _cells(found: Mapping[str, Any]) -> str:
    score = f"<td>{np.mean(found['scores']):.1f}</td>"
    if "difference" not in found:
        return f"{score}<td></td>"
    low, high = found["interval"]
    return f'{score}<td>{found["difference"]:+.1f} <span class="error">({low:+.1f} to {high:+.1f})</span></td>'
