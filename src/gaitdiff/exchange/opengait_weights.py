"""OpenGait's names of our weights: load its state dicts, and give ours under its keys.

The layouts follow from OpenGait's published checkpoints; no line of its code is here. What its checkpoints depend on
is kept: embeddings are taken before the BN neck, but behind the BatchNorm of GaitGL's original head.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gaitdiff.errors import UserError
from gaitdiff.models.base import GaitModel
from gaitdiff.models.gaitpart import FocalConv, PartBackbone

#: Our key, as a regular expression, and OpenGait's. ``{part}`` stands for every part in turn.
Rules = list[tuple[str, str]]

_NECK: Rules = [
    (r"head\.fc\.weight", "FCs.fc_bin"),
    (r"head\.neck\.norm\.(\w+)", r"BNNecks.bn1d.\1"),
    (r"head\.neck\.classifier\.weight", "BNNecks.fc_bin"),
]
_CLASSIFIERS = ("BNNecks.fc_bin", "Head1.fc_bin")
_COUNTER = "num_batches_tracked"
#: The layers of SMPLGait's 3-D branch.
_BODY = re.compile(r"(?:fc|bn|dropout)[1-3]\.|.*smpl", re.IGNORECASE)
#: What data-parallel training puts in front of keys.
PREFIX = "module."
_SHOWN = 3


@dataclass(frozen=True)
class _Place:
    """Where OpenGait keeps one of our tensors: under several keys, each of this shape, if it has a module a part."""

    keys: tuple[str, ...]
    shape: tuple[int, ...]


def load_state_dict(model: GaitModel, state: Mapping[str, Tensor], drop_classifier: bool = False) -> list[str]:
    """Load weights that stand under OpenGait's keys.

    Args:
        model: takes the weights; unchanged if anything is wrong.
        state: tensors by OpenGait's keys, the ``"model"`` of its checkpoint files; the ``module.`` of data-parallel
            training may stand in front, and counters of batches may be missing, as in old files.
        drop_classifier: leave the classifier's columns out; the model keeps its own.

    Returns:
        Notes: what was dropped or missing, empty if nothing was.

    Raises:
        UserError: names the first tensors that are missing, unknown, or of another shape.
    """
    state = without_prefix(_tensors(state))
    places = _places(model)
    dropped = [key for key in _CLASSIFIERS if drop_classifier and key in state]
    if drop_classifier:
        places = {ours: place for ours, place in places.items() if place.keys[0] not in _CLASSIFIERS}
    uncounted = [key for place in places.values() for key in place.keys if key.endswith(_COUNTER) and key not in state]
    state |= {key: torch.tensor(0) for key in uncounted}
    wanted = {key: place.shape for place in places.values() for key in place.keys}
    problems = [f"{key!r} is missing" for key in wanted if key not in state]
    problems += [f"{key!r} is not known" for key in state if key not in wanted and key not in dropped]
    problems += [
        f"{key!r} is {tuple(state[key].shape)} and not {shape}"
        for key, shape in wanted.items()
        if key in state
        and tuple(state[key].shape) != shape
        and not (key.endswith(_COUNTER) and state[key].numel() == 1)
    ]
    if problems:
        more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        why = _branch(model, [key for key in state if key not in wanted])
        raise UserError(f"the weights do not fit {model.name} as it is set: {why}{'; '.join(problems[:_SHOWN])}{more}")
    own = model.state_dict()
    with torch.no_grad():
        for ours, place in places.items():
            own[ours].copy_(torch.stack([state[key] for key in place.keys]).reshape(own[ours].shape))
    notes = [f"dropped {key} {tuple(state[key].shape)}: the classifier of other identities" for key in dropped]
    return notes + ([f"{len(uncounted)} counters of batches were missing and are 0"] if uncounted else [])


def without_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out the ``module.`` that data-parallel training puts in front of keys, of all or of some.

    Raises:
        UserError: two tensors would have one key.
    """
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        name = key.removeprefix(PREFIX)
        if name in found:
            raise UserError(f"the weights have both {name!r} and {PREFIX + name!r}: keep one of them")
        found[name] = value
    return found


