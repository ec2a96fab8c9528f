"""Gait-recognition backbones and heads, by name."""

from gaitdiff.models import deepgaitv2, gaitbase, gaitgl, gaitpart, gaitset, smplgait
from gaitdiff.models.base import Backbone, GaitModel, GaitOutput, Head
from gaitdiff.models.registry import create_model, list_models, list_presets, register_model

__all__ = [
    "Backbone",
    "GaitModel",
    "GaitOutput",
    "Head",
    "create_model",
    "deepgaitv2",
    "gaitbase",
    "gaitgl",
    "gaitpart",
    "gaitset",
    "list_models",
    "list_presets",
    "register_model",
    "smplgait",
]
