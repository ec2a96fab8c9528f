"""Checkpoints of OpenGait, both ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gaitdiff.errors import UserError
from gaitdiff.exchange import opengait_weights as opengait
from gaitdiff.exchange.torch_files import load_torch_file
from gaitdiff.models import create_model, list_models, list_presets
from gaitdiff.models.registry import model_config
from gaitdiff.training.checkpoint import load_checkpoint, model_document, read_checkpoint_info
from gaitdiff.training.checkpoint_files import write_checkpoint
from gaitdiff.utils.files import parse_json, require_new, write_whole
from gaitdiff.utils.progress import say

#: What OpenGait's weights may be kept in; half and double precision become float32.
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
#: Settings in which OpenGait's configurations of a model differ, beside the presets.
_VARIANTS: dict[str, tuple[dict[str, Any], ...]] = {
    "gaitgl": ({"bn_neck": True},),
    "deepgaitv2": ({"mode": "2d"}, {"mode": "3d"}),
}


def import_opengait(
    file: Path,
    out: Path,
    name: str,
    preset: str = "gait3d",
    overrides: Mapping[str, Any] | None = None,
    drop_classifier: bool = False,
    height: int | None = None,
) -> Path:
    """Turn a checkpoint file of OpenGait into a checkpoint as stage 2 writes it.

    Args:
        file: see ``read_opengait``.
        out: folder to create; ``gaitdiff.load_checkpoint`` takes it.
        name, preset, overrides: the model, see ``create_model``; it gets as many classes as the file has.
        drop_classifier: leave the classifier out; the model then has no classes.
        height: of the frames it was trained on, 64 or 128 px; None: not known, and frames of any height are taken.

    Returns:
        ``out``.

    Raises:
        UserError: the file cannot be read (see ``read_opengait``) or is of another model or preset, whereupon the
            message names the first tensors that differ and what the file would fit; ``out`` is there already or
            cannot be written.
    """
    if not (out.is_dir() and not any(out.iterdir())):  # an empty folder is taken
        require_new(out)
    chosen = dict(overrides or {})
    model_config(name, preset, chosen)  # a slip in the model's name is told before the file is read
    state, step, notes = read_opengait(file)
    classes = 0 if drop_classifier else _classes(state, name, preset, chosen)
    model = create_model(name, preset, classes, **chosen)
    try:
        notes += opengait.load_state_dict(model, state, drop_classifier)
    except UserError as error:
        raise UserError(f"{file} cannot be imported: {error}; {_what_fits(state)}") from error
    tensors = {"backbone": model.backbone.state_dict(), "head": model.head.state_dict()}
    document = model_document(
        name, preset, model.head.num_classes, chosen, height=height, distance="euclidean"
    )  # as it compares them
    write_checkpoint(out.absolute(), tensors, {"state": {"step": step, "pending": []}, "model": document})
    for note in notes:
        say(f"{file}: {note}")
    return out


def export_opengait(checkpoint: Path, out: Path) -> Path:
    """Write a checkpoint as a file that OpenGait loads: ``{"model": tensors by its keys, "iteration": step}``.

    Args:
        checkpoint: a run folder of ``gaitdiff finetune`` or a checkpoint with a trained head.
        out: file to create.

    Returns:
        ``out``.

    Raises:
        UserError: no checkpoint there, or one without a trained head; a model that OpenGait does not have; ``out``
            is there already or cannot be written.
    """
    require_new(out)
    info = read_checkpoint_info(checkpoint)
    if not info.headed:
        raise UserError(
            f"{checkpoint} holds a backbone without a trained head, but OpenGait's files hold whole models: "
            "finetune it first"
        )
    content = BytesIO()
    state = opengait.state_dict(load_checkpoint(info.folder))
    torch.save({"model": state, "iteration": info.origin.step or 0}, content)
    write_whole(out, content.getvalue())
    return out


def parse_overrides(words: Sequence[str]) -> dict[str, Any]:
    """Settings from words such as ``channels=[32,64,128]``; values are JSON, or else taken as they stand.

    Raises:
        UserError: a word without "=".
    """
    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise UserError(f"--override takes KEY=VALUE, such as channels=[32,64,128], not {word!r}")
        try:
            found[key] = parse_json(value.lower() if value.lower() in ("true", "false") else value)
        except ValueError:
            found[key] = value
    return found


def read_opengait(file: Path) -> tuple[dict[str, Tensor], int | None, list[str]]:
    """Weights of a file that OpenGait saved; nothing in it is executed.

    Args:
        file: a file of ``torch.save`` with OpenGait's entry ``model``, or with that entry's tensors alone, or these
            as safetensors. Keys may begin with ``module.``, as data-parallel training leaves them.

    Returns:
        The tensors by OpenGait's keys, weights as float32; the training step, None where it is not told; what
        was changed or left out, in words.

    Raises:
        UserError: the file is missing or damaged, would need code to load, holds no weights, or some that are not
            finite.
    """
    content = load_torch_file(file)
    entry = content.get("model", content) if isinstance(content, Mapping) else None
    if not isinstance(entry, Mapping) or not entry or not all(isinstance(value, Tensor) for value in entry.values()):
        inside = f"the entries {list(content)[:6]}" if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise UserError(f"{file} is no checkpoint of OpenGait: it holds {inside}, and no weights under 'model'")
    notes: list[str] = []
    begin = sum(str(key).startswith(opengait.PREFIX) for key in entry)
    if begin:
        how = "all" if begin == len(entry) else f"{begin} of {len(entry)}"
        notes.append(f"left out {opengait.PREFIX!r}, with which {how} keys begin")
    try:
        state = opengait.without_prefix({str(key): value for key, value in entry.items()})
    except UserError as error:
        raise UserError(f"{file} cannot be imported: {error}") from error
    for key, value in state.items():
        _check_tensor(file, key, value)
    other = {str(value.dtype).removeprefix("torch.") for value in state.values() if value.dtype in _FLOATS[1:]}
    if other:
        notes.append(f"converted weights from {', '.join(sorted(other))} to float32")
    told = content.get("iteration") if "model" in content else None
    step = _whole_number(told)
    if step is None and told is not None:
        notes.append(f"left out the entry 'iteration', {str(told)[:40]!r}, which is no number of steps")
    whole = {key: value.float() if value.dtype in _FLOATS else value for key, value in state.items()}
    if bad := next((key for key, value in whole.items() if not bool(value.isfinite().all())), None):
        if bool(state[bad].isfinite().all()):
            raise UserError(f"{file} has numbers in {bad!r} that float32 cannot hold: it is a damaged checkpoint")
        raise UserError(f"{file} has NaN or infinite numbers in {bad!r}: take an earlier checkpoint of that training")
    return whole, step, notes


def _whole_number(told: Any) -> int | None:
    """A number of steps, also one of NumPy's or a tensor; None for anything else."""
    if isinstance(told, Tensor | np.generic | np.ndarray) and told.ndim == 0:
        told = told.item()
    return told if type(told) is int and told >= 0 else None


