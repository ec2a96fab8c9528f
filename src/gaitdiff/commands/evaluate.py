"""``gaitdiff evaluate``: a checkpoint's scores beside the gait energy image's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from gaitdiff.config.schema import MachineConfig
from gaitdiff.config.shared import Precision
from gaitdiff.data.store import SequenceStore
from gaitdiff.errors import UserError
from gaitdiff.evaluation.about import Compared, Origin, about, compared
from gaitdiff.evaluation.features import BASELINE, gait_energy_images
from gaitdiff.evaluation.held_out import held_out_rows
from gaitdiff.evaluation.protocols import Protocol, protocols_with_submission
from gaitdiff.evaluation.scoring import as_names, headline_metrics
from gaitdiff.evaluation.shards import extract_shared_to
from gaitdiff.evaluation.stored import AUTO, evaluate_store, names_of, store_protocol
from gaitdiff.training.checkpoint import load_checkpoint, pick_features, read_checkpoint_info
from gaitdiff.training.device import make_accelerator
from gaitdiff.training.together import peers_told
from gaitdiff.utils.files import json_object, require_output, write_json
from gaitdiff.utils.progress import answers
from gaitdiff.utils.scratch import scratch_folder

_RANKS = tuple(f"rank{k}" for k in (1, 2, 3, 4, 5, 10, 20))
#: Key of a score → heading of its column.
_COLUMNS = {key: key.replace("rank", "rank-") for key in _RANKS} | {"mAP": "mAP", "mINP": "mINP"}
_COLUMNS |= {"gait": "rank-1 by camera"}


def score_table(title: str, scores: dict[str, dict[str, Any]]) -> Table:
    """Scores by what was compared, as a table for the terminal, 80 columns wide at most.

    A protocol's conditions stand below their features, but for one whose scores are always those of the features' own
    row: OU-MVLP's only one, and "Overall" of SUSTech1K.
    """
    tops = {name: headline_metrics(result) for name, result in scores.items()}
    below = {name: _conditions(result) for name, result in scores.items()}
    known = set().union(*tops.values(), *(numbers for rows in below.values() for numbers in rows.values()))
    too_wide = {"rank10"} if "mINP" in known else {"mAP"} if "rank4" in known else set()  # for 80 columns
    keys = [key for key in _COLUMNS if key in known and key not in too_wide]
    table = Table(title=title)
    table.add_column("features")
    for heading in (*(_COLUMNS[key] for key in keys), "probes"):
        table.add_column(heading, justify="right")
    for name, top in tops.items():
        alone = len(below[name]) + len(scores[name].get("missing", ())) == 1
        rows = {f"  {key}": numbers for key, numbers in below[name].items() if not alone and key != "Overall"}
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
        if isinstance(value, dict) and "probes" in value:
            by_camera = {"gait": value["gait"]["rank1_excluding_same_view"]} if "gait" in value else {}
            numbers = value.get("mean") or value["reid"]
            found[name] = headline_metrics({**numbers, "probes": value["probes"], **by_camera})
    return found


def score_checkpoint(
    checkpoint: Path,
    data: Path,
    features: str = "auto",
    metric: str | None = None,
    protocol: str = AUTO,
    device: str = "auto",
    json_file: Path | None = None,
    *,
    setting: str | None = None,
    submission: Path | None = None,
    save_features: Path | None = None,
    resize: bool = False,
    split: str = "test",
    precision: Precision = "float32",
) -> dict[str, dict[str, Any]]:
    """Score a checkpoint on held-out people, print the table and what it is of, return the scores by row.

    Features pass through files on disk, so that no test set is too large for memory. Processes that torchrun started
    share the work; the first one prints and returns the scores.

    Args:
        features: see ``gaitdiff.training.checkpoint.pick_features``.
        metric: ``"cosine"`` or ``"euclidean"``; None: the distance that the checkpoint was trained with, or cosine.
        protocol: ``"auto"`` is that of the store's data set.
        setting: ``"single-view"`` or ``"cross-view"``, where the protocol has both.
        submission: CSV file for the server of GREW or HID.
        save_features: keep the features there, a ``.npy`` file.
        resize: convert frames of another height than the checkpoint's.
        split: "test" or "val".
        precision: to compute features in.

    Returns:
        For each row what ``evaluate`` gives, and ``about``, what names the scores; in other processes nothing.

    Raises:
        UserError: no checkpoint, no test split, embeddings asked of a checkpoint without a trained head, …
    """
    accelerator = make_accelerator(MachineConfig(device=device, precision=precision))
    place = accelerator.device
    info, store = read_checkpoint_info(checkpoint), SequenceStore(data)
    how = store_protocol(store, protocol)
    rows = held_out_rows(store, split)
    files = {"--json": json_file, "--submission": submission, "--save-features": save_features}
    _check_files(how, files, len(rows))
    info.require_features(features)
    info.require_height(store, resize)
    resized = info.height if resize else None
    what = compared(store, rows, how.name, setting, resized)
    names = names_of(store, rows)
    if submission is not None and how.submission is not None:
        how.submission.asked(as_names(*names))
    metric = metric or info.metric
    settings = {} if setting is None else {"setting": setting}
    network, row_name = pick_features(load_checkpoint(info.folder, place), features)
    scores: dict[str, dict[str, Any]] = {}
    with scratch_folder() as folder:
        energy, ours = folder / "energy.npy", save_features or folder / "features.npy"
        with peers_told(accelerator.num_processes):
            half = accelerator.mixed_precision == "bf16"
            found = extract_shared_to(ours, network, store, rows, place, resized, half)
        if found is None:  # the first process has all
            return {}
        if not how.secret:
            images = gait_energy_images(store, rows, energy)
            scores[BASELINE] = evaluate_store(images, store, rows, how.name, metric, place, **settings)
            scores[BASELINE]["about"] = about(what, Origin(), BASELINE, metric)
            del images
        scores[row_name] = evaluate_store(found, store, rows, how.name, metric, place, **settings)
        origin = replace(info.origin, precision="bfloat16" if half else "float32")
        scores[row_name]["about"] = about(what, origin, row_name, metric)
        if submission is not None and how.submission is not None:
            how.submission.write(submission, found, *names, metric, device=place)
        del found
    if json_file is not None:
        write_json(json_file, scores, "choose another --json")
    print_scores({} if how.secret else scores, what, metric, [f"run: {origin} ({row_name})"])
    return scores


def print_scores(scores: dict[str, dict[str, Any]], what: Compared, metric: str, runs: Sequence[str]) -> None:
    """Print a table of scores, where there are some, and below it what they are of."""
    title = what.protocol if what.setting is None else f"{what.protocol}, {what.setting}"
    console = answers()
    if scores:
        console.print(score_table(f"{title}, {metric} distance", scores))
    for line in (*runs, *what.lines(metric)):
        console.print(line, soft_wrap=True)


def _are_scores(_: Protocol, __: int, file: Path) -> bool:
    rows = json_object(file).values()
    return bool(rows) and all(isinstance(row, dict) and "about" in row for row in rows)


def _are_features(_: Protocol, walks: int, file: Path) -> bool:
    features = np.lib.format.open_memmap(file, mode="r")
    return bool(features.dtype == np.float32 and features.ndim == 3 and len(features) == walks)


def _is_submission(protocol: Protocol, _: int, file: Path) -> bool:
    with file.open(encoding="ascii") as lines:
        return protocol.submission is not None and next(lines, "").rstrip("\n") == ",".join(protocol.submission.header)


#: Flag → whether a file is what an earlier command wrote there.
_KINDS = {"--json": _are_scores, "--save-features": _are_features, "--submission": _is_submission}


def _check_files(protocol: Protocol, files: dict[str, Path | None], walks: int) -> None:
    """Refuse what would fail, write over another file, or show nothing, after minutes of work."""
    flags: dict[Path, str] = {}
    for flag, path in files.items():
        if path is None:
            continue
        if flag == "--submission" and protocol.submission is None:
            with_file = " and ".join(protocols_with_submission())
            raise UserError(f"protocol {protocol.name!r} has no file to submit: --submission goes with {with_file}")
        if flag == "--save-features" and path.suffix.lower() != ".npy":
            raise UserError(f"{flag} is {path}, but what is written is an array: call it {path.stem or 'features'}.npy")
        require_output(path, flag, partial(_KINDS[flag], protocol, walks))
        other = flags.setdefault(path.resolve(), flag)
        if other != flag:
            raise UserError(f"{other} and {flag} are the same file, {path}: give each its own")
    if protocol.secret and files["--submission"] is None and files["--json"] is None:
        raise UserError(f"protocol {protocol.name!r} has no scores to print: give --submission or --json a file")
