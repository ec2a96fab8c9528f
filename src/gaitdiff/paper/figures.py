"""The paper's figures, drawn from finished runs; and Figure 1's companion, what each augmentation does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from gaitdiff.data.store import SequenceStore
from gaitdiff.paper import facts
from gaitdiff.paper.cells import Cell
from gaitdiff.paper.grid import Grid
from gaitdiff.paper.results import Result
from gaitdiff.report.examples import each_augmented
from gaitdiff.report.figures import Series, save_panels, save_strips

_SHOWN = 8  # frames of a clip

#: What belongs to a panel: its title, and the curves in it with their colours.
Panels = dict[str, list[Series]]


def draw(name: str, grid: Grid, cells: Sequence[Cell], seeds: int, path: Path) -> list[str]:
    """Draw a figure as ``path`` with ".png" and ".svg".

    Returns:
        What is left out of it, because its runs are not finished.
    """
    found = {cell.name: list(grid.finished(cell.run, range(seeds)).values()) for cell in cells}
    finished = {name: results for name, results in found.items() if results}
    stand_in = any(cell.run.recipe.startswith("walkers/") for cell in cells)
    titles = {data: f"walkers for {title}" if stand_in else title for data, title in facts.DATA.items()}
    panels, labels, percent, columns = _FIGURES[name](finished, titles)
    if panels:
        save_panels(path, panels, x_label=labels[0], y_label=labels[1], percent=percent, columns=columns)
    return [cell.name for cell in cells if cell.name not in finished]


Drawn = tuple[Panels, tuple[str, str], bool, int]


def _fig2(finished: dict[str, list[Result]], titles: Mapping[str, str]) -> Drawn:
    panels = {}
    for data, title in titles.items():
        for name, results in finished.items():
            if name.split("-")[1] == data:
                panels[f"{title}, GaitSet"] = [
                    _scores("cosine", results, "rank1_cosine", "blue"),
                    _scores("Euclidean", results, "rank1_euclidean", "red"),
                ]
    return panels, ("pretraining iterations", "rank-1 of raw features, %"), True, 2


def _fig3(finished: dict[str, list[Result]], titles: Mapping[str, str]) -> Drawn:
    panels: Panels = {}
    for name, results in finished.items():
        _, data, model = name.split("-")
        panels[f"{titles[data]}, {facts.MODELS[model]}"] = [
            Series("AN", *_mean(results, "an"), "red", smooth=True),
            Series("AP", *_mean(results, "ap"), "blue", smooth=True),
        ]
    return panels, ("pretraining iterations", "cosine distance of pairs"), False, 3


def _fig4(finished: dict[str, list[Result]], titles: Mapping[str, str]) -> Drawn:
    panels: Panels = {}
    for model, of in facts.MODELS.items():
        curves = []
        for kind, label, colour in (("finetuned", "fine-tuned", "blue"), ("scratch", "from\nscratch", "red")):
            results = finished.get(f"{kind}-gait3d-{model}")
            if results:
                curves.append(_scores(label, results, "rank1", colour))
        if curves:
            panels[f"{titles['gait3d']}, {of}"] = curves
    return panels, ("supervised iterations", "rank-1, %"), True, 3


def _fig5(finished: dict[str, list[Result]], titles: Mapping[str, str]) -> Drawn:
    labels = {
        "pretrain-gait3d-smplgait": ("two clips", "blue"),
        "pretrain-gait3d-smplgait-same-clip": ("one clip\nfor both", "red"),
    }
    curves = [_scores(labels[name][0], results, "rank1_cosine", labels[name][1]) for name, results in finished.items()]
    panels = {f"{titles['gait3d']}, {facts.MODELS['smplgait']}": curves} if curves else {}
    return panels, ("pretraining iterations", "rank-1 of raw features, %"), True, 1


_FIGURES: dict[str, Callable[[dict[str, list[Result]], Mapping[str, str]], Drawn]] = {
    "fig2": _fig2,
    "fig3": _fig3,
    "fig4": _fig4,
    "fig5": _fig5,
}


def _scores(label: str, results: Sequence[Result], key: str, colour: str) -> Series:
    """A score over the iterations that all seeds have, its mean and as a band its standard deviation."""
    steps, values = _common([result.evaluations for result in results], key)
    spread = values.std(0, ddof=1).tolist() if len(results) > 1 else None
    return Series(label, steps, values.mean(0).tolist(), colour, spread)


def _mean(results: Sequence[Result], key: str) -> tuple[list[float], list[float]]:
    steps, values = _common([result.pairs for result in results], key)
    return steps, values.mean(0).tolist()


def _common(records: Sequence[Sequence[dict[str, float]]], key: str) -> tuple[list[float], np.ndarray]:
    """The steps that all seeds have, and their values, (seeds, steps)."""
    tables = [{record["step"]: record[key] for record in one if key in record} for one in records]
    steps = [step for step in tables[0] if all(step in table for table in tables)]
    return steps, np.array([[table[step] for step in steps] for table in tables]).reshape(len(tables), len(steps))


def draw_augmentations(store: SequenceStore, path: Path) -> None:
    """Figure 1's companion: a walk as it is, under each augmentation and under all, as ``path`` with ".png" and ".svg".

    Pixels that an augmentation adds are orange, those that it takes away blue.
    """
    row = next(iter(store.select(split="train").tolist()), 0)
    shown = np.linspace(0, store.rows[row].frames - 1, _SHOWN).round().astype(int)
    frames = store.clip(row, shown)
    strips = {"as it is": np.concatenate(list(np.repeat(frames[..., None], 3, axis=3)), axis=1)}
    strips |= {name: np.concatenate(list(changed), axis=1) for name, changed in each_augmented(frames)}
    save_strips(path, strips, "a typical draw of each; orange: what it adds, blue: what it takes away")
