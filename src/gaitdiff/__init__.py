"""Gait recognition that learns from unlabelled walks: pretraining by latent video diffusion, transfer, evaluation."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gaitdiff.version import __version__

if TYPE_CHECKING:
    from gaitdiff import losses as losses
    from gaitdiff import opengait as opengait
    from gaitdiff.data.store import SequenceStore as SequenceStore
    from gaitdiff.errors import UserError as UserError
    from gaitdiff.evaluation.walks import embed as embed
    from gaitdiff.evaluation.walks import similarity as similarity
    from gaitdiff.models import create_model as create_model
    from gaitdiff.models import list_models as list_models
    from gaitdiff.models import list_presets as list_presets
    from gaitdiff.models import list_pretrained as list_pretrained
    from gaitdiff.training.checkpoint import load_checkpoint as load_checkpoint

# Public names and the modules that hold them, imported on first use: `import gaitdiff` alone loads no torch.
_PUBLIC = {
    "SequenceStore": "gaitdiff.data.store",
    "UserError": "gaitdiff.errors",
    "create_model": "gaitdiff.models",
    "embed": "gaitdiff.evaluation.walks",
    "list_models": "gaitdiff.models",
    "list_presets": "gaitdiff.models",
    "list_pretrained": "gaitdiff.models",
    "load_checkpoint": "gaitdiff.training.checkpoint",
    "similarity": "gaitdiff.evaluation.walks",
}
_MODULES = {
    "diffusion": "gaitdiff.diffusion",
    "evaluation": "gaitdiff.evaluation",
    "losses": "gaitdiff.losses",
    "models": "gaitdiff.models",
    "opengait": "gaitdiff.opengait",
}

__all__ = ["__version__", *_PUBLIC, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    raise AttributeError(f"module 'gaitdiff' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
