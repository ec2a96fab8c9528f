"""Files as OpenGait saves them, of narrow models with odd weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import gaitdiff
from gaitdiff.exchange import opengait_weights as opengait
from gaitdiff.exchange.opengait_checkpoint import import_opengait
from gaitdiff.models import GaitModel, create_model

#: Settings with which a model is quick and still one that OpenGait can have.
NARROW: dict[str, dict[str, Any]] = {
    "gaitset": {"channels": [4, 4, 8], "embedding": 8},
    "gaitpart": {"layers": ["BC-4", "M", "FC-8-2", "M", "FC-8-3"], "embedding": 8},
    "gaitgl": {"channels": [4, 8, 8, 8]},
    "smplgait": {"channels": [4, 4, 8], "embedding": 8},
    "gaitbase": {"channels": [4, 4, 8, 8], "embedding": 8},
    "deepgaitv2": {"channels": [4, 4, 8, 8], "layers": [1, 1, 2, 1], "embedding": 8},
}


def trained(name: str, classes: int = 5, **overrides: Any) -> GaitModel:
    """A model none of whose weights is what a fresh one has."""
    torch.manual_seed(1)
    model = create_model(name, "gait3d", classes, **overrides)
    with torch.no_grad():
        for value in model.state_dict().values():
            value.copy_(torch.rand_like(value) + 0.5 if value.is_floating_point() else torch.tensor(1234))
    return model.eval()


def weights(name: str = "smplgait", classes: int = 5, **overrides: Any) -> dict[str, Tensor]:
    return opengait.state_dict(trained(name, classes, **(overrides or NARROW[name])))


def small_file(path: Path, content: Any = None, **options: Any) -> Path:
    torch.save({"model": weights(), "iteration": 60000} if content is None else content, path, **options)
    return path


def imported(file: Path, out: Path, name: str = "smplgait", **options: Any) -> GaitModel:
    options = {"overrides": NARROW.get(name), **options}
    return gaitdiff.load_checkpoint(import_opengait(file, out, name, **options))
