"""CCPG: 200 people who change clothes, filmed by ten cameras."""

from __future__ import annotations

from collections.abc import Sequence

from gaitdiff.datasets.card import DatasetCard, FolderPattern, Partition, by_rule
from gaitdiff.datasets.sequences import AREA


def _rule(identities: Sequence[str]) -> Partition:
    everybody = [*identities, *(f"{i:03}" for i in range(200))]
    return by_rule("000 to 099 train, the others are tested", everybody, lambda person: int(person) < 100)


#: The protocol looks for some conditions among others in turn: a sequence has no role of its own.
CCPG = DatasetCard(
    name="ccpg",
    title="CCPG",
    example="000/U0_D0_BG/00_01",
    patterns=(
        FolderPattern(
            "<id>/<type>/<view>",
            {"id": "[01][0-9]{2}", "type": "U[0-9]_D[0-9](?:_BG)?", "view": "[0-9]+_[0-9]+"},
            case=str.upper,
        ),
    ),
    prepare=AREA,
    rule=_rule,
)
