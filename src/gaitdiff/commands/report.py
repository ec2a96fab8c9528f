"""``gaitdiff report``: a page on runs, whatever they are: curves, scores, neighbours, pictures, settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gaitdiff.commands.options import require_distinct
from gaitdiff.data.store import SequenceStore
from gaitdiff.errors import UserError
from gaitdiff.report.page import Report, write_report
from gaitdiff.training.checkpoint import read_checkpoint_info
from gaitdiff.training.device import device_for
from gaitdiff.training.run_folder import DATA, read_config, read_metrics

_SCORES = ("rank1", "rank5", "mAP", "mINP")
#: Kinds of raw features that pretraining scores, by how their scores end.
_KINDS = {"cosine": "cosine", "euclidean": "Euclidean", "whitened": "whitened", "linear": "best linear map"}


def run(runs: Sequence[Path], out: Path | None = None, device: str = "auto") -> Path:
    """Write a page on one run, or on several of the same data.

    Args:
        runs: of pretraining one at most, of finetune any number; the first two of these are compared probe by probe.
        out: folder; "report" in the first run's by default.

    Returns:
        The page's path.

    Raises:
        UserError: something is no run folder, or the runs do not belong on one page.
    """
    place = device_for(device)
    named = _names(runs)
    configs = {name: read_config(folder) for name, folder in named.items()}
    pretraining = [name for name, config in configs.items() if config.get("stage") == "pretrain"]
    if len(pretraining) > 1:
        raise UserError(f"{' and '.join(pretraining)} are runs of pretraining: report them apart")
    data = {config.get("made_from", {}).get("manifest_sha256") for config in configs.values()}
    if len(data) > 1:
        raise UserError(f"{', '.join(named)} are runs of other data each: report them apart")
    store = Path(next(iter(configs.values()))["data"]["store"])
    if data != {None} and store.exists() and SequenceStore(store).header.manifest_sha256 not in data:
        raise UserError(f"{store} holds other data than {', '.join(named)}: bring those back, or move these away")
    scores: dict[str, dict[str, float]] = {}
    said: list[str] = []
    for name, folder in named.items():
        found, step, whose = _scores(name, folder)
        scores |= found
        origin = read_checkpoint_info(folder).origin
        told = "" if origin.step is None else f" stands at step {origin.step} of {origin.iterations}"
        said.append(f"{name}{told}" + (f", scored at step {step}{whose}" if found else "") + _changed(folder))
    report = Report(
        title=", ".join(named),
        store=store,
        pretraining=named[pretraining[0]] if pretraining else None,
        supervised={name: folder for name, folder in named.items() if name not in pretraining},
        scores=scores,
        verdict=". ".join(said) + ".",
        facts=_facts(configs),
    )
    return write_report(out or runs[0] / "report", report, place)


def _names(runs: Sequence[Path]) -> dict[str, Path]:
    """Runs by what tells them apart: the last part of their paths, or the paths."""
    require_distinct(runs)
    last = [folder.resolve().name for folder in runs]
    names = last if len(set(last)) == len(last) else [str(folder) for folder in runs]
    return dict(zip(names, runs, strict=True))


def _changed(folder: Path) -> str:
    """Which settings of a run were changed as it went on, and after which steps."""
    changes = [(record["step"], record["changed"]) for record in read_metrics(folder) if "changed" in record]
    told = [
        f"; after step {step} {key} became {new} instead of {old}"
        for step, changed in changes
        for key, (old, new) in changed.items()
        if key != DATA
    ]
    return "".join(told) + "".join(
        f"; from step {step} on it saw other data" for step, changed in changes if DATA in changed
    )


def _scores(name: str, folder: Path) -> tuple[dict[str, dict[str, float]], int, str]:
    """The rows of a run's last evaluation, its step, and of whom it is if not of test people."""
    evaluated = [record for record in read_metrics(folder) if "evaluation" in record][-1:]
    if not evaluated:
        return {}, 0, ""
    found: dict[str, float] = evaluated[0]["evaluation"]
    aside = evaluated[0].get("about", {}).get("split") == "val"
    mark = ", validation people" if aside else ""
    whose = " on validation people, whom its best checkpoint may be chosen by" if aside else ""
    if "rank1" in found:
        return {name + mark: found}, evaluated[0]["step"], whose
    rows = {}
    for kind, called in _KINDS.items():
        if f"rank1_{kind}" in found:
            row = {score: found[f"{score}_{kind}"] for score in _SCORES if f"{score}_{kind}" in found}
            rows[f"{name}, raw features, {called}{mark}"] = row | {"probes": found["probes"]}
    return rows, evaluated[0]["step"], whose


def _facts(configs: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Settings that tell a run from others, by its name."""
    facts = {}
    for name, config in configs.items():
        optim, made = config["optim"], config.get("made_with", {})
        model = f"{config['model']['name']} ({config['model']['preset']})" if config["model"]["name"] else "its init's"
        what = [config["stage"], config.get("mode", ""), f"model {model}", f"{optim['iterations']} iterations"]
        what += [f"{package} {version}" for package, version in made.items()]
        facts[name] = ", ".join(word for word in what if word)
    return facts
