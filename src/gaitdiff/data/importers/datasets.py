"""All importers, as ``--as`` names them."""

from __future__ import annotations

from gaitdiff.data.importers.casia_b import CASIA_B
from gaitdiff.data.importers.ccpg import CCPG
from gaitdiff.data.importers.dataset import Dataset
from gaitdiff.data.importers.frames import FRAMES
from gaitdiff.data.importers.gait3d import GAIT3D
from gaitdiff.data.importers.grew import GREW
from gaitdiff.data.importers.hid import HID
from gaitdiff.data.importers.opengait import OPENGAIT
from gaitdiff.data.importers.oumvlp import OUMVLP
from gaitdiff.data.importers.sustech1k import SUSTECH1K

DATASETS: tuple[Dataset, ...] = (GAIT3D, GREW, CASIA_B, OUMVLP, CCPG, SUSTECH1K, HID, OPENGAIT, FRAMES)
NAMES = tuple(dataset.name for dataset in DATASETS)
