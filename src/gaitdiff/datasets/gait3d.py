"""Gait3D: 4,000 people in a supermarket, 39 cameras."""

from __future__ import annotations

from gaitdiff.datasets.card import DatasetCard, FolderPattern

#: Who trains, who is tested and which sequences are looked for stands in a partition file alone.
GAIT3D = DatasetCard(
    name="gait3d",
    title="Gait3D",
    example="2D_Silhouettes/0001/camid0_videoid2/seq0",
    patterns=(
        FolderPattern("<id>/<type>/<view>", {"id": "[^/]+", "type": "camid[0-9]+_videoid[0-9]+", "view": "seq[0-9]+"}),
    ),
    ignored=r"(?!2d_silhouettes)[23]d_[^/]*",
    probes=True,
)