def _branch(model: GaitModel, unknown: list[str]) -> str:
    """Words on the one public model that a model of ours leaves a part of out."""
    if model.name != "smplgait" or not any(_BODY.match(key) for key in unknown):
        return ""
    return (
        "they are of the full SMPLGait, whose 3-D branch (SMPL parameters into each frame's features) this project "
        "leaves out, and without which its other weights give other features; "
    )


def _tensors(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The state, if it is nothing but tensors of real numbers by key."""
    if not isinstance(state, Mapping):
        raise UserError(f"weights must be a dictionary of tensors by OpenGait's keys, not {type(state).__name__}")
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor) or value.is_complex():
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise UserError(f"weights must be tensors of real numbers by key, but {key!r} holds {kind}")
    return state


def state_dict(model: GaitModel) -> dict[str, Tensor]:
    """A model's weights under OpenGait's keys: the inverse of ``load_state_dict``, copies in their own layout.

    Raises:
        UserError: the model has layers that OpenGait's has not, as the narrow presets do.
    """
    own = model.state_dict()
    return {
        key: value.reshape(place.shape).contiguous().clone()
        for ours, place in _places(model).items()
        for key, value in zip(place.keys, own[ours].detach().reshape(len(place.keys), -1), strict=True)
    }


def state_names(model: GaitModel) -> dict[str, tuple[str, ...]]:
    """Our key → OpenGait's key, or keys where it has a module of its own for each part.

    Raises:
        UserError: the model has layers that OpenGait's has not, as the narrow presets do.
    """
    return {ours: place.keys for ours, place in _places(model).items()}


def _places(model: GaitModel) -> dict[str, _Place]:
    if getattr(model.config, "stem_stride", 1) != 1:
        raise UserError(
            f"{model.name} with a stem_stride of {model.config.stem_stride} is not OpenGait's: only the published "
            "settings can be exchanged"
        )
    rules = _rules(model)
    places = {}
    for ours, value in model.state_dict().items():
        name = next((re.sub(rule, name, ours) for rule, name in rules if re.fullmatch(rule, ours)), None)
        if name is None:
            raise UserError(
                f"{model.name} with these settings has {ours!r}, which OpenGait's does not have: only the published "
                "settings can be exchanged"
            )
        if "{part}" in name:
            places[ours] = _Place(tuple(name.format(part=part) for part in range(len(value))), tuple(value.shape[1:]))
        else:
            places[ours] = _Place((name,), (*value.shape, 1) if _is_flat_skip(model, ours) else tuple(value.shape))
    return places


def _is_flat_skip(model: GaitModel, key: str) -> bool:
    """Whether OpenGait keeps a convolution of ours, 1x1 on frames, as 1x1x1 on clips."""
    return (
        model.name == "deepgaitv2"
        and model.config.mode != "2d"
        and re.fullmatch(r"backbone\.stages\.[123]\.\d+\.skip\.0\.weight", key) is not None
    )


def _rules(model: GaitModel) -> Rules:
    if model.name == "gaitset":
        return _gaitset()
    if model.name == "gaitpart":
        return _gaitpart(model)
    if model.name == "gaitgl":
        return _gaitgl(model)
    if model.name == "gaitbase":
        return _gaitbase()
    if model.name == "deepgaitv2":
        return _deepgaitv2(model)
    return [(r"backbone\.layers\.(\d+)\.weight", r"Backbone.forward_block.feature.\1.conv.weight"), *_NECK]


def _gaitset() -> Rules:
    return [
        (r"backbone\.frame(\d)\.(\d)\.weight", r"set_block\1.forward_block.\2.conv.weight"),
        (r"backbone\.set(\d)\.(\d)\.weight", r"gl_block\1.\2.conv.weight"),
        (r"head\.fc\.weight", "Head.fc_bin"),
    ]


def _gaitpart(model: GaitModel) -> Rules:
    assert isinstance(model.backbone, PartBackbone)
    rules, position = [], 0
    for number, layer in enumerate(model.backbone.layers):
        rules.append(
            (rf"backbone\.layers\.{number}\.conv\.weight", f"Backbone.forward_block.feature.{position}.conv.weight")
        )
        position += 2 if isinstance(layer, FocalConv) else 1  # it counts activations too
    for ours, theirs in (("motion3", "conv1d3x1"), ("motion5", "conv1d3x3")):
        prefix = f"TFA.pooling_func.{theirs}.{{part}}"
        rules += [
            (rf"backbone\.{ours}\.narrow\.weight", f"{prefix}.0.conv.weight"),
            (rf"backbone\.{ours}\.widen\.weight", f"{prefix}.2.conv.weight"),
        ]
    return [*rules, (r"head\.fc\.weight", "Head.fc_bin")]


def _gaitgl(model: GaitModel) -> Rules:
    doubled = len(model.config.channels) == 4
    rules: Rules = [
        (r"backbone\.stem\.0\.weight", "conv3d.0.conv3d.weight"),
        (r"backbone\.stem\.1\.weight", "conv3d.2.conv3d.weight"),
        (r"backbone\.shorten\.weight", "LTA.0.conv3d.weight"),
        (r"backbone\.pool\.p", "HPP.p"),
        (r"head\.fc\.weight", "Head0.fc_bin"),
        (r"head\.bn\.(\w+)", r"Bn.\1"),
        (r"head\.classifier\.weight", "Head1.fc_bin"),
        *_NECK[1:],
    ]
    for ours, theirs in (("early", "GLConvA0"), ("middle", "GLConvA1"), ("late", "GLConvB2")):
        layer = rf"{theirs}.\1" if doubled else theirs
        rules += [
            (rf"backbone\.{ours}\.(\d)\.whole\.weight", f"{layer}.global_conv3d.conv3d.weight"),
            (rf"backbone\.{ours}\.(\d)\.strip\.weight", f"{layer}.local_conv3d.conv3d.weight"),
        ]
    return rules


def _gaitbase() -> Rules:
    prefix = "Backbone.forward_block"
    stages = [rule for stage in range(4) for rule in _stage(stage, f"{prefix}.layer{stage + 1}")]
    return [
        (r"backbone\.stem\.0\.weight", f"{prefix}.conv1.conv.weight"),
        (r"backbone\.stem\.1\.(\w+)", rf"{prefix}.bn1.\1"),
        *stages,
        *_NECK,
    ]


def _deepgaitv2(model: GaitModel) -> Rules:
    mode = model.config.mode
    stages = _stage(0, "layer1.forward_block")
    for stage in (1, 2, 3):
        layer = f"layer{stage + 1}"
        if mode == "p3d":
            ours, theirs = rf"backbone\.stages\.{stage}\.(\d+)", rf"{layer}.\1"
            stages += [
                (rf"{ours}\.conv([12])\.weight", rf"{theirs}.conv\2.forward_block.0.weight"),
                (rf"{ours}\.bn([12])\.(\w+)", rf"{theirs}.conv\2.forward_block.1.\3"),
                (rf"{ours}\.conv_time\.weight", rf"{theirs}.shortcut3d.weight"),
                (rf"{ours}\.bn_time\.(\w+)", rf"{theirs}.sbn.\2"),
            ]
        stages += _stage(stage, f"{layer}.forward_block" if mode == "2d" else layer)
    return [(r"backbone\.stem\.(\d)\.(\w+)", r"layer0.forward_block.\1.\2"), *stages, *_NECK]


def _stage(number: int, layer: str) -> Rules:
    return [
        (rf"backbone\.stages\.{number}\.(\d+)\.((?:conv|bn)[12]\.\w+)", rf"{layer}.\1.\2"),
        (rf"backbone\.stages\.{number}\.(\d+)\.skip\.(.+)", rf"{layer}.\1.downsample.\2"),
    ]
