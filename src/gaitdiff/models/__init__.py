"""Gait-recognition backbones and heads, by name. Every module here that registers a model is found by itself."""

import pkgutil
from importlib import import_module

from gaitdiff.models.base import Backbone, GaitModel, GaitOutput, Head
from gaitdiff.models.pretrained import list_pretrained, pretrained_card
from gaitdiff.models.registry import create_model, list_models, list_presets, register_model

for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    import_module(_module.name)

__all__ = [
    "Backbone",
    "GaitModel",
    "GaitOutput",
    "Head",
    "create_model",
    "list_models",
    "list_presets",
    "list_pretrained",
    "pretrained_card",
    "register_model",
]
