"""``gaitdiff evaluate``: a checkpoint's scores beside the gait energy image's."""

from __future__ import annotations

import json
import os
from pathlib import Path

from rich.console import Console
from rich.table import Table

from gaitdiff.data.store import SequenceStore
from gaitdiff.errors import UserError
from gaitdiff.evaluation.features import evaluate_store, extract, gait_energy_images, held_out_rows
from gaitdiff.evaluation.protocols import check_protocol
from gaitdiff.training.checkpoint import has_head, load_checkpoint
from gaitdiff.training.config import MachineConfig
from gaitdiff.training.loop import make_accelerator


def score_table(title: str, scores: dict[str, dict[str, float]]) -> Table:
    """Scores by what was compared, as a table for the terminal."""
    table = Table(title=title)
    for column in ("features", "rank-1", "rank-5", "mAP", "mINP", "probes"):
        table.add_column(column, justify="left" if column == "features" else "right")
    for name, row in scores.items():
        table.add_row(name, *(f"{row[key]:.1f}" for key in ("rank1", "rank5", "mAP", "mINP")), str(int(row["probes"])))
    return table


def score_checkpoint(
    checkpoint: Path, data: Path, features: str, metric: str, protocol: str, device: str, json_file: Path | None
) -> dict[str, dict[str, float]]:
    """Score a checkpoint on a store's test split, print the table, return the scores by row.

    Args:
        features: ``"raw"``, ``"embedding"``, or ``"auto"``: embeddings where a head was trained.

    Raises:
        UserError: no checkpoint, no test split, embeddings asked of a checkpoint without a trained head, …
    """
    check_protocol(protocol)
    place = make_accelerator(MachineConfig(device=device)).device
    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise UserError(f"{json_file} cannot be written: its folder does not exist")
    headed = has_head(checkpoint)
    store = SequenceStore(data)
    rows = held_out_rows(store)
    if features == "embedding" and not headed:
        raise UserError(f"{checkpoint} holds a backbone without a trained head: use --features raw")
    model = load_checkpoint(checkpoint, place)
    raw = features == "raw" or not headed
    network = model.backbone if raw else (lambda clips: model(clips).embedding)
    scores = {
        "gait energy image": evaluate_store(gait_energy_images(store, rows), store, rows, protocol, metric),
        "raw features" if raw else "embeddings": evaluate_store(
            extract(network, store, rows, place), store, rows, protocol, metric
        ),
    }
    Console().print(score_table(f"{protocol}, {metric} distance", scores))
    if json_file is not None:
        _write(json_file, json.dumps(scores, indent=1) + "\n")
    return scores


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.partial")
    try:
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise UserError(f"{path} cannot be written ({error.strerror}): choose another --json") from error
