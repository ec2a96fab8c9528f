"""Models by name: the decorator that registers them, ``create_model`` and ``list_models``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from gaitdiff.errors import UserError, nearest
from gaitdiff.models.base import Backbone, GaitModel, Head


@dataclass(frozen=True)
class ModelEntry:
    """How to build one model: its builder, and its presets (configuration dataclasses by name)."""

    build: Callable[[Any, int], tuple[Backbone, Head]]
    presets: Mapping[str, Any]


_REGISTRY: dict[str, ModelEntry] = {}
Builder = TypeVar("Builder", bound=Callable[[Any, int], tuple[Backbone, Head]])


def register_model(name: str, presets: Mapping[str, Any]) -> Callable[[Builder], Builder]:
    """Register ``builder(config, num_classes) -> (backbone, head)`` under ``name``, with its presets."""

    def register(builder: Builder) -> Builder:
        _REGISTRY[name] = ModelEntry(builder, presets)
        return builder

    return register


def list_models() -> list[str]:
    """Names that ``create_model`` takes, sorted."""
    return sorted(_REGISTRY)


def list_presets(name: str) -> list[str]:
    """Presets of one model."""
    return list(_entry(name).presets)


def create_model(name: str, preset: str = "gait3d", num_classes: int = 0, **overrides: Any) -> GaitModel:
    """Build a gait model with fresh weights.

    Args:
        name: one of ``list_models()``.
        preset: the data set whose published configuration to take, or ``"walkers"`` for the narrow one for CPUs.
        num_classes: identities of the classifier; 0 builds none, ``logits`` are then None. They always are for models
            that never classify (GaitSet, GaitPart).
        **overrides: fields of the model's configuration, such as ``channels=(64, 128, 256)``.

    Raises:
        UserError: unknown name, preset or override; the message names the nearest known one.
    """
    config = model_config(name, preset, overrides)
    return GaitModel(name, config, *_entry(name).build(config, num_classes))


def model_config(name: str, preset: str, overrides: Mapping[str, Any]) -> Any:
    """The configuration dataclass of a model's preset, with overrides applied and lists made tuples."""
    entry = _entry(name)
    if preset not in entry.presets:
        known = ", ".join(entry.presets)
        raise UserError(f"{name} has no preset {preset!r}{nearest(preset, entry.presets)}; it has {known}")
    config = entry.presets[preset]
    known_fields = [field.name for field in fields(config)]
    for key in overrides:
        if key not in known_fields:
            raise UserError(
                f"{name} has no setting {key!r}{nearest(key, known_fields)}; it has {', '.join(known_fields)}"
            )
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in overrides.items()}
    try:
        return replace(config, **values)
    except TypeError as error:
        raise UserError(f"{name} cannot be built with {values}: {error}") from error


def _entry(name: str) -> ModelEntry:
    if name not in _REGISTRY:
        raise UserError(f"there is no model {name!r}{nearest(name, _REGISTRY)}; known: {', '.join(list_models())}")
    return _REGISTRY[name]
