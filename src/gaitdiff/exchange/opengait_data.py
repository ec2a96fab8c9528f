"""Export of a store to OpenGait's layout: a folder a sequence with one pickled array in it, and a partition file."""

from __future__ import annotations

import json
import os
import pickle
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gaitdiff.data.store import SequenceStore
from gaitdiff.data.store.manifest import Row
from gaitdiff.errors import UserError
from gaitdiff.utils.files import atomic_folder, refuse_existing
from gaitdiff.utils.progress import console, track

PARTITION_FILE = "partition.json"

#: The type's folder of sequences without a condition.
NO_CONDITION = "default"

#: Where a sequence goes: the folders of person, type and view.
Place = tuple[str, str, str]

_FORBIDDEN = re.compile(r'[%/\\:*?"<>|\x00-\x1f\x7f]|^-|-$|(?<=-)-')  # and hyphens that partitions cannot tell apart
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?$", re.IGNORECASE)  # names of devices in Windows
_LONGEST = 255  # bytes of a file's name


def export_store(path: str | Path, out: str | Path, *, split: str | None = None) -> Path:
    """Write a store as ``<id>/<type>/<view>/<view>.pkl`` with a ``partition.json``, all of it or nothing.

    Each file is one array, uint8 (T, H, W), as ``pickle.dump`` writes it, protocol 4; NumPy 1 and 2 load it. The
    partition has the keys TRAIN_SET and TEST_SET and, where sequences are probes, PROBE_SET (``id-type-view``); where
    others are neither probe nor gallery, also GALLERY_SET.
    :func:`places_of` says how folders are named. The folder grows under a hidden name beside its place; what a killed
    export left behind is cleared by the next one.

    Args:
        path: the store.
        out: folder to create; must not exist.
        split: "train", "val" or "test" to export that part alone. People set aside for validation are training
            people of the whole, and test people where they are alone.

    Returns:
        The folder.

    Raises:
        UserError: the store cannot be used or is damaged, nothing to export, a person in both splits, names that make
            no folders or that a partition cannot tell apart, or the folder exists, lies inside the store or cannot be
            written.
    """
    store = SequenceStore(path)
    target = Path(out).absolute()
    if store.path.resolve() in target.resolve().parents:
        raise UserError(f"{target} lies inside the store {store.path}: choose another --out")
    chosen = store.select(split=split)
    if len(chosen) == 0:
        raise UserError(f"{store.path} has no sequences of the split {split!r}: leave --split out")
    rows = [store.rows[int(i)] for i in chosen]
    places = places_of(rows)
    partition = partition_of(rows, places)
    refuse_existing(target)
    with atomic_folder(target) as draft:
        for i, place in track(zip(chosen, places, strict=True), f"Exporting {store.path.name}", len(rows)):
            folder = draft.joinpath(*place)
            folder.mkdir(parents=True)
            (folder / f"{place[-1]}.pkl").write_bytes(pickled(store[int(i)].frames))
        text = json.dumps(partition, indent=1, ensure_ascii=False)
        (draft / PARTITION_FILE).write_text(text + "\n", encoding="utf-8")
    renamed = sum(place[2] != _safe(row.view or row.sequence) for row, place in zip(rows, places, strict=True))
    if renamed:
        console.print(
            f"{renamed} of {len(rows)} view folders carry the sequence's name too: the view has several walks"
        )
    return target


def pickled(frames: np.ndarray) -> bytes:
    """An array as a pickle of protocol 4 that needs nothing but NumPy, of any version.

    NumPy 2 calls the function that rebuilds an array by a name that NumPy 1 does not know, so the old one is written,
    which both know. A stream of protocol 3 has no frames whose length this would change, and is one of protocol 4.
    """
    stream = pickle.dumps(np.ascontiguousarray(np.asarray(frames)), protocol=3)
    return b"\x80\x04" + stream[2:].replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n", 1)


def places_of(rows: Sequence[Row]) -> list[Place]:
    """Name the folders of sequences.

    The person's is the subject, the type's the condition, or "default" where that is empty, the view's the view, or the
    sequence's name where that is empty. Where one view of a condition has several sequences, which OpenGait's layout
    has no place for, the view's folder is ``<view>-<sequence>``. What a file system does not take (``/``, ``:``, a
    leading dot, …) is percent-encoded, and so is "%": ``urllib.parse.unquote`` gives the name back.

    Raises:
        UserError: two sequences would share a folder still, or a name is too long for one.
    """
    count = Counter(_folders(row) for row in rows)
    found: dict[Place, Row] = {}
    for row in rows:
        person, kind, view = _folders(row)
        if count[person, kind, view] > 1 and row.view:
            view = f"{view}-{row.sequence}"
        place = (_safe(person), _safe(kind), _safe(view))
        other = found.setdefault(place, row)
        if other is not row:
            raise UserError(
                f"the sequences {other.name!r} and {row.name!r} cannot be exported: both would be {'/'.join(place)}; "
                "give one another name"
            )
        if max(len(os.fsencode(f"{folder}.pkl")) for folder in place) > _LONGEST:
            raise UserError(f"the sequence {row.name!r} cannot be exported: its name is too long for a file's")
    return list(found)


def partition_of(rows: Sequence[Row], places: Sequence[Place]) -> dict[str, list[str]]:
    """OpenGait's partition of exported sequences, people and probes sorted.

    It knows no validation: people set aside for it are of the training set, and of the test set where they are alone.

    Raises:
        UserError: a person is in both splits, or two sequences of different roles would have one name.
    """
    people: dict[str, set[str]] = {"train": set(), "test": set()}
    of_val = "test" if all(row.split == "val" for row in rows) else "train"
    sides = [of_val if row.split == "val" else row.split for row in rows]
    for side, place in zip(sides, places, strict=True):
        people[side].add(place[0])
    if both := sorted(people["train"] & people["test"]):
        raise UserError(
            f"{both[0]!r} has sequences in both splits, which a partition file cannot say: "
            "export each with --split train and --split test"
        )
    tested: dict[str, Row] = {}
    for row, side, place in zip(rows, sides, places, strict=True):
        if side == "test":
            other = tested.setdefault(name := "-".join(place), row)
            if other.role != row.role:
                raise UserError(
                    f"the sequences {other.name!r} and {row.name!r} have different roles, but a partition file calls "
                    f"both {name!r}: give one another name"
                )
    probes, gallery = (
        sorted(name for name, row in tested.items() if row.role == role) for role in ("probe", "gallery")
    )
    sets = {"TRAIN_SET": sorted(people["train"]), "TEST_SET": sorted(people["test"])}
    if not probes and not gallery:
        return sets
    # With a list of probes alone all others are gallery; where some, as GREW's secret ones, are neither, it is named.
    settled = all(row.role for row in tested.values())
    if settled and probes:
        return {**sets, "PROBE_SET": probes}
    return {**sets, "PROBE_SET": probes, "GALLERY_SET": gallery} if gallery else sets


def _folders(row: Row) -> Place:
    return row.subject, row.condition or NO_CONDITION, row.view or row.sequence


def _safe(name: str) -> str:
    """A name as a folder's, percent-encoded where a file system would not take it."""
    name = _FORBIDDEN.sub(lambda found: _quoted(found[0]), name)
    if name.startswith((".", " ")) or _RESERVED.match(name):
        name = _quoted(name[0]) + name[1:]
    return name[:-1] + _quoted(name[-1]) if name.endswith((".", " ")) else name


def _quoted(letter: str) -> str:
    return f"%{ord(letter):02X}"
