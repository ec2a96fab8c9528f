"""What is kept of a finished run: enough for tables, figures and claims without its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from gaitdiff.config.schema import FinetuneConfig, PretrainConfig
from gaitdiff.data.store import SequenceStore
from gaitdiff.errors import UserError
from gaitdiff.evaluation.held_out import to_score
from gaitdiff.evaluation.outcomes import Outcome, outcome_of
from gaitdiff.models import create_model
from gaitdiff.training.checkpoint import load_checkpoint
from gaitdiff.training.device import make_accelerator, seeded
from gaitdiff.training.environment import environment, read_starts
from gaitdiff.training.run_folder import read_metrics
from gaitdiff.utils.files import parse_json, require_regular, write_json

_TOLD = ("time", "gaitdiff", "commit", "processor", "threads", "gpus")  # of the environment


@dataclass(frozen=True)
class Result:
    """What is kept of a finished run.

    Attributes:
        name: of the job.
        settings: all that its numbers come from, by dotted name.
        manifest_sha256: of the data.
        iterations: that it took; fewer than it was to take where ``run.patience`` ended it.
        seconds: what they took, with logging and evaluations.
        evaluations: ``step`` and scores, in their order.
        pairs: ``step``, ``ap`` and ``an``, of pretraining.
        outcome: person by person, of pretraining that of raw features by cosine; None where nobody can be scored.
        before: the same of pretraining's fresh network.
        made: time, version, commit and machine that it was finished with.
    """

    name: str
    settings: dict[str, Any]
    manifest_sha256: str
    iterations: int
    seconds: float
    evaluations: list[dict[str, float]]
    pairs: list[dict[str, float]]
    outcome: Outcome | None
    before: Outcome | None
    made: dict[str, Any]


_KINDS: dict[str, Any] = {
    "name": str,
    "settings": dict,
    "manifest_sha256": str,
    "iterations": int,
    "seconds": int | float,
    "evaluations": list,
    "pairs": list,
    "made": dict,
}


def read_result(file: Path) -> Result | None:
    """What was kept, None where nothing was.

    Raises:
        UserError: it is damaged, or of a version that kept something else.
    """
    if not file.exists():
        return None
    try:
        found = parse_json(require_regular(file).read_text(encoding="utf-8"))
        for key in ("outcome", "before"):
            found[key] = None if found[key] is None else Outcome(**found[key])
        for key, kind in _KINDS.items():
            if not isinstance(found[key], kind) or (
                kind is list and not all(isinstance(one, dict) for one in found[key])
            ):
                raise ValueError(key)
        return Result(**{field.name: found[field.name] for field in fields(Result)})
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        what = "damaged, or was kept by another version"
        raise UserError(f"{file} is {what}: remove it, and its run is scored again") from error


def write_result(file: Path, result: Result) -> None:
    """Keep a result.

    Raises:
        UserError: it cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, asdict(result))


def result_of(
    run: Path, config: PretrainConfig | FinetuneConfig, name: str, settings: dict[str, Any], manifest: str
) -> Result:
    """Score a finished run, and take what is to be kept of it.

    Raises:
        UserError: its files cannot be read.
    """
    metrics = read_metrics(run)
    logged = [record for record in metrics if "loss" in record]
    if not logged:
        raise UserError(f"{run / 'metrics.jsonl'} has no step of its run: remove {run}, and it is trained anew")
    pretrains = isinstance(config, PretrainConfig)
    outcome, before = _outcomes(run, config)
    machine = environment()
    return Result(
        name,
        settings,
        manifest,
        logged[-1]["step"],
        round(_seconds(run, logged), 1),
        [{"step": record["step"], **record["evaluation"]} for record in metrics if "evaluation" in record],
        [{key: record[key] for key in ("step", "ap", "an")} for record in logged if pretrains],
        outcome,
        before,
        {key: machine[key] for key in _TOLD},
    )


def _outcomes(run: Path, config: PretrainConfig | FinetuneConfig) -> tuple[Outcome | None, Outcome | None]:
    """Of the run, and of the fresh network that pretraining began with."""
    place, store = make_accelerator(config.machine).device, SequenceStore(config.data.store)
    protocol = config.run.protocol
    if to_score(store, protocol).unscored:
        return None, None
    model = load_checkpoint(run, place)
    if isinstance(config, FinetuneConfig):
        return outcome_of(model, store, protocol, config.loss.distance, place), None
    return outcome_of(model.backbone, store, protocol, "cosine", place), _fresh(config, store, place)


def _fresh(config: PretrainConfig, store: SequenceStore, place: torch.device) -> Outcome:
    with seeded(config.seed):
        model = create_model(config.model.name, config.model.preset, **config.model.overrides)
    return outcome_of(model.eval().to(place).backbone, store, config.run.protocol, "cosine", place)


def _seconds(run: Path, logged: Sequence[dict[str, Any]]) -> float:
    """What the steps took: of each start of the run, its pace times the steps until the next one."""
    begins = [start["step"] for start in read_starts(run)] or [0]
    total = 0.0
    for place, begin in enumerate(begins):
        end = begins[place + 1] if place + 1 < len(begins) else logged[-1]["step"]
        paces = [record["seconds_per_step"] for record in logged if begin < record["step"] <= end]
        total += (end - begin) * paces[-1] if paces else 0.0
    return total
