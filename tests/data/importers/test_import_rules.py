"""The rules of the data sets: who trains, who is looked for, and among whom."""

from __future__ import annotations

import pytest

from dataset_trees import CASIA_B, CCPG, GREW, OUMVLP, SUSTECH1K
from gaitdiff.data.importers.datasets import IMPORTERS
from gaitdiff.data.importers.importer import Importer
from gaitdiff.data.importers.partition import divide
from gaitdiff.datasets.card import Partition
from gaitdiff.datasets.sequences import SourceSequence


def places(dataset: Importer, rows: list[tuple[str, str]]) -> tuple[tuple[str, str] | None, ...]:
    """Split and role of (subject, condition) under the data set's rule."""
    assert dataset.card.rule is not None
    walks = [SourceSequence(subject, condition, "v", "v", folder="", files=()) for subject, condition in rows]
    return divide(walks, dataset.card.rule([subject for subject, _ in rows]), dataset.card.role).places


def test_rules_and_roles() -> None:
    train, probe, gallery, none = ("train", ""), ("test", "probe"), ("test", "gallery"), ("test", "")
    rows = [("074", "nm-01"), ("075", "nm-01"), ("075", "nm-04"), ("124", "nm-05"), ("124", "bg-01"), ("124", "cl-02")]
    assert places(CASIA_B, rows) == (train, gallery, gallery, probe, probe, probe)
    rows = [("00001", "00"), ("00002", "00"), ("00002", "01"), ("10305", "01"), ("10306", "01"), ("10307", "00")]
    assert places(OUMVLP, rows) == (train, probe, gallery, train, gallery, probe)
    assert places(CCPG, [("000", "U0_D0"), ("099", "U0_D0"), ("100", "U0_D0")]) == (train, train, none)
    rows = [("00001train", "00"), ("00001", "01"), ("00001", "02"), ("probe", "03")]
    assert places(GREW, rows) == (train, gallery, probe, none)


@pytest.mark.parametrize(
    ("dataset", "people", "trains"),
    [
        (CASIA_B, [f"{number:03}" for number in range(1, 125)], 74),
        (OUMVLP, [f"{number:05}" for number in range(1, 10_308)], 5_153),
        (CCPG, [f"{number:03}" for number in range(200)], 100),
        (GREW, [*(f"{i:05}train" for i in range(1, 20_001)), *(f"{i:05}" for i in range(1, 6_001)), "probe"], 20_000),
    ],
    ids=lambda value: value.card.name if isinstance(value, Importer) else None,
)
def test_rules_divide_the_whole_data_set_as_published(dataset: Importer, people: list[str], trains: int) -> None:
    assert dataset.card.rule is not None
    partition = dataset.card.rule(people[::-1])
    assert len(partition.train) == trains
    assert sorted(partition.train + partition.test) == sorted(people)
    assert partition.probes is None


def test_sets_without_rule_take_a_file() -> None:
    assert [dataset.card.name for dataset in IMPORTERS[:-1] if dataset.card.rule is None] == [
        "gait3d",
        "sustech1k",
        "opengait",
    ]
    partition = Partition("file", ("0001",), ("0000",))
    walks = [SourceSequence("0000", kind, "000", "000", folder="", files=()) for kind in ("00-nm", "01-nm", "02-ur-bg")]
    assert divide(walks, partition, SUSTECH1K.card.role).places == (
        ("test", "gallery"),
        ("test", "probe"),
        ("test", "probe"),
    )
