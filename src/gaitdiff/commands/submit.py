"""``gaitdiff submit``: the archive that a benchmark's site takes, checked, and local scores where there are some."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gaitdiff.commands.evaluate import print_scores
from gaitdiff.config.schema import MachineConfig
from gaitdiff.data.store import SequenceStore
from gaitdiff.errors import UserError
from gaitdiff.evaluation.about import about, compared
from gaitdiff.evaluation.features import check_height, evaluate_store, extract, held_out_rows, names_of, select_in_store
from gaitdiff.evaluation.protocols.submission import (
    check_grew_submission,
    check_hid_submission,
    compare_probes,
    grew_rows,
    grew_submission,
    hid_rows,
    hid_submission,
    read_probe_list,
    zip_submission,
)
from gaitdiff.training.checkpoint import (
    checkpoint_height,
    checkpoint_metric,
    checkpoint_origin,
    has_head,
    load_checkpoint,
    pick_features,
)
from gaitdiff.training.device import make_accelerator

#: Labels, types and views of stored sequences.
Columns = tuple[list[str], list[str], list[str]]


@dataclass(frozen=True)
class Site:
    """What a benchmark's site takes.

    Attributes:
        asked: names to the probes' videos and the gallery's people as the file writes them; refuses a store that gives
            no file.
        write: (path, features, labels, types, views, metric, device) to the CSV.
        check: (text of the CSV, videos, people); refuses what the site would refuse.
        scored: whether there is a local check, a protocol of the same name with scores.
    """

    asked: Callable[[Columns], tuple[list[str], set[str]]]
    write: Callable[..., Path]
    check: Callable[[str, Sequence[str], Collection[str]], None]
    scored: bool


def _grew(columns: Columns) -> tuple[list[str], set[str]]:
    labels, types, views = columns
    probe, _, people = grew_rows(np.array(labels), np.array(types))
    return [views[int(row)] for row in probe], set(people.values())


def _hid(columns: Columns) -> tuple[list[str], set[str]]:
    return hid_rows(columns[0], columns[2])


SITES = {
    "grew": Site(_grew, grew_submission, check_grew_submission, scored=True),
    "hid": Site(_hid, hid_submission, check_hid_submission, scored=False),
}


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
    place, origin, rules = (
        make_accelerator(MachineConfig(device=device)).device,
        checkpoint_origin(checkpoint),
        SITES[site],
    )
    if features in ("embedding", "neck") and not has_head(checkpoint):
        raise UserError(f"{checkpoint} holds a backbone without a trained head: use --features raw")
    store = SequenceStore(data)
    rows = held_out_rows(store)
    select_in_store(store, rows, site)
    names = names_of(store, rows)
    videos, people = rules.asked(names)
    official = videos if probes is None else read_probe_list(probes)
    compare_probes(videos, set(official), str(store.path), "the store" if probes is None else str(probes))
    height = checkpoint_height(checkpoint)
    if not resize:
        check_height(height, store, str(checkpoint), ", or let --resize convert them")
    metric = metric or checkpoint_metric(checkpoint)
    network, row_name = pick_features(load_checkpoint(checkpoint, place), features, checkpoint)
    scores: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="gaitdiff-") as folder:
        found = extract(network, store, rows, place, Path(folder) / "features.npy", height=height)
        if rules.scored:
            what = compared(store, rows, site)
            scores = evaluate_store(found, store, rows, site, metric, place)
            scores["about"] = about(what, origin, row_name, metric)
            print_scores({row_name: scores}, what, metric, [f"run: {origin}"])
        written = rules.write(Path(folder) / "submission.csv", found, *names, metric, device=place)
        text = written.read_text(encoding="utf-8")
        del found
    rules.check(text, official, people)
    zip_submission(out, text)
    listed = "as in the store, not compared with a list" if probes is None else f"those of {probes}"
    closing = (
        "; the scores above are not the site's" if rules.scored else f"; {row_name} of {origin}, {metric} distance"
    )
    print(f"{out}: {len(videos)} probes, {listed}{closing}")
    return scores


def _check_out(out: Path) -> None:
    if out.suffix.lower() != ".zip":
        raise UserError(f"{out} cannot be the archive: give --out a name that ends in .zip")
    if out.is_dir():
        raise UserError(f"{out} cannot be written: it is a folder, --out takes a file")
    if not out.absolute().parent.is_dir():
        raise UserError(f"{out} cannot be written: its folder does not exist")
