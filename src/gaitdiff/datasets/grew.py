"""GREW: 26,000 people in the wild, as downloaded and as rearranged by people.

The names are those of the rearranged layout: who trains is ``<id>train`` with the type 00; a gallery person has the
types 01 and 02, one sequence each; the sequences that are looked for, whose people are secret, are of the person
``probe``, type 03.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from gaitdiff.datasets.card import DatasetCard, FolderPattern, Partition, by_rule
from gaitdiff.datasets.sequences import GIVEN, NAMELESS, SourceSequence
from gaitdiff.utils.counts import Counts
from gaitdiff.utils.text import printable

_FIELDS = {"id": "[0-9]{5}", "type": "0[12]", "view": "[0-9a-z]{4,}"}
_NEVER = "(?!)"


def _form(path: str, subject: str, condition: str, split: str, telling: str = "") -> FolderPattern:
    return FolderPattern(path, _FIELDS, subject=subject, condition=condition, split=split, case=str, telling=telling)


def _settle(walks: list[SourceSequence], skipped: Counts) -> list[SourceSequence]:
    """Give the two sequences of each gallery person, sorted by name, the types 01 and 02."""
    names: dict[str, set[str]] = defaultdict(set)
    for walk in walks:
        if not walk.condition:
            names[walk.subject].add(walk.view)
    types = {subject: {name: f"0{i}" for i, name in enumerate(sorted(names[subject])[:2], 1)} for subject in names}
    result = []
    for walk in walks:
        condition = walk.condition or types[walk.subject].get(walk.view)
        if condition is None:
            skipped.add("sequences beyond the two of a gallery person", printable(walk.folder))
        else:
            result.append(replace(walk, condition=condition))
    return result


def _rule(identities: Sequence[str]) -> Partition:
    words = "train/ is learned from, gallery/ and probe/ are tested"
    train, gallery = (f"{i:05}train" for i in range(1, 20001)), (f"{i:05}" for i in range(1, 6001))
    return by_rule(words, [*identities, *train, *gallery, NAMELESS], lambda person: person.endswith("train"))


def _role(walk: SourceSequence) -> str:
    """Return the role in the local check; the official one needs the site."""
    return {"01": "gallery", "02": "probe"}.get(walk.condition, "")


GREW = DatasetCard(
    name="grew",
    title="GREW",
    example="train/00001/4XPn5Z28",
    patterns=(
        _form("train/<id>/<view>", "<id>train", "00", "train", telling="(?=[^/]*[0-9])[^/]{8}$"),
        _form("gallery/<id>/<view>", "<id>", "", "test"),
        _form("probe/<view>", NAMELESS, "03", "test", telling=_NEVER),
        _form("<id>train/00/<view>", "<id>train", "00", "train"),
        _form("probe/03/<view>", NAMELESS, "03", "test"),
        _form("<id>/<type>/<view>", "<id>", "<type>", "test", telling=_NEVER),
    ),
    ignored="distractor",
    prepare=GIVEN,
    settle=_settle,
    rule=_rule,
    role=_role,
)
