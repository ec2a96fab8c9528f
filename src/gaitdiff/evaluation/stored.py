"""Scores of stored sequences: the store says who is a probe, and its data set by what protocol they are scored."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from gaitdiff.data.store import SequenceStore
from gaitdiff.errors import UserError
from gaitdiff.evaluation.metrics import ProbeRanks, check_metric
from gaitdiff.evaluation.protocols import PROTOCOLS, Protocol, get_protocol
from gaitdiff.evaluation.protocols.selection import Selected, Selection
from gaitdiff.evaluation.ranking import Features, feature_set
from gaitdiff.evaluation.scoring import DEFAULT_METRIC, evaluate, select_rows

#: In place of a protocol's name: that of the store's data set.
AUTO = "auto"

#: For stores of no data set that has a protocol of its own.
BY_ROLE = "gait3d"


def evaluate_store(
    features: Features,
    store: SequenceStore,
    rows: np.ndarray,
    protocol: str = AUTO,
    metric: str = DEFAULT_METRIC,
    device: torch.device | None = None,
    **protocol_data: object,
) -> dict[str, Any]:
    """Score features of stored sequences: a row's condition is its type; Gait3D's probes are those whose role says so.

    Args:
        protocol: "auto" takes that of the store's data set, see ``store_protocol``.

    Raises:
        UserError: see ``evaluate``.
    """
    how = store_protocol(store, protocol)
    labels, types, views = names_of(store, rows)
    data = {**_role_masks(store, rows, how), **protocol_data}
    return evaluate(how.name, features, labels, types, views, metric, device=device, **data)


def rank_in_store(
    features: Features,
    store: SequenceStore,
    rows: np.ndarray,
    protocol: str = AUTO,
    metric: str = DEFAULT_METRIC,
    device: torch.device | None = None,
) -> tuple[np.ndarray, ProbeRanks]:
    """Find each probe's person, for what looks at probes one by one.

    Returns:
        Row numbers of the probes, and their ranks.

    Raises:
        UserError: see ``evaluate``; or the protocol has several conditions, each with ranks of its own.
    """
    selection = select_once(store, rows, protocol)
    walks = feature_set(features, *names_of(store, rows), check_metric(metric), device)
    walks.require_finite()
    return rows[selection.probe], walks.ranks(selection.probe, selection.gallery, selection.same)


def select_once(store: SequenceStore, rows: np.ndarray, protocol: str) -> Selection:
    """Probes and gallery of a protocol in which each probe is looked for in one way.

    Raises:
        UserError: there are several, see ``rank_in_store``.
    """
    found = select_in_store(store, rows, protocol).conditions
    if len(found) > 1 or store_protocol(store, protocol).settings:
        raise UserError(
            f"protocol {store_protocol(store, protocol).name!r} scores each probe in several ways, and here it takes "
            "one: choose protocol gait3d or leave-one-out (--protocol, or run.protocol of a run)"
        )
    (selection,) = found.values()
    return selection


def store_protocol(store: SequenceStore, protocol: str = AUTO) -> Protocol:
    """Return a protocol by its name; for "auto" that of the store's data set, or "gait3d", which goes by roles.

    Raises:
        UserError: unknown protocol.
    """
    if protocol.lower() != AUTO:
        return get_protocol(protocol)
    return PROTOCOLS.get(store.header.dataset, PROTOCOLS[BY_ROLE])


def _role_masks(store: SequenceStore, rows: np.ndarray, protocol: Protocol) -> dict[str, list[bool]]:
    """Masks of probes and gallery by the rows' roles, for a protocol that goes by them.

    Where no row has the role "gallery", all that are not probes are the gallery.
    """
    if not protocol.by_role:
        return {}
    roles = [store.rows[int(row)].role for row in rows]
    masks = {"probe_mask": [role == "probe" for role in roles]}
    return {**masks, "gallery_mask": [role == "gallery" for role in roles]} if "gallery" in roles else masks


def names_of(store: SequenceStore, rows: np.ndarray) -> tuple[list[str], list[str], list[str]]:
    """Labels, types and views of stored sequences, as protocols take them."""
    chosen = [store.rows[int(row)] for row in rows]
    return [row.subject for row in chosen], [row.condition for row in chosen], [row.view for row in chosen]


def select_in_store(
    store: SequenceStore, rows: np.ndarray, protocol: str = AUTO, setting: str | None = None
) -> Selected:
    """Find probes and gallery among stored sequences by their names, before any features are computed.

    Returns:
        Positions in ``rows``, for each condition that can be scored.

    Raises:
        UserError: what ``evaluate`` would say of the names alone; the sentence names the store.
    """
    how = store_protocol(store, protocol)
    roles: dict[str, Any] = _role_masks(store, rows, how)
    if how.by_role and setting is None and not any(roles["probe_mask"]):
        several = len({store.rows[int(row)].subject for row in rows}) < len(rows)
        what = "take --protocol leave-one-out" if several else "import it with --split halves, which makes two of each"
        raise UserError(
            f"no test sequence of {store.path} has the role 'probe', by which protocol {how.name!r} goes: {what}"
        )
    try:
        return select_rows(how.name, *names_of(store, rows), setting=setting, **roles)
    except UserError as error:
        raise UserError(f"{store.path}: {error}") from error
