"""What a run scores, person by person: from it come differences between runs with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from gaitdiff.data.store import SequenceStore
from gaitdiff.errors import UserError
from gaitdiff.evaluation.features import extract
from gaitdiff.evaluation.held_out import require_scorable
from gaitdiff.evaluation.ranking import Features
from gaitdiff.evaluation.stored import rank_in_store

_DRAWS = 4000  # of the bootstrap
#: A score to what it is a sum of.
SUMMED = {"rank1": "hits", "mAP": "precision"}


@dataclass(frozen=True)
class Outcome:
    """What a run scores, person by person.

    Attributes:
        probes: (n,) number of probes of each test person.
        hits: (n,) how many of them find their person first.
        precision: (n,) sum of their average precisions.
    """

    probes: list[int]
    hits: list[int]
    precision: list[float]

    def __post_init__(self) -> None:
        """Refuse what is no outcome."""
        columns = (self.probes, self.hits, self.precision)
        if not all(isinstance(column, list) and len(column) == len(self.probes) > 0 for column in columns):
            raise ValueError("an outcome is three lists, of one length, which is not 0")
        if not all(isinstance(value, int | float) for column in columns for value in column):
            raise ValueError("an outcome holds numbers")

    def percent(self, score: str) -> float:
        """Over all probes; ``score`` is "rank1" or "mAP"."""
        return round(100.0 * sum(getattr(self, SUMMED[score])) / sum(self.probes), 2)


def outcome_of(model: nn.Module, store: SequenceStore, protocol: str, metric: str, place: torch.device) -> Outcome:
    """Score a model on whom runs of a store are scored on, see ``to_score``.

    Args:
        protocol: "auto", or its name.
        metric: "cosine" or "euclidean".

    Raises:
        UserError: nothing can be scored, or each probe in several ways.
    """
    rows = require_scorable(store, protocol).rows
    return outcome_of_features(extract(model, store, rows, place), store, rows, protocol, metric, place)


def outcome_of_features(
    features: Features, store: SequenceStore, rows: np.ndarray, protocol: str, metric: str, place: torch.device
) -> Outcome:
    """The same of features (N, C, P) that are there, of rows of a store."""
    probe, ranks = rank_in_store(features, store, rows, protocol, metric, place)
    matched = ranks.first > 0
    people, person = np.unique([store.rows[int(row)].subject for row in probe[matched]], return_inverse=True)
    sums = (np.bincount(person, weights, len(people)) for weights in (None, ranks.first[matched] == 1))
    probes, hits = (values.astype(int).tolist() for values in sums)
    precision = np.bincount(person, ranks.precision[matched], len(people)).round(6)
    return Outcome(probes, hits, precision.tolist())


def difference(pairs: Sequence[tuple[Outcome, Outcome]], score: str, seed: int = 0) -> tuple[float, float, float]:
    """Mean of the second outcomes' score less the first's, and its 95% interval.

    The interval is a bootstrap's over seeds and, the same for both outcomes, over test people, whose probes stay
    together (Efron & Tibshirani 1993). Of two or three seeds that differ much it is too narrow.

    Args:
        pairs: both outcomes of each seed.
        score: "rank1" or "mAP".

    Returns:
        Percentage points.

    Raises:
        UserError: outcomes are not of the same probes.
    """
    if any(one.probes != pairs[0][0].probes for pair in pairs for one in pair):
        raise UserError("scores of other people or probes each cannot be compared: score all by one protocol")
    probes, key = np.array(pairs[0][0].probes), SUMMED[score]
    gains = np.array([np.subtract(getattr(b, key), getattr(a, key)) for a, b in pairs])  # (seeds, people)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(probes), size=(_DRAWS, len(probes)))
    runs = rng.integers(len(pairs), size=(_DRAWS, len(pairs)))
    means = [100.0 * gains[np.ix_(s, p)].sum() / (len(s) * probes[p].sum()) for s, p in zip(runs, drawn, strict=True)]
    low, high = np.percentile(means, [2.5, 97.5])
    return 100.0 * float(gains.sum()) / (len(pairs) * int(probes.sum())), float(low), float(high)


def spread(values: Sequence[float]) -> str:
    """The mean of some seeds' scores, and their standard deviation where there are several; "" where there are none."""
    if len(values) == 0:
        return ""
    return f"{np.mean(values):.1f}" + (f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else "")
