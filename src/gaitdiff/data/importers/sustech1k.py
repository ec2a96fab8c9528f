"""SUSTech1K: 1,050 people, filmed by a camera and a LiDAR; only the camera's silhouettes are read."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from gaitdiff.data.importers.dataset import Dataset
from gaitdiff.data.importers.tree import Form, Reading, silhouette_rank
from gaitdiff.data.sources import printable
from gaitdiff.data.tally import Tally
from gaitdiff.data.walks import Walk

_FIELDS = {
    "id": "[^/]+",
    "type": "[0-9]{2}(?:-[a-z]{2})+",
    "view": "[0-9]{3}(?:-[a-z]+)?",
    "sensor": "[^/]*[a-z][^/]*",
}


def _settle(walks: list[Walk], skipped: Tally) -> list[Walk]:
    """Of the folders of one sequence, one for each sensor, keep the best silhouettes."""
    result = []
    sensors: dict[str, list[tuple[tuple[bool, bool, bool], Walk]]] = defaultdict(list)
    for walk in walks:
        rank = silhouette_rank(walk.sequence)
        if walk.sequence == walk.view:
            result.append(walk)
        elif rank is None:
            skipped.add("folders that hold other data", printable(walk.folder))
        else:
            sensors[walk.folder.rpartition("/")[0]].append((rank, walk))
    for candidates in sensors.values():
        candidates.sort(key=lambda candidate: (candidate[0], candidate[1].folder))
        result.append(replace(candidates[0][1], sequence=candidates[0][1].view))
        for _, walk in candidates[1:]:
            skipped.add("folders of lesser silhouettes", printable(walk.folder))
    return result


def _role(walk: Walk) -> str:
    return "gallery" if walk.condition == "00-nm" else "probe"


_READING = Reading(
    title="SUSTech1K",
    example="0000/00-nm/000",
    forms=(
        Form("<id>/<type>/<view>", _FIELDS),
        Form("<id>/<type>/<view>/<sensor>", _FIELDS, sequence="<sensor>"),
    ),
    settle=_settle,
)

#: Who trains and who is tested stands in a partition file alone.
SUSTECH1K = Dataset(
    name="sustech1k", title=_READING.title, find=_READING.find, recognise=_READING.recognise, role=_role
)
