"""Whom scores are of: test people, or those that were set aside for validation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gaitdiff.data.store import SequenceStore
from gaitdiff.errors import UserError
from gaitdiff.evaluation.stored import AUTO, BY_ROLE, select_in_store, select_once, store_protocol


def held_out_rows(store: SequenceStore, split: str = "test") -> np.ndarray:
    """Row numbers of the test split, or of the validation people.

    Raises:
        UserError: there are none.
    """
    rows = store.select(split=split)
    if len(rows) == 0:
        remedy = "import the data with a test split" if split == "test" else "gaitdiff data split sets people aside"
        raise UserError(f"{store.path} has no {split} sequences to evaluate on: {remedy}")
    return rows


def scored_split(store: SequenceStore) -> str:
    """What a run is scored on while it trains: validation people where there are some, else the test split."""
    return "val" if len(store.select(split="val")) else "test"


@dataclass(frozen=True)
class Scored:
    """Whom a run is scored on while it trains.

    Attributes:
        rows: numbers in the store; none where nothing can be scored.
        validates: whether they are validation people, by whose scores a checkpoint may be chosen.
        unscored: why there are none, for a sentence, or "".
        protocol: its name; as it was asked for where there are none, since what "auto" found fits nobody then.
    """

    rows: np.ndarray
    validates: bool
    unscored: str
    protocol: str


def to_score(store: SequenceStore, protocol: str) -> Scored:
    """Whom a run is scored on, see ``scored_split``.

    Args:
        protocol: "auto", or one that was asked for.

    Raises:
        UserError: a protocol that was asked for is unknown or does not fit the store.
    """
    how, split = store_protocol(store, protocol), scored_split(store)
    rows, why = store.select(split=split), ""
    try:
        if len(rows) == 0:
            why = f"{store.path} has no test people"
        else:
            how.require_names("choose another --run.protocol")
            select_in_store(store, rows, how.name)
    except UserError as error:
        if protocol.lower() != AUTO and how.name != BY_ROLE:
            raise
        why = str(error)
    return Scored(rows[:0] if why else rows, split == "val" and not why, why, protocol if why else how.name)


def require_scorable(store: SequenceStore, protocol: str) -> Scored:
    """The same, of a store in which each probe is looked for in one way, before hours of training.

    Raises:
        UserError: nothing can be scored, or probes are looked for in several ways.
    """
    scored = to_score(store, protocol)
    if scored.unscored:
        raise UserError(f"nothing can be scored: {scored.unscored}")
    select_once(store, scored.rows, scored.protocol)
    return scored
