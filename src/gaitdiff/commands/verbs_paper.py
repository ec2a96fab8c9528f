"""The verbs that make or compare many runs, one function each, as in ``verbs``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from gaitdiff.commands.verbs import Device, Store, prepare


def reproduce(
    what: Annotated[
        Literal["table1", "table2", "table3", "fig1", "fig2", "fig3", "fig4", "fig5"],
        "table or figure of the paper; fig1 shows the augmentations",
    ],
    *,
    store: Annotated[
        tuple[str, ...],
        "a sequence store, as PATH where it is of Gait3D or GREW, or as gait3d=PATH or grew=PATH; may be repeated "
        "(default: at scale walkers, people made for it)",
    ] = (),
    scale: Annotated[
        Literal["paper", "walkers"], "paper: as printed; walkers: synthetic people, sized for a CPU"
    ] = "paper",
    seeds: Annotated[int, "runs of each kind, with seeds from 0"] = 1,
    only: Annotated[tuple[str, ...], "a cell, or a pattern such as 'finetuned-gait3d-*'; may be repeated"] = (),
    set_: Annotated[
        tuple[str, ...], "a setting of all runs whose stage has it, such as optim.batch=32; may be repeated"
    ] = (),
    dry_run: Annotated[bool, "only print the plan: cells, hours, disk, and the command of each run"] = False,
    out: Annotated[Path, "folder, which experiments of one scale share"] = Path("runs/paper"),
    device: Device = "auto",
) -> None:
    """Do what a table or figure of the paper needs, and print it beside the paper's numbers."""
    from gaitdiff.commands.reproduce import run

    prepare(device)
    run(
        what,
        out,
        stores=store,
        scale=scale,
        seeds=seeds,
        only=only,
        settings=set_,
        dry_run=dry_run,
        device=device,
    )


def sweep(
    recipe: Annotated[str, "of pretrain or finetune"],
    *,
    data: Store,
    set_: Annotated[
        tuple[str, ...],
        "a setting and its values, such as optim.lr=0.001,0.003, or one value for all runs; may be repeated",
    ] = (),
    seeds: Annotated[int, "runs of each kind, with seeds from 0"] = 3,
    then: Annotated[str, "a recipe of finetune that starts from each pretraining, and is what is compared"] = "",
    init: Annotated[str, "what a recipe of finetune starts from"] = "",
    dry_run: Annotated[bool, "only print the plan, and the command of each run"] = False,
    out: Annotated[Path, "folder"],
    device: Device = "auto",
) -> None:
    """Train a recipe under every combination of settings, with several seeds, and compare."""
    from gaitdiff.commands.sweep import run

    prepare(device)
    run(recipe, data, out, settings=set_, seeds=seeds, then=then, init=init, dry_run=dry_run, device=device)


def compare(
    runs: Annotated[tuple[str, ...], "run folders, two or more"],
    *,
    data: Annotated[Path | None, "store to score them on (default: the one that they were trained on)"] = None,
    json: Annotated[Path | None, "write all numbers there too"] = None,
    device: Device = "auto",
) -> None:
    """Score runs on the same people, and tell their differences and the settings that they do not share."""
    from gaitdiff.commands.compare import run

    prepare(device)
    run([Path(folder) for folder in runs], data=data, device=device, json_file=json)


def claims(
    words: Annotated[tuple[str, ...], "nothing, to print all of them; or run and the name of one"] = (),
    *,
    seeds: Annotated[int, "runs of each kind, with seeds from 0"] = 3,
    dry_run: Annotated[bool, "only print how much there is to do, and the command of each run"] = False,
    out: Annotated[Path, "folder, shared with reproduce --scale walkers"] = Path("runs/walkers-scale"),
    device: Device = "auto",
) -> None:
    """List the paper's claims with what was seen of them, or run one."""
    from gaitdiff.commands.claims import run

    prepare(device)
    run(words, out, seeds=seeds, dry_run=dry_run, device=device)
