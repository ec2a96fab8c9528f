"""``gaitdiff submit``: the archive that a benchmark's site takes, checked, and local scores where there are some."""

from __future__ import annotations

import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from gaitdiff.commands.evaluate import print_scores
from gaitdiff.data.store import SequenceStore
from gaitdiff.errors import UserError
from gaitdiff.evaluation.about import Compared, about, compared
from gaitdiff.evaluation.features import extract
from gaitdiff.evaluation.held_out import held_out_rows
from gaitdiff.evaluation.protocols import get_protocol, protocols_with_submission
from gaitdiff.evaluation.protocols.submission import CSV_NAME, compare_probes, read_probe_list, zip_submission
from gaitdiff.evaluation.scoring import as_names
from gaitdiff.evaluation.stored import evaluate_store, names_of
from gaitdiff.training.checkpoint import load_checkpoint, pick_features, read_checkpoint_info
from gaitdiff.training.device import device_for
from gaitdiff.utils.files import require_output
from gaitdiff.utils.scratch import scratch_folder
from gaitdiff.version import __version__


def submit(
    site: str,
    checkpoint: Path,
    data: Path,
    out: Path,
    *,
    probes: Path | None = None,
    features: str = "auto",
    metric: str | None = None,
    device: str = "auto",
    resize: bool = False,
) -> dict[str, Any]:
    """Write the archive for a site, checked, and print the scores of the local check beside it.

    Whatever can be wrong with the store or the flags is said before features are computed.

    Args:
        site: ``"grew"`` or ``"hid"``.
        data: a store of the data set: of GREW, types 01 and 02 are the gallery and 03 the probes without names; of
            HID, the person "probe" is everyone who is looked for.
        out: the .zip file; ``submission.csv`` lies at its root.
        probes: the official list of probe videos, see :func:`gaitdiff.evaluation.protocols.submission.read_probe_list`.
        features, metric, resize: as for :func:`gaitdiff.commands.evaluate.score_checkpoint`.

    Returns:
        The local scores, none where a site has no local check.

    Raises:
        UserError: no checkpoint, a store that gives no submission, probes other than the list's, a file that cannot be
            written.
    """
    _check_out(out)
    how, info = get_protocol(site), read_checkpoint_info(checkpoint)
    rules = how.submission
    if rules is None:
        raise UserError(f"{site} takes no file: gaitdiff submit goes with {' and '.join(protocols_with_submission())}")
    place = device_for(device)
    info.require_features(features)
    store = SequenceStore(data)
    if store.header.dataset in protocols_with_submission() and store.header.dataset != site:
        other = store.header.dataset
        raise UserError(f"{store.path} is a store of {other}, not of {site}: gaitdiff submit {other} makes its file")
    rows = held_out_rows(store)
    names = names_of(store, rows)
    videos, people = rules.asked(as_names(*names))
    official = videos if probes is None else read_probe_list(probes)
    compare_probes(videos, set(official), str(store.path), "the store" if probes is None else str(probes))
    info.require_height(store, resize)
    metric, resized = metric or info.metric, info.height if resize else None
    what, unscored = _local_check(store, rows, site, resized) if not how.secret else (None, "")
    network, row_name = pick_features(load_checkpoint(info.folder, place), features)
    scores: dict[str, Any] = {}
    with scratch_folder() as folder:
        found = extract(network, store, rows, place, folder / "features.npy", height=resized)
        if what is not None:
            scores = evaluate_store(found, store, rows, site, metric, place)
            scores["about"] = about(what, info.origin, row_name, metric)
            print_scores({row_name: scores}, what, metric, [f"run: {info.origin}"])
        written = rules.write(folder / "submission.csv", found, *names, metric, device=place)
        text = written.read_text(encoding="utf-8")
        del found
    rules.check(text, official, people)
    zip_submission(out, text)
    listed = "as in the store, not compared with a list" if probes is None else f"those of {probes}"
    print(f"{out}: {len(videos)} probes, {listed}; {len(people)} people in the gallery of {store.path}")
    print(f"{row_name} of {info.origin}, {metric} distance, gaitdiff {__version__}")
    if not how.secret:
        print("the scores above are not the site's" if what is not None else f"no local check: {unscored}")
    return scores


def _local_check(store: SequenceStore, rows: np.ndarray, site: str, resized: int | None) -> tuple[Compared | None, str]:
    """What the local check compares; or none, and why."""
    try:
        return compared(store, rows, site, resized=resized), ""
    except UserError as error:
        return None, str(error)


def _check_out(out: Path) -> None:
    if out.suffix.lower() != ".zip":
        raise UserError(f"{out} cannot be the archive: give --out a name that ends in .zip")
    require_output(out, "--out", _is_archive)


def _is_archive(file: Path) -> bool:
    with suppress(zipfile.BadZipFile, NotImplementedError), zipfile.ZipFile(file) as archive:
        return archive.namelist() == [CSV_NAME]
    return False
