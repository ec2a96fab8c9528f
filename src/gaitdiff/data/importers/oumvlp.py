"""OU-MVLP: 10,307 people, two walks each, fourteen views; as downloaded, and rearranged by people."""

from __future__ import annotations

from collections.abc import Sequence

from gaitdiff.data.importers.dataset import Dataset
from gaitdiff.data.importers.tree import Form, Reading
from gaitdiff.data.partition import Partition, by_rule
from gaitdiff.data.walks import Walk

_FIELDS = {
    "id": "(?!00000)(?:0[0-9]{4}|10[0-2][0-9]{2}|1030[0-7])",
    "seq": "0[01]",
    "view": "|".join(f"{angle:03}" for first in (0, 180) for angle in range(first, first + 91, 15)),
}

_READING = Reading(
    title="OU-MVLP",
    example="Silhouette_015-01/00001",
    forms=(
        Form("Silhouette_<view>-<seq>/<id>", _FIELDS, condition="<seq>"),
        Form("<id>/<seq>/<view>", _FIELDS, condition="<seq>"),
    ),
)


def _rule(identities: Sequence[str]) -> Partition:
    words = "odd numbers to 10305 train, even ones and 10307 are tested"
    everybody = [*identities, *(f"{i:05}" for i in range(1, 10308))]
    return by_rule(words, everybody, lambda person: int(person) % 2 == 1 and person != "10307")


def _role(walk: Walk) -> str:
    return "gallery" if walk.condition == "01" else "probe"


OUMVLP = Dataset(
    name="oumvlp", title=_READING.title, find=_READING.find, recognise=_READING.recognise, rule=_rule, role=_role
)
