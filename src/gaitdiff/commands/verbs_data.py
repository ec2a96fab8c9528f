"""The verbs of ``gaitdiff data``, as in ``verbs``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from gaitdiff.commands.options import Store, Workers


def _data_sets() -> str:
    from gaitdiff.data.importers.datasets import NAMES

    return f"auto, which tells it from the folders' names, or one of {', '.join(NAMES)}"


def _presets() -> str:
    from gaitdiff.walkers import list_presets

    return f"one of {', '.join(list_presets())}"


def data_walkers(
    *,
    people: Annotated[int, "number of identities"],
    sequences: Annotated[int, "sequences of each"],
    preset: Annotated[str, _presets] = "lite",
    seed: Annotated[int, "the same seed gives the same bytes"] = 0,
    frames: Annotated[int, "frames of each sequence"] = 40,
    test_people: Annotated[int | None, "identities of the test split (default: three in ten)"] = None,
    workers: Workers = None,
    out: Annotated[Path, "folder of the new store"],
) -> None:
    """Make synthetic walking people as a sequence store."""
    from gaitdiff.walkers import generate

    made = generate(
        out,
        people=people,
        sequences=sequences,
        preset=preset,
        seed=seed,
        frames=frames,
        test_people=test_people,
        workers=workers,
    )
    print(made)


def data_import(
    source: Annotated[str, "folder, .zip or .tar file"],
    *,
    as_: Annotated[str, _data_sets] = "auto",
    out: Annotated[Path, "folder of the new store"],
    partition: Annotated[Path | None, "JSON file with TRAIN_SET and TEST_SET"] = None,
    size: Annotated[int | None, "height of the frames, 64 or 128 (default: as found, or 64)"] = None,
    layout: Annotated[str, "what folders of frames mean, such as '*/subject/sequence'"] = "auto",
    split: Annotated[
        str | None,
        "auto (by chance), train, test, or halves (each track's first half is looked for among the second ones), in "
        "place of the data set's own",
    ] = None,
    test_fraction: Annotated[float | None, "share of the people in the test split"] = None,
    seed: Annotated[int, "of the split into train and test"] = 0,
    workers: Workers = None,
    codec: Annotated[str, "raw reads three times as fast and takes nine times the space"] = "lz4-columns",
    dry_run: Annotated[bool, "only look, and say what would be imported"] = False,
) -> None:
    """Align silhouettes and pack them into a sequence store; the same command continues after a kill."""
    from gaitdiff.data.importers import import_data

    import_data(
        source,
        out,
        kind=as_,
        partition=partition,
        size=size,
        layout=layout,
        split=split,
        test_fraction=test_fraction,
        seed=seed,
        workers=workers,
        codec=codec,
        dry_run=dry_run,
    )


def data_split(
    store: Store,
    *,
    out: Annotated[Path, "folder of the new store; frames are linked, not copied"],
    val_people: Annotated[int, "training people to set aside for validation"],
    seed: Annotated[int, "of the draw"] = 0,
) -> None:
    """Set training people aside, to choose checkpoints by."""
    from gaitdiff.data.split import split_store

    print(split_store(store, out, val_people, seed))


def data_inspect(
    store: Store, *, sheet: Annotated[Path | None, "contact sheet (default: beside the store)"] = None
) -> None:
    """Check a store's checksums, print its table, draw a contact sheet."""
    from gaitdiff.data.quality.inspect import inspect

    inspect(store, sheet=sheet)


def data_verify(
    store: Store,
    *,
    json: Annotated[Path | None, "write the report there too, with every sequence"] = None,
    workers: Workers = None,
) -> None:
    """Check every frame of a store, and say which sequences look wrong."""
    from gaitdiff.data.quality.verify import verify_store

    verify_store(store, json_file=json, workers=workers)


def data_export(
    store: Store,
    *,
    out: Annotated[Path, "folder to create"],
    split: Annotated[Literal["train", "val", "test"] | None, "only this part (default: all)"] = None,
) -> None:
    """Write a store in OpenGait's layout of folders and pickles."""
    from gaitdiff.exchange.opengait_data import export_store

    print(export_store(store, out, split=split))
