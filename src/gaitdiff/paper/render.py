"""Tables of an experiment: the paper's numbers beside ours, with intervals, spread over seeds, and cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gaitdiff.evaluation.outcomes import SUMMED, difference, spread
from gaitdiff.paper import facts
from gaitdiff.paper.cells import BESIDES, Cell
from gaitdiff.paper.grid import Grid

Text = list[list[str]]  # rows of cells, a header first


@dataclass(frozen=True)
class Number:
    """One cell as it came out.

    Attributes:
        name: of the cell.
        beside: name of the cell that its difference is told from, "" without one.
        printed: rank-1 in the paper, None where it has none; and its difference from what it stands beside.
        seeds: that are finished.
        rank1, mAP: percent, one of each seed.
        gain, interval: difference from what the cell stands beside, by score, in points, and its 95% interval over
            seeds and test people; of those ``paired`` seeds that both have.
        iterations: of pretraining and of the supervised run.
        minutes: of each of these runs, by its name, mean over seeds.
    """

    name: str
    beside: str
    printed: float | None
    printed_gain: float | None
    seeds: list[int]
    rank1: list[float]
    mAP: list[float]  # noqa: N815
    gain: dict[str, float]
    interval: dict[str, list[float]]
    paired: list[int]
    iterations: list[int]
    minutes: dict[str, float]


def numbers(grid: Grid, cells: Sequence[Cell], seeds: int) -> dict[str, Number]:
    """What finished runs say of the cells, by name."""
    return {cell.name: _number(grid, cell, range(seeds)) for cell in cells}


def _number(grid: Grid, cell: Cell, seeds: Sequence[int]) -> Number:
    found = grid.finished(cell.run, seeds)
    outcomes = {seed: result.outcome for seed, result in found.items() if result.outcome is not None}
    pairs = {}
    if cell.beside is not None and cell.beside.name != cell.name:
        for seed, result in grid.finished(cell.beside, seeds).items():
            if seed in outcomes and result.outcome is not None:
                pairs[seed] = (result.outcome, outcomes[seed])
    differences = {score: difference(list(pairs.values()), score) for score in SUMMED} if pairs else {}
    chain = {run.name: grid.finished(run, seeds) for run in cell.run.chain()} if found else {}
    known = cell.printed is not None and cell.printed_beside is not None
    return Number(
        cell.name,
        cell.beside.name if cell.beside is not None and cell.beside.name != cell.name else "",
        cell.printed,
        round((cell.printed or 0) - (cell.printed_beside or 0), 1) if known else None,
        list(found),
        [one.percent("rank1") for one in outcomes.values()],
        [one.percent("mAP") for one in outcomes.values()],
        {score: round(mean, 2) for score, (mean, _, _) in differences.items()},
        {score: [round(low, 2), round(high, 2)] for score, (_, low, high) in differences.items()},
        list(pairs),
        [max(result.iterations for result in results.values()) for results in chain.values() if results],
        {
            name: round(float(np.mean([result.seconds for result in results.values()])) / 60, 2)
            for name, results in chain.items()
            if results
        },
    )


def document(about: dict[str, Any], found: dict[str, Number]) -> dict[str, Any]:
    """What is written as JSON."""
    return {"about": about, "cells": {name: asdict(number) for name, number in found.items()}}


def lines(number: Number) -> list[str]:
    """A cell in words: mean and spread over seeds, difference and interval, the paper's."""
    ours = [spread(number.rank1) or ("not scored" if number.seeds else "not done")]
    if "rank1" in number.gain:
        low, high = number.interval["rank1"]
        fewer = f", {len(number.paired)} seeds" if len(number.paired) < len(number.rank1) else ""
        ours.append(f"{number.gain['rank1']:+.1f} ({low:+.1f} to {high:+.1f}{fewer})")
    paper = "unknown" if number.printed is None else f"{number.printed:.1f}"
    paper += "" if number.printed_gain is None else f" ({number.printed_gain:+.1f})"
    return [*ours, f"paper {paper}"]


def table1(found: dict[str, Number]) -> Text:
    """As the paper has it: block by block and model by model, two columns a data set."""
    columns = [(data, augmented) for data in facts.DATA for augmented in (False, True)]
    heads = [f"{facts.DATA[data]}, {'' if augmented else 'not '}augmented" for data, augmented in columns]
    rows = [["", "model", *heads, "iterations", "minutes"]]
    for kind, block in facts.BLOCKS.items():
        for model, name in facts.MODELS.items():
            names = ["-".join([kind, data, model, *(["augmented"] if aug else [])]) for data, aug in columns]
            there = [found[one] for one in names if one in found]
            if there:
                shown = ["\n".join(lines(found[one])) if one in found else "–" for one in names]
                rows.append([block, name, *shown, _iterations(there), _minutes(there)])
                block = ""  # once
    return rows


def table2(found: dict[str, Number]) -> Text:
    """Fine-tuned on GREW for fewer iterations."""
    rows = [["model", "not augmented", "augmented", "iterations", "minutes"]]
    for model in facts.TABLE2:
        names = [f"finetuned-grew-{model}{augmented}-{facts.TABLE2_ITERATIONS}k" for augmented in ("", "-augmented")]
        there = [found[name] for name in names if name in found]
        if there:
            shown = ["\n".join(lines(found[name])) if name in found else "–" for name in names]
            rows.append([facts.MODELS[model], *shown, _iterations(there), _minutes(there)])
    return rows


def table3(found: dict[str, Number]) -> Text:
    """One setting of pretraining a row, by what differs from the default."""
    rows = [["setting of pretraining", "rank-1", "over the default", "paper", "minutes"]]
    first, usual = "finetuned-gait3d-smplgait", facts.TABLE3[0].columns
    named = list(zip(facts.TABLE3_COLUMNS, usual, strict=True))
    for row in facts.TABLE3:
        name = first if row.name == "default" else f"{first}-{row.name}"
        if name in found:
            pairs = zip(facts.TABLE3_COLUMNS, row.columns, strict=True)
            unlike = [pair for pair in pairs if pair not in named] or named
            rows.append([", ".join(f"{column} {value}" for column, value in unlike), *_ablation(found[name], first)])
    for name, why in BESIDES.items():
        if f"{first}-{name}" in found:
            rows.append([f"{name}, {why}", *_ablation(found[f"{first}-{name}"], first)])
    return rows


def _ablation(number: Number, default: str) -> list[str]:
    ours, *rest = lines(number)
    gain = rest[0] if "rank1" in number.gain else ""
    if gain and number.beside != default:
        gain += f", over {number.beside.removeprefix(default).lstrip('-')}"
    return [ours, gain, "" if number.printed is None else rest[-1].removeprefix("paper "), _minutes([number])]


def _iterations(there: Sequence[Number]) -> str:
    found = dict.fromkeys(" + ".join(f"{count:,}" for count in number.iterations) for number in there)
    return "\n".join(one for one in found if one)


def _minutes(there: Sequence[Number]) -> str:
    """Of all runs together; one that several cells share counts once."""
    each = {name: minutes for number in there for name, minutes in number.minutes.items()}
    return f"{sum(each.values()):.0f}"


def markdown(rows: Text, notes: Sequence[str]) -> str:
    """A table of Markdown with notes below it."""
    escaped = [[cell.replace("|", "\\|").replace("\n", "<br>") for cell in row] for row in rows]
    head, *body = [f"| {' | '.join(row)} |" for row in escaped]
    return "\n".join([head, "|---" * len(rows[0]) + "|", *body, "", *notes, ""])
