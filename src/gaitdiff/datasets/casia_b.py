"""CASIA-B: 124 people, ten walks each, eleven views; as images, and as pickles of aligned silhouettes."""

from __future__ import annotations

from collections.abc import Sequence

from gaitdiff.datasets.card import DatasetCard, FolderPattern, Partition, by_rule, role_in


def _rule(identities: Sequence[str]) -> Partition:
    everybody = [*identities, *(f"{i:03}" for i in range(1, 125))]
    return by_rule("001 to 074 train, the others are tested", everybody, lambda person: int(person) <= 74)


CASIA_B = DatasetCard(
    name="casia-b",
    title="CASIA-B",
    example="001/nm-01/000",
    patterns=(
        FolderPattern(
            "<id>/<type>/<view>",
            {
                "id": "(?!000)(?:0[0-9]{2}|1[01][0-9]|12[0-4])",
                "type": "nm-0[1-6]|(?:bg|cl)-0[12]",
                "view": "|".join(f"{angle:03}" for angle in range(0, 181, 18)),
            },
        ),
    ),
    rule=_rule,
    role=role_in("casia-b"),
)
