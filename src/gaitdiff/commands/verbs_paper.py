"""The verbs of the paper's evidence, one function each, as in ``verbs``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from gaitdiff.commands.verbs import Device, prepare


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
