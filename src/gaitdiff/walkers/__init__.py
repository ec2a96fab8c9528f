"""Synthetic walking people, so that everything can be tried without a licensed data set."""

from __future__ import annotations

from gaitdiff.walkers.generate import generate, render_sequence, store_source
from gaitdiff.walkers.presets import Preset, list_presets

__all__ = ["Preset", "generate", "list_presets", "render_sequence", "store_source"]
