"""``gaitdiff reproduce``: a table or figure of the paper as one command, with the paper's numbers beside ours."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from rich.table import Column, Table
from rich.text import Text

from gaitdiff.data.store import SequenceStore
from gaitdiff.errors import UserError, nearest, require_seeds
from gaitdiff.evaluation.held_out import require_scorable
from gaitdiff.paper import facts, figures, render
from gaitdiff.paper.cells import (
    BESIDES,
    EXPERIMENTS,
    PEOPLE,
    SEQUENCES,
    TEST_PEOPLE,
    TRAIN_PEOPLE,
    Cell,
    Run,
    Scale,
    runs_of,
)
from gaitdiff.paper.grid import Grid, Job, failures
from gaitdiff.paper.plan import Cost, costs, in_words
from gaitdiff.paper.settings import Settings
from gaitdiff.utils.files import write_json, write_whole
from gaitdiff.utils.locks import try_lock
from gaitdiff.utils.progress import answers, say
from gaitdiff.utils.text import counted
from gaitdiff.version import __version__
from gaitdiff.walkers import generate, store_source

_TABLES = {"table1": render.table1, "table2": render.table2, "table3": render.table3}
_AUGMENTATIONS = "fig1"
_TUNED = "finetuned-gait3d-smplgait-"
_FRAMES = 40  # of a walk, median
_NOTES = {
    "table1": "The frozen block of the paper's table repeats numbers of its neighbours; those are 'unknown' here. It "
    "prints +7.8 for SMPLGait w/o 3D on Gait3D with augmentation, where its numbers differ by 17.8. The ratio of "
    "learning rates that it chose for each cell it does not print; here it is the recipe's.",
    "table2": "The paper's baselines are Table I's.",
    "table3": "Rates: of the backbone, as a multiple of the denoiser's.",
}
_OF_SCALE = {
    "paper": "Scores on GREW are those of a local check, gallery 01 and probe 02; the paper's are its site's.",
    "walkers": "Scale walkers: synthetic people stand for both data sets, networks are narrow, and iterations are "
    "the paper's divided by 250. Its numbers are not to be compared with the paper's, only its order of them.",
}


def run(
    what: str,
    out: Path,
    *,
    stores: Sequence[str] = (),
    scale: Scale = "paper",
    seeds: int = 1,
    only: Sequence[str] = (),
    settings: Sequence[str] = (),
    dry_run: bool = False,
    device: str = "auto",
) -> None:
    """Print the plan, do the runs that are missing, and write the table or figure into ``out``.

    A run that is finished is not done again, one that fails does not stop the others, and several processes may
    work at one ``out``.

    Args:
        what: of ``EXPERIMENTS``, or "fig1".
        stores: folders of sequence stores, each as PATH or as gait3d=PATH or grew=PATH.
        only: names of cells, or patterns of them such as "finetuned-gait3d-*"; empty for all.
        settings: on top of all runs, where their stage has them, each as "optim.batch=32".

    Raises:
        UserError: anything about data, settings or machine that the user can fix; runs that failed are named.
    """
    require_seeds(seeds)
    if what == _AUGMENTATIONS:
        if only or settings:
            raise UserError(f"{_AUGMENTATIONS} is one picture without runs: leave out --only and --set")
        return _draw_augmentations(out, stores, scale, dry_run)
    cells = _chosen(EXPERIMENTS[what](scale), only)
    runs = runs_of(cells)
    needed = list(dict.fromkeys(run.data for run in runs))
    chosen = Settings(settings)
    chosen.refuse_levers(runs)
    grid = Grid(out, _stores(out, stores, scale, needed), chosen, device)
    jobs = [Job(run, seed) for seed in range(seeds) for run in runs]
    missing = [name for name in needed if name not in grid.stores]
    if missing and not dry_run:
        names = " and ".join(facts.DATA[name] for name in missing)
        other = "or --scale walkers" if scale == "paper" else "or leave out --store for people made for it"
        raise UserError(f"no store of {names} is given: add --store {missing[0]}=PATH (gaitdiff data import), {other}")
    if stores:
        _refuse_unscored(what, grid, runs)
    left = grid.left(jobs)
    if dry_run:  # what is to do is known at once, what it costs has to be measured
        print("\n".join(map(grid.command, left)), flush=True)
    _print_plan(grid, cells, range(seeds), len(jobs), costs(grid, left))
    if dry_run:
        return
    if scale == "walkers" and not stores:
        make_walkers(out, needed)
    failed = grid.work(jobs)
    drawn = [cell for cell in EXPERIMENTS[what](scale) if cell in cells or _is_there(grid, cell, seeds)]
    _write(what, grid, drawn, seeds, scale)
    if failed:
        raise UserError(failures(failed, jobs))


def _is_there(grid: Grid, cell: Cell, seeds: int) -> bool:
    """Whether something is kept of a cell that was not asked for this time, all of it with the same settings."""
    beside = cell.beside.chain() if cell.beside is not None else ()
    try:
        kept = {run: grid.finished(run, range(seeds)) for run in (*cell.run.chain(), *beside)}
    except UserError:
        return False
    return bool(kept[cell.run])


def _refuse_unscored(what: str, grid: Grid, runs: Sequence[Run]) -> None:
    """Refuse stores on which nobody can be scored, before hours of training."""
    for run in runs if what != "fig3" else ():  # which is of distances alone
        if run.data in grid.stores:
            config = grid.config(Job(run, 0))
            require_scorable(SequenceStore(grid.stores[run.data]), config.run.protocol)


def _chosen(cells: Sequence[Cell], only: Sequence[str]) -> list[Cell]:
    names = [cell.name for cell in cells]
    for pattern in only:
        if not pattern:
            raise UserError("--only is empty: give the name of a cell, or a pattern")
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(f"--only {pattern} names no cell{nearest(pattern, names)}; a --dry-run lists them")
    return [cell for cell in cells if not only or any(fnmatchcase(cell.name, pattern) for pattern in only)]


def _stores(out: Path, words: Sequence[str], scale: Scale, needed: Sequence[str]) -> dict[str, Path]:
    """The folder of the store of each data set, as far as they are given."""
    if scale == "walkers" and not words:
        return {name: walkers_folder(out, name) for name in needed}
    found: dict[str, Path] = {}
    for word in words:
        name, equals, path = word.partition("=")
        named = bool(equals) and bool(re.fullmatch(r"[\w-]+", name)) and not Path(word).exists()
        if named and name not in facts.DATA:
            raise UserError(f"--store {word}: the paper's data sets are {' and '.join(facts.DATA)}")
        store = SequenceStore(path if named else word)
        if named:
            names = [name]
        elif store.header.dataset in facts.DATA:
            names = [store.header.dataset]
        elif scale == "walkers":
            names = list(needed)
        else:
            raise UserError(
                f"{word} is of {store.header.dataset or 'no named data set'}: say which of the paper's it stands for, "
                f"as in --store {needed[0]}={word}"
            )
        for one in names:
            if one in found:
                raise UserError(f"two stores are given for {facts.DATA[one]}, {found[one]} and {store.path}: give one")
            found[one] = store.path
    return found


def walkers_folder(out: Path, data: str) -> Path:
    """Of the people that stand for a data set."""
    return out / "walkers" / data


def make_walkers(out: Path, needed: Sequence[str]) -> None:
    """Make the people that stand for the data sets, unless they are there; one of several processes makes them."""
    people = TRAIN_PEOPLE + TEST_PEOPLE
    for data in needed:
        folder, (preset, seed) = walkers_folder(out, data), PEOPLE[data]
        while not folder.exists():
            with try_lock(out / ".locks" / f"walkers-{data}") as mine:
                if not mine:
                    time.sleep(1)
                elif not folder.exists():
                    say(f"walkers that stand for {facts.DATA[data]}: preset {preset}, {people} people")
                    sizes = {"sequences": SEQUENCES, "frames": _FRAMES, "test_people": TEST_PEOPLE}
                    generate(folder, people=people, preset=preset, seed=seed, **sizes)
        if SequenceStore(folder).header.source != store_source(preset, seed, people):
            raise UserError(f"{folder} holds other walkers than this experiment makes: choose another --out")


def _print_plan(grid: Grid, cells: Sequence[Cell], seeds: Sequence[int], jobs: int, cost: Mapping[str, Cost]) -> None:
    """Cell by cell what is to do, each run where it comes first.

    Args:
        jobs: number of all runs.
        cost: of those that are not finished.
    """
    beside = sum(cell.name.removeprefix(_TUNED) in BESIDES for cell in cells)
    title = counted(len(cells) - beside, "cell") + (f", {beside} more to compare with" if beside else "")
    table = Table(Column("cell", overflow="fold"), "runs", "iterations", "hours", "paper", title=title)
    seen: set[str] = set()
    for cell in cells:
        others = cell.beside.chain() if cell.beside is not None else ()
        chain = [Job(run, seed).name for seed in seeds for run in dict.fromkeys((*cell.run.chain(), *others))]
        left = [name for name in chain if name in cost]
        new = [name for name in left if name not in seen]
        seen.update(new)
        hours = sum(cost[name].seconds for name in new) / 3600
        steps = " + ".join(f"{grid.config(Job(run, seeds[0])).optim.iterations:,}" for run in cell.run.chain())
        shared = f", {len(left) - len(new)} shared" if len(left) > len(new) else ""
        state = f"{len(left)} to do{shared}" if left else "done"
        table.add_row(cell.name, state, steps, f"{hours:.2f}", "" if cell.printed is None else f"{cell.printed:.1f}")
    console = answers()
    console.print(table)
    console.print(in_words(len(cost), jobs, cost), soft_wrap=True)


def _write(what: str, grid: Grid, cells: Sequence[Cell], seeds: int, scale: Scale) -> None:
    """Table or figure of what is finished."""
    console = answers()
    if what in _TABLES:
        found = render.numbers(grid, cells, seeds)
        rows = _TABLES[what](found)
        notes = [_NOTES[what], _OF_SCALE[scale], *_about(seeds)]
        about = {"what": what, "scale": scale, "seeds": seeds, "gaitdiff": __version__}
        file = grid.out / f"{what}.json"
        write_json(file, render.document(about, found))
        write_whole(grid.out / f"{what}.md", render.markdown(rows, notes).encode())
        table = Table(*rows[0], title=what, show_lines=what != "table3")
        for row in rows[1:]:
            table.add_row(*map(Text, row))
        console.print(table)
        console.print("\n".join(notes), soft_wrap=True)
    else:
        file = grid.out / f"{what}.png"
        for name in figures.draw(what, grid, cells, seeds, grid.out / what):
            say(f"{name} is not finished, and left out of {file}")
    console.print(str(file), soft_wrap=True)


def _about(seeds: int) -> Iterator[str]:
    how = "in brackets 95% intervals of differences, by bootstrap over test people"
    if seeds == 1:
        yield f"{how[0].upper()}{how[1:]}: of these runs, not of what another seed would give."
    else:
        yield f"± is the standard deviation over seeds; {how} and seeds, too narrow where few seeds differ much."


def _draw_augmentations(out: Path, words: Sequence[str], scale: Scale, dry_run: bool) -> None:
    """Figure 1's companion."""
    if not words and scale == "walkers" and not dry_run:
        make_walkers(out, ["gait3d"])
    stores = _stores(out, words, scale, ["gait3d"])
    if dry_run:
        return print(f"{_AUGMENTATIONS}: one picture, no runs")
    if not stores:
        raise UserError("no store is given: add --store PATH, or --scale walkers")
    out.mkdir(parents=True, exist_ok=True)
    figures.draw_augmentations(SequenceStore(next(iter(stores.values()))), out / _AUGMENTATIONS)
    print(out / f"{_AUGMENTATIONS}.png")
