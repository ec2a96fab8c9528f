"""What checkpoints hold: models, what is told of them, and the state of optimisers."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gaitdiff.data.store import SequenceStore
from gaitdiff.errors import UserError, shown
from gaitdiff.evaluation.about import Origin
from gaitdiff.evaluation.features import check_height
from gaitdiff.evaluation.metrics import METRICS
from gaitdiff.evaluation.scoring import DEFAULT_METRIC
from gaitdiff.models import GaitModel, create_model
from gaitdiff.models.base import NeckModel, NoHead
from gaitdiff.models.registry import model_config
from gaitdiff.training.checkpoint_files import CHECKPOINTS, latest_checkpoint, read_document, read_tensors, tensor_file
from gaitdiff.training.run_folder import read_config
from gaitdiff.utils.devices import require_device
from gaitdiff.utils.progress import say

#: Of model.json; raised when older versions could not read it.
FORMAT = 1


def check_weights(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Compare weights with those of a module.

    Raises:
        UserError: names the first key that is missing, unknown, or of another shape.
    """
    own = module.state_dict()
    for key in sorted(own.keys() | tensors.keys()):
        if key not in tensors:
            raise UserError(f"{source} lacks the weights {key!r}: it is a checkpoint of another model")
        if key not in own:
            raise UserError(f"{source} has weights {key!r} that the model lacks: it is a checkpoint of another model")
        if own[key].shape != tensors[key].shape:
            raise UserError(
                f"{key!r} is {tuple(tensors[key].shape)} in {source}, but {tuple(own[key].shape)} in the model: "
                "it is a checkpoint of another preset or number of classes"
            )


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load weights strictly.

    Raises:
        UserError: see ``check_weights``.
    """
    check_weights(module, tensors, source)
    module.load_state_dict(dict(tensors))


def load_checkpoint(path: str | Path, device: str | torch.device = "cpu") -> GaitModel:
    """Load a gait model from a run folder or one of its checkpoints, in evaluation mode.

    After pretraining it has no head: ``model(clip).feature`` is what was learned, and there is no ``.embedding``. Its
    features are compared by ``model.metric``.

    Args:
        path: run folder, checkpoint, or the name of weights that ship, such as "walkers".
        device: "cpu", "cuda", "cuda:1" or "mps", or a torch.device.

    Raises:
        UserError: no checkpoint there, or one that is corrupt; no such device.
    """
    place = require_device(device)
    checkpoint = latest_checkpoint(Path(path))
    recipe, stems = read_model_document(checkpoint), ["backbone"]
    if os.path.lexists(tensor_file(checkpoint, "head")):
        stems.append("head")
    else:
        recipe["num_classes"] = 0
    weights = {stem: read_tensors(checkpoint, stem) for stem in stems}
    with torch.device("meta"):  # takes no memory, whatever sizes model.json speaks of
        plan = _build(recipe, checkpoint)
    for stem in stems:
        check_weights(getattr(plan, stem), weights[stem], str(checkpoint))
    model = _build(recipe, checkpoint)
    model.height, model.metric = recipe.get("height"), recipe.get("distance", DEFAULT_METRIC)
    for stem in stems:
        getattr(model, stem).load_state_dict(weights[stem])
    model.fresh_head = None
    if "head" not in stems:
        model.head = NoHead()
    return model.eval().to(place)


def _build(recipe: Mapping[str, Any], checkpoint: Path) -> GaitModel:
    try:
        return create_model(recipe["model"], recipe["preset"], recipe["num_classes"], **recipe["config"])
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        what = f"{recipe['model']} cannot be built as it says ({type(error).__name__}: {error})".partition("\n")[0]
        raise UserError(f"{checkpoint / 'model.json'} is damaged, or the model's code is: {what}") from error


def model_document(
    name: str,
    preset: str,
    num_classes: int,
    overrides: Mapping[str, Any],
    *,
    height: int | None = None,
    distance: str | None = None,
    ema: float = 0.0,
) -> dict[str, Any]:
    """What ``load_checkpoint`` needs to build a model again, whatever its preset says by then.

    Args:
        height: of the frames it was trained on, in pixels; None: not known.
        distance: that it was trained with, by which its features are compared; None: not known.
        ema: decay of the moving average that the weights are; 0 for weights as they were trained.

    Raises:
        UserError: its settings are of kinds that JSON does not have.
    """
    config = asdict(model_config(name, preset, overrides))
    made = {"format": FORMAT, "model": name, "preset": preset, "num_classes": num_classes, "config": config}
    known = {"height": height, "distance": distance, "ema": ema or None}
    try:
        json.dumps(config)
    except TypeError as error:
        raise UserError(
            f"the settings of {name} cannot be kept in a checkpoint ({error}): make them numbers, text, and lists, "
            "mappings or dataclasses of these"
        ) from error
    return made | {key: value for key, value in known.items() if value is not None}


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint says of itself, read once: a run that goes on may write a newer one meanwhile.

    Attributes:
        folder: the checkpoint's own.
        origin: run, step and number of steps, as far as they are told.
        headed: whether it holds a trained head (stage 2), not a backbone alone (stage 1).
        height: of the frames it was trained on, in pixels; None: not told.
        metric: the distance it was trained with, by which its features are compared; the paper's where it is not told.
        model, preset: its model, as ``create_model`` calls them.
    """

    folder: Path
    origin: Origin
    headed: bool
    height: int | None
    metric: str
    model: str
    preset: str

    def require_features(self, features: str) -> None:
        """Raise a UserError where these features, of ``pick_features``, need a head that was not trained."""
        if features in ("embedding", "neck") and not self.headed:
            raise UserError(f"{self.origin.run} holds a backbone without a trained head: use --features raw")

    def require_height(self, store: SequenceStore, resize: bool | None = None) -> None:
        """Raise a UserError for frames of another height, unless they are to be resized and it is known to what.

        Args:
            resize: whether they are to be resized; None where there is no such choice.
        """
        if self.height is None and resize:
            raise UserError(
                f"{self.origin.run} does not say on which frames it was trained, so --resize has no size to go to: "
                "leave it out, or import it again with --size"
            )
        if self.height is None:
            say(
                f"{self.origin.run} does not say on frames of which height it was trained: those of {store.path} are "
                f"{store.height} px, and are taken"
            )
        elif not resize:
            other = "" if resize is None else ", or let --resize convert them"
            check_height(self.height, store, self.origin.run, other)


