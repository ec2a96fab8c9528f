"""Where a run starts from: another run's checkpoint, or weights that ship."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from gaitdiff.config.schema import ModelConfig
from gaitdiff.errors import UserError
from gaitdiff.models.registry import model_config
from gaitdiff.training.checkpoint import load_into, read_model_document
from gaitdiff.training.checkpoint_files import latest_checkpoint, read_tensors, tensor_file
from gaitdiff.utils.progress import say


def find_start(init: str, model: ModelConfig) -> tuple[Path, ModelConfig]:
    """The checkpoint that ``init`` names, of weights that ship those of the model where it is named; and its model.

    Raises:
        UserError: there is none, or it is of another model than the one that is named.
    """
    checkpoint = latest_checkpoint(Path(init), model.name)
    document = read_model_document(checkpoint)
    found = ModelConfig(document["model"], document["preset"], document["config"])
    if model.name and not _same(model, found):
        raise UserError(
            f"{checkpoint} holds {found.name} ({found.preset}), not {model.name} ({model.preset}) with these settings: "
            "name the model as the checkpoint has it; gaitdiff finetune takes it from there if --model is left out"
        )
    return checkpoint, found


def load_parts(checkpoint: Path, parts: Mapping[str, nn.Module]) -> None:
    """Give the parts of a run the weights that a checkpoint has of them, and say which it has not.

    Raises:
        UserError: they are of other shapes.
    """
    there = [name for name in parts if tensor_file(checkpoint, name).is_file()]
    for name in there:
        load_into(parts[name], read_tensors(checkpoint, name), str(checkpoint))
    fresh = [name for name in parts if name not in there]
    say(f"{checkpoint} gives {' and '.join(there)}" + (f"; {' and '.join(fresh)}: as without it" if fresh else ""))


def _same(one: ModelConfig, other: ModelConfig) -> bool:
    configs = [model_config(model.name, model.preset, model.overrides) for model in (one, other)]
    return one.name == other.name and configs[0] == configs[1]
