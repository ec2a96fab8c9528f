"""``gaitdiff evaluate``: a checkpoint's scores beside the gait energy image's."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from gaitdiff.data.store import SequenceStore
from gaitdiff.errors import UserError
from gaitdiff.evaluation.features import (
    check_store,
    evaluate_store,
    extract,
    gait_energy_images,
    held_out_rows,
    names_of,
)
from gaitdiff.evaluation.protocols import check_protocol, headline
from gaitdiff.evaluation.submission import grew_rows, grew_submission, hid_submission
from gaitdiff.files import write_whole
from gaitdiff.training.checkpoint import has_head, load_checkpoint
from gaitdiff.training.config import MachineConfig
from gaitdiff.training.machine import make_accelerator

_RANKS = tuple(f"rank{k}" for k in (1, 2, 3, 4, 5, 10, 20))
#: Key of a score → heading of its column.
_COLUMNS = {key: key.replace("rank", "rank-") for key in _RANKS} | {"mAP": "mAP", "mINP": "mINP"}
_COLUMNS |= {"gait": "rank-1 by camera"}


def score_table(title: str, scores: dict[str, dict[str, Any]]) -> Table:
    """Scores by what was compared, as a table for the terminal, 80 columns wide at most.

    A protocol's conditions stand below their features, but for one whose scores are those of the features' own row:
    OU-MVLP's only one, and "Overall" of SUSTech1K.
    """
    tops = {name: headline(result) for name, result in scores.items()}
    below = {name: _conditions(result) for name, result in scores.items()}
    known = set().union(*tops.values(), *(numbers for rows in below.values() for numbers in rows.values()))
    keys = [key for key in _COLUMNS if key in known and not (key == "rank10" and "mINP" in known)]  # 80 columns
    table = Table(title=title)
    table.add_column("features")
    for heading in (*(_COLUMNS[key] for key in keys), "probes"):
        table.add_column(heading, justify="right")
    for name, top in tops.items():
        rows = {f"  {condition}": numbers for condition, numbers in below[name].items() if not _repeats(numbers, top)}
        for heading, numbers in {name: top, **rows}.items():
            values = (f"{numbers[key]:.1f}" if key in numbers else "" for key in keys)
            table.add_row(heading, *values, f"{numbers['probes']}")
        if rows:
            table.add_section()
    return table


def _conditions(result: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The numbers of each condition of a protocol that has some."""
    found = {}
    for name, value in result.items():
        if isinstance(value, dict):
            by_camera = {"gait": value["gait"]["rank1_excluding_same_view"]} if "gait" in value else {}
            numbers = value.get("mean") or value.get("reid") or value
            found[name] = headline({**numbers, "probes": value["probes"], **by_camera})
    return found


def _repeats(numbers: dict[str, float], top: dict[str, float]) -> bool:
    """Whether a condition's row would say what that of the features says."""
    return all(numbers.get(key) == value for key, value in top.items())


def score_checkpoint(
    checkpoint: Path,
    data: Path,
    features: str,
    metric: str,
    protocol: str,
    device: str,
    json_file: Path | None = None,
    *,
    setting: str | None = None,
    submission: Path | None = None,
    save_features: Path | None = None,
) -> dict[str, dict[str, Any]]:
    """Score a checkpoint on a store's test split, print the table, return the scores by row.

    Features pass through files on disk, so that no test set is too large for memory.

    Args:
        features: ``"raw"``, ``"embedding"``, or ``"auto"``: embeddings where a head was trained.
        setting: ``"single-view"`` or ``"cross-view"``, where the protocol has both.
        submission: CSV file for the server of GREW or HID.
        save_features: keep the features there, a ``.npy`` file.

    Raises:
        UserError: no checkpoint, no test split, embeddings asked of a checkpoint without a trained head, …
    """
    name = check_protocol(protocol)
    _check_files(name, {"--json": json_file, "--submission": submission, "--save-features": save_features})
    place = make_accelerator(MachineConfig(device=device)).device
    headed = has_head(checkpoint)
    store = SequenceStore(data)
    rows = held_out_rows(store)
    if features == "embedding" and not headed:
        raise UserError(f"{checkpoint} holds a backbone without a trained head: use --features raw")
    check_store(store, rows, name, setting)
    if submission is not None and name == "grew":
        labels, types, _ = names_of(store, rows)
        grew_rows(np.array(labels), np.array(types))
    settings = {} if setting is None else {"setting": setting}
    model = load_checkpoint(checkpoint, place)
    raw = features == "raw" or not headed
    row_name = "raw features" if raw else "embeddings"
    scores: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="gaitdiff-") as folder:
        energy, ours = Path(folder) / "energy.npy", save_features or Path(folder) / "features.npy"
        if name != "hid":
            images = gait_energy_images(store, rows, energy)
            scores["gait energy image"] = evaluate_store(images, store, rows, name, metric, place, **settings)
            del images
        found = extract(model.backbone if raw else model, store, rows, place, ours)
        scores[row_name] = evaluate_store(found, store, rows, name, metric, place, **settings)
        if submission is not None:
            write = grew_submission if name == "grew" else hid_submission
            write(submission, found, *names_of(store, rows), metric, device=place)
        del found
    if name != "hid":
        title = name if setting is None else f"{name}, {setting}"
        Console().print(score_table(f"{title}, {metric} distance", scores))
    if json_file is not None:
        write_whole(json_file, (json.dumps(scores, indent=1) + "\n").encode("utf-8"), "choose another --json")
    return scores


def _check_files(protocol: str, files: dict[str, Path | None]) -> None:
    """Refuse what would fail, or show nothing, after minutes of work."""
    flags: dict[Path, str] = {}
    for flag, path in files.items():
        if path is None:
            continue
        if flag == "--submission" and protocol not in ("grew", "hid"):
            raise UserError(f"protocol {protocol!r} has no file to submit: --submission goes with grew and hid")
        if path.is_dir():
            raise UserError(f"{path} cannot be written: it is a folder, {flag} takes a file")
        if not path.absolute().parent.is_dir():
            raise UserError(f"{path} cannot be written: its folder does not exist")
        other = flags.setdefault(path.resolve(), flag)
        if other != flag:
            raise UserError(f"{other} and {flag} are the same file, {path}: give each its own")
    if protocol == "hid" and files["--submission"] is None and files["--json"] is None:
        raise UserError("protocol 'hid' has no scores to print: give --submission or --json a file")
