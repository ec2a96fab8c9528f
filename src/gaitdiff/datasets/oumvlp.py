"""OU-MVLP: 10,307 people, two walks each, fourteen views; as downloaded, and rearranged by people."""

from __future__ import annotations

from collections.abc import Sequence

from gaitdiff.datasets.card import DatasetCard, FolderPattern, Partition, by_rule, role_in

_FIELDS = {
    "id": "(?!00000)(?:0[0-9]{4}|10[0-2][0-9]{2}|1030[0-7])",
    "seq": "0[01]",
    "view": "|".join(f"{angle:03}" for first in (0, 180) for angle in range(first, first + 91, 15)),
}


def _rule(identities: Sequence[str]) -> Partition:
    words = "odd numbers to 10305 train, even ones and 10307 are tested"
    everybody = [*identities, *(f"{i:05}" for i in range(1, 10308))]
    return by_rule(words, everybody, lambda person: int(person) % 2 == 1 and person != "10307")


OUMVLP = DatasetCard(
    name="oumvlp",
    title="OU-MVLP",
    example="Silhouette_015-01/00001",
    patterns=(
        FolderPattern("Silhouette_<view>-<seq>/<id>", _FIELDS, condition="<seq>"),
        FolderPattern("<id>/<seq>/<view>", _FIELDS, condition="<seq>"),
    ),
    rule=_rule,
    role=role_in("oumvlp"),
)
