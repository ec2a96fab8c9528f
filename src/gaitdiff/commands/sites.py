"""What the sites of benchmarks take: whose videos they ask for, how the file is written, and what they would refuse."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gaitdiff.evaluation.protocols.submission import (
    check_grew_submission,
    check_hid_submission,
    grew_rows,
    grew_submission,
    hid_rows,
    hid_submission,
)

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