def read_checkpoint_info(path: str | Path) -> CheckpointInfo:
    """Read what a run's newest checkpoint, or a checkpoint itself, says of itself.

    Raises:
        UserError: no checkpoint there, or one of its documents is damaged; the sentence names the file.
    """
    folder = latest_checkpoint(Path(path))
    recipe = read_model_document(folder)
    step = iterations = None
    if (folder / "state.json").is_file():
        state = read_document(folder, "state", ("step",))
        step, iterations = state["step"], state.get("iterations")
        for key, value in (("step", step), ("iterations", iterations)):
            if value is not None and type(value) is not int:
                raise UserError(f"{folder / 'state.json'} is damaged: its {key} is {value!r}, not a whole number")
        if iterations is None and folder.parent.name == CHECKPOINTS:  # of an older version
            with suppress(UserError, KeyError, TypeError, ValueError):
                iterations = int(read_config(folder.parent.parent)["optim"]["iterations"])
    return CheckpointInfo(
        folder,
        Origin(str(path), step, iterations, recipe.get("ema", 0.0)),
        os.path.lexists(tensor_file(folder, "head")),
        recipe.get("height"),
        recipe.get("distance", DEFAULT_METRIC),
        recipe["model"],
        recipe["preset"],
    )


def pick_features(model: GaitModel, features: str) -> tuple[nn.Module, str]:
    """Choose what of a model is compared.

    Args:
        features: ``"raw"``, ``"embedding"``, ``"neck"``, or ``"auto"``: embeddings where a head was trained.

    Returns:
        The module that gives them, and ``"raw features"``, ``"embeddings"`` or ``"neck features"``.

    Raises:
        UserError: the model has no BN neck.
    """
    if features == "neck":
        return NeckModel(model).eval(), "neck features"
    return (model.backbone, "raw features") if features == "raw" or not model.headed else (model, "embeddings")


def read_model_document(checkpoint: Path) -> dict[str, Any]:
    """A checkpoint's ``model.json``.

    Raises:
        UserError: missing, corrupt, or of a newer format.
    """
    recipe = read_document(checkpoint, "model", ("format", "model", "preset", "num_classes", "config"))
    if recipe["format"] != FORMAT:
        raise UserError(
            f"{checkpoint} has the format {recipe['format']}, but this version of gaitdiff reads {FORMAT}: "
            "use the version that wrote it"
        )
    kinds = {"model": str, "preset": str, "num_classes": int, "config": dict}
    if odd := [key for key, kind in kinds.items() if type(recipe[key]) is not kind]:
        raise UserError(f"{checkpoint / 'model.json'} is damaged: its {odd[0]} is {shown(recipe[odd[0]])}")
    height, distance = recipe.get("height", 64), recipe.get("distance", DEFAULT_METRIC)
    if type(height) is not int or height < 1 or distance not in METRICS:
        raise UserError(
            f"{checkpoint / 'model.json'} is damaged: its height is {height!r} and its distance {distance!r}, which "
            f"should be a number of pixels and one of {', '.join(METRICS)}"
        )
    ema = recipe.get("ema", 0.0)
    if type(ema) not in (int, float) or not 0 <= ema < 1:
        raise UserError(f"{checkpoint / 'model.json'} is damaged: its ema is {shown(ema)}, not a number from 0 to 1")
    return recipe


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's state as named tensors, ``"<parameter number>.<entry>"``."""
    state = optimizer.state_dict()["state"]
    return {
        f"{number}.{key}": torch.as_tensor(value) for number, entry in state.items() for key, value in entry.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Inverse of ``optimizer_tensors``; each value lies in memory as its parameter does, which fused steps demand."""
    state: dict[int, dict[str, Tensor]] = {}
    groups = optimizer.state_dict()["param_groups"]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    try:
        for name, value in tensors.items():
            number, key = name.split(".", 1)
            if not 0 <= int(number) < len(parameters):
                raise ValueError("it has other parameters")
            if value.dim() > 0:  # a moment, not a count
                if value.shape != parameters[int(number)].shape:
                    raise ValueError(f"its {name} has the shape {tuple(value.shape)}")
                value = torch.empty_like(parameters[int(number)], device=value.device, dtype=value.dtype).copy_(value)
            state.setdefault(int(number), {})[key] = value
        if len({frozenset(entry) for entry in state.values()}) > 1:
            raise ValueError("it is another one's")
        optimizer.load_state_dict({"state": state, "param_groups": groups})
    except ValueError as error:
        raise UserError(
            f"the optimiser's state does not fit the run ({error}): remove its newest checkpoint"
        ) from error
