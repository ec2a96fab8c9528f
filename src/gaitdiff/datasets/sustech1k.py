"""SUSTech1K: 1,050 people, filmed by a camera and a LiDAR; only the camera's silhouettes are read."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from gaitdiff.datasets.card import DatasetCard, FolderPattern, role_in
from gaitdiff.datasets.sequences import SourceSequence, silhouette_rank
from gaitdiff.utils.counts import Counts
from gaitdiff.utils.text import printable

_FIELDS = {
    "id": "[^/]+",
    "type": "[0-9]{2}(?:-[a-z]{2})+",
    "view": "[0-9]{3}(?:-[a-z]+)?",
    "sensor": "[^/]*[a-z][^/]*",
}


def _settle(walks: list[SourceSequence], skipped: Counts) -> list[SourceSequence]:
    """Of the folders of one sequence, one for each sensor, keep the best silhouettes."""
    result = []
    sensors: dict[str, list[tuple[tuple[bool, bool, bool], SourceSequence]]] = defaultdict(list)
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


#: Who trains and who is tested stands in a partition file alone.
SUSTECH1K = DatasetCard(
    name="sustech1k",
    title="SUSTech1K",
    example="0000/00-nm/000",
    patterns=(
        FolderPattern("<id>/<type>/<view>", _FIELDS),
        FolderPattern("<id>/<type>/<view>/<sensor>", _FIELDS, sequence="<sensor>"),
    ),
    settle=_settle,
    role=role_in("sustech1k"),
)
