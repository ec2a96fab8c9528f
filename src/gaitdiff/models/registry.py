"""Models by name: the decorator that registers them, ``create_model`` and ``list_models``."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any, TypeVar, get_args

from gaitdiff.errors import UserError, nearest
from gaitdiff.models.base import Backbone, GaitModel, Head, Sampling
from gaitdiff.models.overrides import changed
from gaitdiff.models.pretrained import load_pretrained, pretrained_model

#: Our key, as a regular expression, and OpenGait's. ``{part}`` stands for every part in turn.
Rules = list[tuple[str, str]]


@dataclass(frozen=True)
class OpenGaitNames:
    """How OpenGait names the weights of a model.

    Attributes:
        rules: (model with its settings) to the rules; the first that fits a key counts.
        deeper: regular expression of our keys whose weights OpenGait keeps with one more dimension, of 1, at the end.
    """

    rules: Callable[[GaitModel], Rules]
    deeper: Callable[[GaitModel], str] = lambda model: r"(?!)"


@dataclass(frozen=True)
class ModelEntry:
    """One model.

    Attributes:
        build: (configuration, classes) to backbone and head.
        presets: configuration dataclasses by name: data sets, ``"walkers"`` for CPUs, ``"tiny"`` for tests.
        min_frames: the fewest frames of a clip that an exported model takes; in PyTorch it repeats shorter ones.
        opengait: OpenGait's names of its weights; None for a model that OpenGait does not have.
    """

    build: Callable[[Any, int], tuple[Backbone, Head]]
    presets: Mapping[str, Any]
    min_frames: int = 1
    opengait: OpenGaitNames | None = None


_REGISTRY: dict[str, ModelEntry] = {}
Builder = TypeVar("Builder", bound=Callable[[Any, int], tuple[Backbone, Head]])


def register_model(
    name: str, presets: Mapping[str, Any], *, min_frames: int = 1, opengait: OpenGaitNames | None = None
) -> Callable[[Builder], Builder]:
    """Register ``builder(config, num_classes) -> (backbone, head)`` under ``name``; see ``ModelEntry`` for the rest."""

    def register(builder: Builder) -> Builder:
        _REGISTRY[name] = ModelEntry(builder, presets, min_frames, opengait)
        return builder

    return register


def list_models() -> list[str]:
    """Names that ``create_model`` takes, sorted."""
    return sorted(_REGISTRY)


def list_presets(name: str) -> list[str]:
    """Presets of one model."""
    return list(model_entry(name).presets)


def create_model(
    name: str, preset: str | None = None, num_classes: int = 0, *, pretrained: str | None = None, **overrides: Any
) -> GaitModel:
    """Build a gait model, with fresh weights or a pretrained backbone.

    Args:
        name: one of ``list_models()``.
        preset: the data set whose published configuration to take, ``"walkers"`` for the narrow one for CPUs,
            or ``"tiny"`` for tests; by default ``"gait3d"``, or the one that ``pretrained`` weights are of.
        num_classes: identities of the classifier; 0 builds none, ``logits`` are then None. They always are for models
            that never classify (GaitSet, GaitPart).
        pretrained: weights that ship with the package, see ``list_pretrained()``, as "walkers" or
            "walkers/gaitgl"; the head stays fresh, so that ``embed`` gives raw features until it is trained.
        **overrides: fields of the model's configuration, such as ``channels=(64, 128, 256)``.

    Raises:
        UserError: unknown name, preset, override or weights, of which the message names the nearest known one, or a
            value that does not fit.
    """
    if pretrained is not None and not isinstance(pretrained, str):
        raise UserError(
            f"pretrained is the name of weights, such as 'walkers', not {pretrained!r}: see list_pretrained"
        )
    if preset is None:
        model_entry(name)
        preset = "gait3d"
        if pretrained is not None:
            theirs = pretrained_model(pretrained, name)
            preset, overrides = theirs["preset"], {**theirs["config"], **overrides}
    config = model_config(name, preset, overrides)
    try:
        num_classes = operator.index(num_classes)
    except TypeError as error:
        raise UserError(f"num_classes must be a whole number, not {num_classes!r}") from error
    if num_classes < 0:
        raise UserError(f"num_classes is {num_classes}, but cannot be less than 0")
    try:
        built = model_entry(name).build(config, num_classes)
    except (RuntimeError, TypeError, OverflowError, MemoryError) as error:
        what = str(error).split("\n", 1)[0]
        if not (isinstance(error, OverflowError | MemoryError) or "allocate" in what or "verflow" in what):
            raise  # no number is too large: the builder itself is wrong
        raise UserError(f"{name} cannot be built with these settings ({what}): choose smaller ones") from error
    model = GaitModel(name, config, *_parts(name, built))
    if pretrained is not None:
        load_pretrained(model, pretrained)
    return model


def _parts(name: str, built: Any) -> tuple[Backbone, Head]:
    """What a builder gave: a backbone that says all that is asked of it, and a head."""
    if not (isinstance(built, tuple | list) and [*map(isinstance, built, (Backbone, Head))] == [True, True]):
        raise UserError(f"the builder of {name} gave {built!r:.80}: it must return a Backbone and a Head")
    backbone, head = built
    sampling, known = getattr(backbone, "sampling", None), get_args(Sampling)
    if sampling not in known:
        raise UserError(f"the backbone of {name} has the sampling {sampling!r}: it must be one of {', '.join(known)}")
    for what in ("channels", "parts"):
        if not isinstance(getattr(backbone, what, None), Integral):
            raise UserError(f"the backbone of {name} does not say its number of {what}: set its attribute {what}")
    return backbone, head


def model_config(name: str, preset: str, overrides: Mapping[str, Any]) -> Any:
    """The configuration dataclass of a model's preset, with overrides applied and lists made tuples."""
    entry = model_entry(name)
    if preset not in entry.presets:
        known = ", ".join(entry.presets)
        raise UserError(f"{name} has no preset {preset!r}{nearest(preset, entry.presets)}; it has {known}")
    return changed(entry.presets[preset], overrides, name)


def model_entry(name: str) -> ModelEntry:
    """What is registered under a name; a UserError names the nearest one, unless there is this one."""
    if name not in _REGISTRY:
        raise UserError(f"there is no model {name!r}{nearest(name, _REGISTRY)}; known: {', '.join(list_models())}")
    return _REGISTRY[name]
