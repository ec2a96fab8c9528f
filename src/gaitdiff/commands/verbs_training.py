"""The verbs that train, or compare what was trained, as in ``verbs``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from gaitdiff.commands.options import Device, Store, prepare, tell_repeated

#: The flag of pretrain and finetune that has no value.
DRY_RUN = "--dry-run"


def quickstart(
    *,
    out: Annotated[Path, "folder"] = Path("runs/quickstart"),
    small: Annotated[bool, "a tiny run that shows the way, in about a minute"] = False,
    device: Device = "auto",
    seed: Annotated[int, "of walkers and training"] = 0,
) -> None:
    """Run the whole method, from made-up walkers to a report."""
    from gaitdiff.commands.quickstart import run

    prepare()
    run(out, small=small, device=device, seed=seed)


def pretrain(*words: str) -> None:
    """Stage 1: learn a backbone from unlabelled sequences, by diffusion."""
    _train("pretrain", words)


def finetune(*words: str) -> None:
    """Stage 2: recognition with labels, from a pretrained backbone or from scratch."""
    _train("finetune", words)


def _train(stage: Literal["pretrain", "finetune"], words: Sequence[str]) -> None:
    from gaitdiff.config.recipe import STAGES, parse_config, settings_in

    settings = [word for word in words if word != DRY_RUN]
    tell_repeated(settings_in(stage, settings))
    config = parse_config(STAGES[stage], f"gaitdiff {stage}", settings)
    from gaitdiff.training.device import prepare_process

    prepare_process(config.machine)
    if DRY_RUN in words:
        from gaitdiff.commands.dry_run import describe

        return print(describe(config))
    from gaitdiff.training.finetune import finetune
    from gaitdiff.training.pretrain import pretrain

    print(pretrain(config) if stage == "pretrain" else finetune(config))


def label_curve(
    checkpoints: Annotated[tuple[str, ...], "run folders, checkpoints or weights that ship, as NAME=PATH or PATH"],
    *,
    data: Store,
    out: Annotated[Path, "folder for runs, scores and figures"],
    people: Annotated[str, "numbers of labelled people, between commas; by default up to 40, and all"] = "",
    seeds: Annotated[int, "runs of each kind, with seeds from 0"] = 3,
    recipe: Annotated[str, "of finetune"] = "walkers/finetune",
    set_: Annotated[tuple[str, ...], "a setting of finetune, such as optim.iterations=500; may be repeated"] = (),
    device: Device = "auto",
) -> None:
    """Compare fine-tuning pretrained backbones with training from scratch, by the number of labelled people."""
    from gaitdiff.commands.label_curve import named_checkpoints, run
    from gaitdiff.errors import require_seeds

    require_seeds(seeds)
    prepare()
    named = named_checkpoints(checkpoints)
    print(run(named, data, out, recipe=recipe, people=people, seeds=range(seeds), settings=set_, device=device).file)


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
    init: Annotated[str, "what the runs start from, as --init of the recipe's stage takes it"] = "",
    dry_run: Annotated[bool, "only print the plan, and the command of each run"] = False,
    out: Annotated[Path, "folder"],
    device: Device = "auto",
) -> None:
    """Train a recipe under every combination of settings, with several seeds, and compare."""
    from gaitdiff.commands.sweep import run

    prepare()
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

    prepare()
    run([Path(folder) for folder in runs], data=data, device=device, json_file=json)


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
    out: Annotated[
        Path | None, "folder, which experiments share (default: runs/paper, or runs/walkers-scale at that scale)"
    ] = None,
    device: Device = "auto",
) -> None:
    """Do what a table or figure of the paper needs, and print it beside the paper's numbers."""
    from gaitdiff.commands.reproduce import run

    prepare()
    run(
        what,
        out or Path("runs/paper" if scale == "paper" else "runs/walkers-scale"),
        stores=store,
        scale=scale,
        seeds=seeds,
        only=only,
        settings=set_,
        dry_run=dry_run,
        device=device,
    )


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

    prepare()
    run(words, out, seeds=seeds, dry_run=dry_run, device=device)
