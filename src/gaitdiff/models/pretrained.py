"""Pretrained backbones that ship with the package: ``weights/<name>/<model>/``, each a checkpoint with a card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from gaitdiff.errors import UserError, nearest
from gaitdiff.models.base import GaitModel

_USUAL = "smplgait"  # whose weights a name alone means
_ROOT = Path(__file__).parent / "weights"


def list_pretrained() -> list[tuple[str, str]]:
    """Weights that ship, as (name, model): ``create_model(model, pretrained=name)`` takes them."""
    return sorted((folder.parent.name, folder.name) for folder in _ROOT.glob("*/*"))


def pretrained_card(name: str, model: str) -> dict[str, Any]:
    """What there is to know of weights: data, steps, scores, limits, licence.

    Raises:
        UserError: there are none of this name for this model.
    """
    card: dict[str, Any] = json.loads((pretrained_folder(name, model) / "card.json").read_text(encoding="utf-8"))
    return card


def pretrained_folder(name: str, model: str = "") -> Path:
    """The checkpoint folder of weights.

    Args:
        model: whose; SMPLGait w/o 3D's where it is left out.

    Raises:
        UserError: there are none of this name for this model.
    """
    name = name.removesuffix(f"/{model}")  # which the command line has
    shipped: dict[str, list[str]] = {}
    for known, owner in list_pretrained():
        shipped.setdefault(known, []).append(owner)
    if name not in shipped:
        known = ", ".join(shipped)
        raise UserError(f"there are no pretrained weights {name!r}{nearest(name, shipped)}; there are {known}")
    models = shipped[name]
    if model and model not in models:
        raise UserError(f"there are no pretrained weights {name!r} of {model}, but of {', '.join(models)}")
    return _ROOT / name / (model or _USUAL)


def pretrained_model(name: str, model: str) -> dict[str, Any]:
    """``preset`` and ``config`` of the model that weights belong to.

    Raises:
        UserError: see ``pretrained_folder``.
    """
    document: dict[str, Any] = json.loads((pretrained_folder(name, model) / "model.json").read_text(encoding="utf-8"))
    return document


def load_pretrained(model: GaitModel, name: str) -> None:
    """Put weights into a model's backbone; its head stays fresh.

    Raises:
        UserError: there are none for it, or it has other settings than theirs.
    """
    tensors = load_file(pretrained_folder(name, model.name) / "backbone.safetensors")
    own = model.backbone.state_dict()
    if any(key not in own or own[key].shape != value.shape for key, value in tensors.items()) or own.keys() - tensors:
        raise UserError(
            f"the pretrained weights {name!r} are of {model.name} with other settings: leave out preset and overrides, "
            "which are theirs then"
        )
    model.backbone.load_state_dict(tensors)
    model.height = pretrained_model(name, model.name).get("height")
