"""``gaitdiff submit``: the archive that a benchmark's site takes, checked, beside the local scores."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from gaitdiff.data.store import SequenceStore
from gaitdiff.errors import UserError
from gaitdiff.evaluation.features import check_store, evaluate_store, extract, held_out_rows, names_of
from gaitdiff.evaluation.submission import (
    check_grew_submission,
    compare_probes,
    grew_rows,
    grew_submission,
    read_probe_list,
    zip_submission,
)
from gaitdiff.report.scores import score_table
from gaitdiff.training.checkpoint import has_head, load_checkpoint
from gaitdiff.training.config import MachineConfig
from gaitdiff.training.machine import make_accelerator


def submit_grew(
    checkpoint: Path,
    data: Path,
    out: Path,
    *,
    probes: Path | None = None,
    features: str = "auto",
    metric: str = "cosine",
    device: str = "auto",
) -> dict[str, Any]:
    """Write the archive for GREW's site, checked, and print the scores of the local check beside it.

    Whatever can be wrong with the store or the flags is said before features are computed.

    Args:
        data: a store of GREW: types 01 and 02 are the gallery, 03 the probes without names.
        out: the .zip file; ``submission.csv`` lies at its root.
        probes: the official list of probe videos, see :func:`gaitdiff.evaluation.submission.read_probe_list`.
        features: ``"raw"``, ``"embedding"``, or ``"auto"``: embeddings where a head was trained.

    Returns:
        The local scores: types 02 looked for among 01.

    Raises:
        UserError: no checkpoint, a store that gives no submission, probes other than the list's, a file that cannot be
            written.
    """
    _check_out(out)
    place = make_accelerator(MachineConfig(device=device)).device
    headed = has_head(checkpoint)
    if features == "embedding" and not headed:
        raise UserError(f"{checkpoint} holds a backbone without a trained head: use --features raw")
    store = SequenceStore(data)
    rows = held_out_rows(store)
    check_store(store, rows, "grew")
    labels, types, views = names_of(store, rows)
    probe, _, people = grew_rows(np.array(labels), np.array(types))
    videos = [views[int(row)] for row in probe]
    official = videos if probes is None else read_probe_list(probes)
    compare_probes(videos, set(official), str(store.path), "the store" if probes is None else str(probes))
    model = load_checkpoint(checkpoint, place)
    raw = features == "raw" or not headed
    with tempfile.TemporaryDirectory(prefix="gaitdiff-") as folder:
        found = extract(model.backbone if raw else model, store, rows, place, Path(folder) / "features.npy")
        scores = evaluate_store(found, store, rows, "grew", metric, place)
        written = grew_submission(Path(folder) / "submission.csv", found, labels, types, views, metric, place)
        text = written.read_text(encoding="utf-8")
        del found
    check_grew_submission(text, official, set(people.values()))
    zip_submission(out, text)
    title = f"grew local check (gallery 01, probe 02), {metric} distance"
    Console().print(score_table(title, {"raw features" if raw else "embeddings": scores}))
    compared = "as in the store, not compared with a list" if probes is None else f"those of {probes}"
    print(f"{out}: {len(videos)} probes, {compared}; the scores above are not the site's")
    return scores


def _check_out(out: Path) -> None:
    if out.suffix.lower() != ".zip":
        raise UserError(f"{out} cannot be the archive: give --out a name that ends in .zip")
    if out.is_dir():
        raise UserError(f"{out} cannot be written: it is a folder, --out takes a file")
    if not out.absolute().parent.is_dir():
        raise UserError(f"{out} cannot be written: its folder does not exist")
