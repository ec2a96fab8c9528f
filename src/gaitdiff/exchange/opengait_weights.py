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
from gaitdiff.models.registry import model_entry

_CLASSIFIERS = ("BNNecks.fc_bin", "Head1.fc_bin")
COUNTER = "num_batches_tracked"
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
        UserError: names the first tensors that are missing, unknown, of another shape, or not finite.
    """
    state = without_prefix(_tensors(state))
    places = _places(model)
    dropped = [key for key in _CLASSIFIERS if drop_classifier and key in state]
    if drop_classifier:
        places = {ours: place for ours, place in places.items() if place.keys[0] not in _CLASSIFIERS}
    uncounted = [key for place in places.values() for key in place.keys if key.endswith(COUNTER) and key not in state]
    state |= {key: torch.tensor(0) for key in uncounted}
    wanted = {key: place.shape for place in places.values() for key in place.keys}
    problems = [f"{key!r} is missing" for key in wanted if key not in state]
    problems += [f"{key!r} is not known" for key in state if key not in wanted and key not in dropped]
    problems += [
        f"{key!r} is {tuple(state[key].shape)} and not {shape}"
        for key, shape in wanted.items()
        if key in state and tuple(state[key].shape) != shape and not (key.endswith(COUNTER) and state[key].numel() == 1)
    ]
    if problems:
        more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        why = _branch(model, [key for key in state if key not in wanted])
        raise UserError(f"the weights do not fit {model.name} as it is set: {why}{'; '.join(problems[:_SHOWN])}{more}")
    if broken := next((key for key in wanted if not bool(state[key].isfinite().all())), None):
        raise UserError(f"{broken!r} holds NaN or infinite numbers: take earlier weights of that training")
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


def _places(model: GaitModel) -> dict[str, _Place]:
    if getattr(model.config, "stem_stride", 1) != 1:
        raise UserError(
            f"{model.name} with a stem_stride of {model.config.stem_stride} is not OpenGait's: only the published "
            "settings can be exchanged"
        )
    names = model_entry(model.name).opengait
    if names is None:
        raise UserError(f"OpenGait has no model {model.name!r}")
    rules, deeper = names.rules(model), names.deeper(model)
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
            places[ours] = _Place((name,), (*value.shape, 1) if re.fullmatch(deeper, ours) else tuple(value.shape))
    return places
