"""``gaitdiff sweep``: one recipe under several settings and seeds, as one command with one table out."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Column, Table
from rich.text import Text

from gaitdiff.config.recipe import STAGES, stage_of_recipe
from gaitdiff.config.values import settings_of
from gaitdiff.data.store import SequenceStore
from gaitdiff.errors import UserError, require_seeds
from gaitdiff.evaluation.held_out import to_score
from gaitdiff.evaluation.outcomes import SUMMED, spread
from gaitdiff.evaluation.stored import select_once
from gaitdiff.paper.cells import Cell, Run, runs_of
from gaitdiff.paper.grid import Grid, Job, failures
from gaitdiff.paper.plan import costs, in_words
from gaitdiff.paper.render import Number, lines, numbers
from gaitdiff.paper.settings import split_setting
from gaitdiff.utils.files import json_object, write_json
from gaitdiff.utils.progress import answers
from gaitdiff.utils.text import counted
from gaitdiff.version import __version__

_DATA = "data"  # the one store of a sweep
_SHARED = ("run.protocol", "machine.")  # settings of pretraining that its finetune has too
_LETTERS = 120  # of a folder's name
_OWN = ("recipe", "out", "data.store", "seed", "machine.device", "init")
_MOST = 10_000  # combinations


def run(
    recipe: str,
    data: Path,
    out: Path,
    *,
    settings: Sequence[str] = (),
    seeds: int = 3,
    then: str = "",
    init: str = "",
    dry_run: bool = False,
    device: str = "auto",
) -> Path | None:
    """Train a recipe under every combination of settings with every seed, and compare.

    A run that is finished is not done again, one that fails does not stop the others, and several processes may
    work at one ``out``.

    Args:
        recipe: of either stage.
        settings: each as "optim.lr=0.001,0.003", with all the values that it is to have, or "optim.iterations=500".
        then: a recipe of finetune that starts from each run of pretraining, with its protocol and machine, and whose
            scores are compared.
        init: what the runs start from.

    Returns:
        The JSON file with all numbers; None after a dry run.

    Raises:
        UserError: anything about data, settings or machine that the user can fix; runs that failed are named.
    """
    require_seeds(seeds)
    stage = stage_of_recipe(recipe)
    if then and (stage != "pretrain" or stage_of_recipe(then) != "finetune"):
        raise UserError("--then takes a recipe of finetune, after a sweep of pretraining")
    store = SequenceStore(data)
    arms = _arms(recipe, stage, settings, then, init)
    grid = Grid(out, {_DATA: store.path}, None, device)
    _refuse_alike(grid, arms)
    first = next(iter(arms.values()))
    scored = to_score(store, grid.config(Job(first, 0)).run.protocol)  # which is that of all
    if not scored.unscored:
        select_once(store, scored.rows, scored.protocol)
    cells = {name: Cell(arm, None, first) for name, arm in arms.items()}
    jobs = [Job(one, seed) for seed in range(seeds) for one in runs_of(list(cells.values()))]
    left = grid.left(jobs)
    plan = in_words(len(left), len(jobs), costs(grid, left))
    console = answers()
    console.print(f"{counted(len(arms), 'setting')}, {counted(seeds, 'seed')}: {plan}", soft_wrap=True)
    if dry_run:
        console.print("\n".join(map(grid.command, left)), soft_wrap=True)
        return None
    failed = grid.work(jobs)
    about = {"recipe": recipe, "then": then, "init": init, "settings": list(settings)}
    file = _write(grid, cells, seeds, about)
    if failed:
        raise UserError(failures(failed, jobs))
    return file


def _arms(recipe: str, stage: Any, settings: Sequence[str], then: str, init: str) -> dict[str, Run]:
    """The run of each combination, by what it is called; the first values make the first one."""
    swept: dict[str, list[str]] = {}
    known = settings_of(STAGES[stage])
    for setting in settings:
        key, text = split_setting(setting)
        if key in _OWN:
            raise UserError(f"--set {key} is not free: each run has its own")
        if key not in known and not any(known[name].mapping and key.startswith(f"{name}.") for name in known):
            raise UserError(f"--set {key}: gaitdiff {stage}, whose recipe {recipe} is, has no such setting")
        if key in swept:
            raise UserError(f"--set {key} is given twice: give all its values at once, between commas")
        swept[key] = split_values(text)
        if "" in swept[key]:
            raise UserError(f"--set {setting} has an empty value: give values between commas")
    varied = [key for key, values in swept.items() if len(values) > 1]
    if "run.protocol" in varied:
        raise UserError("--set run.protocol takes one value: scores by several protocols cannot be compared")
    if math.prod(map(len, swept.values())) > _MOST:
        raise UserError(f"--set makes more than {_MOST:,} combinations: sweep fewer values")
    arms: dict[str, Run] = {}
    for combination in itertools.product(*swept.values()):
        chosen: dict[str, Any] = dict(zip(swept, combination, strict=True))
        name = " ".join(f"{key}={chosen[key]}" for key in varied) or recipe
        arms[name] = _run(_folder(name), recipe, stage, chosen, then, init)
    return arms


def _refuse_alike(grid: Grid, arms: Mapping[str, Run]) -> None:
    """Refuse two combinations that are the same settings, written differently."""
    seen: dict[str, str] = {}
    for name, arm in arms.items():
        first = next(arm.chain())
        other = seen.setdefault(repr(grid.settings(Job(first, 0))), name)
        if other != name:
            raise UserError(f"{other} and {name} are the same settings: give one of them")


def _run(name: str, recipe: str, stage: Any, settings: Mapping[str, Any], then: str, init: str) -> Run:
    first = Run(f"{stage}-{name}", stage, _DATA, recipe, {**settings, **({"init": init} if init else {})})
    shared = {key: value for key, value in settings.items() if key.startswith(_SHARED)}
    return Run(f"finetune-{name}", "finetune", _DATA, then, shared, first) if then else first


def _folder(name: str) -> str:
    """A name for a folder, with a digest where letters had to go."""
    plain = "".join(letter if letter.isalnum() or letter in "=.-+_" else "_" for letter in name)[:_LETTERS]
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return plain if plain == name.replace(" ", "_") else f"{plain}-{digest}"


def split_values(text: str) -> list[str]:
    """Values between commas; those within brackets and braces belong to a value."""
    found, depth, start = [], 0, 0
    for place, letter in enumerate(text):
        depth += (letter in "[{(") - (letter in "]})")
        if letter == "," and depth == 0:
            found.append(text[start:place])
            start = place + 1
    return [*found, text[start:]]


def _write(grid: Grid, cells: Mapping[str, Cell], seeds: int, about: Mapping[str, Any]) -> Path:
    found = numbers(grid, list(cells.values()), seeds)
    raw = {name: _raw(grid, cell, seeds) for name, cell in cells.items()}
    kinds = list(dict.fromkeys(kind for scores in raw.values() for kind in scores))
    table = Table(Column("settings", overflow="fold"), *kinds, "over the first", "minutes")
    document: dict[str, Any] = {}
    for name, cell in cells.items():
        number = found[cell.name]
        gain = lines(number)[1] if "rank1" in number.gain else ""
        row = [spread(raw[name].get(kind, [])) for kind in kinds]
        table.add_row(*map(Text, (name, *row, gain, f"{sum(number.minutes.values()):.1f}")))
        document[name] = {"scores": raw[name], **_kept(number)}
    file = _file(grid.out, about)
    about = {**about, "seeds": seeds, "gaitdiff": __version__}
    write_json(file, {"about": about, "settings": document})
    console = answers()
    console.print(table)
    console.print("rank-1 and mAP in percent, mean ± standard deviation over seeds; in brackets 95% intervals")
    console.print(str(file), soft_wrap=True)
    return file


def _file(out: Path, about: Mapping[str, Any]) -> Path:
    """sweep.json, or one with a name of its own where that one is of another sweep into the same folder."""
    file = out / "sweep.json"
    try:
        known = json_object(file).get("about", {}) if file.exists() else None
    except (OSError, ValueError):
        known = {}
    if known is None or (isinstance(known, dict) and all(known.get(key, "") == value for key, value in about.items())):
        return file
    digest = hashlib.sha256(json.dumps(dict(about), sort_keys=True).encode()).hexdigest()[:8]
    return out / f"sweep-{digest}.json"


def _kept(number: Number) -> dict[str, Any]:
    return {key: asdict(number)[key] for key in ("gain", "interval", "minutes")}


def _raw(grid: Grid, cell: Cell, seeds: int) -> dict[str, list[float]]:
    """The last scores of each seed: of embeddings, or of raw features by each distance."""
    results = grid.finished(cell.run, range(seeds)).values()
    last: list[Mapping[str, float]] = [result.evaluations[-1] for result in results if result.evaluations]
    if not last:  # with run.evaluate_every 0
        outcomes = [result.outcome for result in results if result.outcome is not None]
        by = "_cosine" if cell.run.stage == "pretrain" else ""
        last = [{f"{score}{by}": one.percent(score) for score in SUMMED} for one in outcomes]
    keys = [key for key in (last[0] if last else {}) if key.startswith(("rank1", "mAP"))]
    return {key.replace("rank1", "rank-1").replace("_", ", "): [one[key] for one in last] for key in keys}