def _check_tensor(file: Path, key: str, value: Tensor) -> None:
    """Refuse what is no plain tensor of numbers, without ever making a large one of a small file."""
    plain = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
    if (
        not plain
        or value.dtype not in (*_FLOATS, *((torch.int64,) if key.endswith(opengait.COUNTER) else ()))
        or value.numel() * value.element_size() > value.untyped_storage().nbytes()
    ):
        raise UserError(f"{file} has something other than plain float weights in {key!r}: it is {value.dtype}")


def _shapes(name: str, preset: str, classes: int, overrides: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """What OpenGait's file of a model holds, without making any weights."""
    with torch.device("meta"):
        model = create_model(name, preset, classes, **overrides)
    return {key: tuple(value.shape) for key, value in opengait.state_dict(model).items()}


def _classes(state: Mapping[str, Tensor], name: str, preset: str, overrides: Mapping[str, Any]) -> int:
    """Columns of the classifier in a file, 0 where it has none or the model knows none."""
    classifier = _shapes(name, preset, 1, overrides).keys() - _shapes(name, preset, 0, overrides).keys()
    return next((state[key].shape[-1] for key in classifier if key in state and state[key].ndim), 0)


def _what_fits(state: Mapping[str, Tensor]) -> str:
    """The models that have exactly these names and shapes, those first that are a preset as it stands."""
    wanted = {key: tuple(value.shape) for key, value in state.items()}
    found: list[list[str]] = [[], []]
    for name in list_models():
        for overrides in ({}, *_VARIANTS.get(name, ())):
            fitting = [preset for preset in list_presets(name) if _fits(wanted, state, name, preset, overrides)]
            if fitting:
                settings = "".join(f" with {key} = {value}" for key, value in overrides.items())
                found[bool(overrides)].append(f"{name} ({', '.join(fitting)}){settings}")
    best = found[0] or found[1]
    return f"they fit {' or '.join(best)}" if best else "they fit no preset of another model either"


def _fits(
    wanted: Mapping[str, tuple[int, ...]],
    state: Mapping[str, Tensor],
    name: str,
    preset: str,
    overrides: Mapping[str, Any],
) -> bool:
    try:
        return _shapes(name, preset, _classes(state, name, preset, overrides), overrides) == wanted
    except UserError:  # settings that OpenGait does not have
        return False
