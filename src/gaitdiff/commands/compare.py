"""``gaitdiff compare``: runs side by side, what they do not share and what they score, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.table import Column, Table
from rich.text import Text

from gaitdiff.commands.options import require_distinct
from gaitdiff.config.flat import flat
from gaitdiff.data.store import SequenceStore
from gaitdiff.errors import UserError
from gaitdiff.evaluation.held_out import scored_split
from gaitdiff.evaluation.outcomes import SUMMED, Outcome, difference, outcome_of
from gaitdiff.report.labels import SCORES
from gaitdiff.training.checkpoint import load_checkpoint, pick_features, read_checkpoint_info
from gaitdiff.training.device import device_for
from gaitdiff.training.run_folder import DATA, read_config
from gaitdiff.utils.files import json_object, require_output, write_json
from gaitdiff.utils.progress import answers
from gaitdiff.version import __version__

_ASIDE = ("out", "made_with", "identity", "machine", "run")  # of no effect on what is learned


def run(
    runs: Sequence[Path], *, data: Path | None = None, device: str = "auto", json_file: Path | None = None
) -> dict[str, Any]:
    """Score the newest checkpoints of runs on one store, and print the differences from the first of them.

    Supervised runs are scored by their embeddings, runs of pretraining by raw features; each by the distance it was
    trained with.

    Args:
        runs: run folders, two or more.
        data: store; by default the one that all of them were trained on.
        json_file: where all numbers are written too.

    Returns:
        What the JSON file holds.

    Raises:
        UserError: something is no run folder, or the runs are of other data each and no store is given.
    """
    if len(runs) < 2:
        raise UserError("one run is not compared with anything: name two or more")
    require_distinct(runs)
    names = [str(folder) for folder in runs]
    if json_file is not None:
        require_output(json_file, "--json", _is_ours)
    configs = {name: _config(folder) for name, folder in zip(names, runs, strict=True)}
    store = SequenceStore(data or _store(configs))
    place = device_for(device)
    protocol = _protocol(configs)
    outcomes = {name: _outcome(folder, store, protocol, place) for name, folder in zip(names, runs, strict=True)}
    document = {
        "gaitdiff": __version__,
        "store": str(store.path),
        "split": scored_split(store),
        "protocol": protocol,
        "runs": {name: _told(name, outcomes, names[0]) for name in names},
        "settings": _unlike(configs),
    }
    _print(document)
    if json_file is not None:
        write_json(json_file, document, "choose another --json")
    return document


def _is_ours(file: Path) -> bool:
    return {"runs", "settings"} <= json_object(file).keys()


def _config(folder: Path) -> dict[str, Any]:
    """A run's configuration, with the model that it has, which one that starts from another run does not name."""
    config, info = read_config(folder), read_checkpoint_info(folder)
    return {**config, "model": {**config["model"], "name": info.model, "preset": info.preset}}


def _store(configs: Mapping[str, dict[str, Any]]) -> Path:
    """What all runs were trained on, where it is still as it was."""
    made = {config.get("made_from", {}).get("manifest_sha256") for config in configs.values()}
    stores = dict.fromkeys(config["data"]["store"] for config in configs.values())
    for path in stores if len(made) == 1 else ():
        if Path(path).exists() and SequenceStore(path).header.manifest_sha256 in made:
            return Path(path)
    raise UserError(
        f"the runs are of other data each, or of data that is not there as it was ({', '.join(stores)}): say by --data "
        "what to score them on"
    )


def _protocol(configs: Mapping[str, dict[str, Any]]) -> str:
    values = {name: config["run"]["protocol"] for name, config in configs.items()}
    if len(set(values.values())) > 1:
        told = ", ".join(f"{name} by {value}" for name, value in values.items())
        raise UserError(f"the runs are scored by different protocols ({told}): compare those of one")
    return str(next(iter(values.values())))


def _outcome(folder: Path, store: SequenceStore, protocol: str, place: torch.device) -> Outcome:
    info = read_checkpoint_info(folder)
    info.require_height(store)
    network, _ = pick_features(load_checkpoint(info.folder, place), "auto")
    return outcome_of(network, store, protocol, info.metric, place)


def _told(name: str, outcomes: Mapping[str, Outcome], first: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for score in SUMMED:
        found[score] = outcomes[name].percent(score)
        if name != first:
            gain, low, high = difference([(outcomes[first], outcomes[name])], score)
            found[f"{score}_difference"] = round(gain, 2)
            found[f"{score}_interval"] = [round(low, 2), round(high, 2)]
    return found


def _unlike(configs: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Settings that the runs do not share, by name and run; None where a run has no such setting."""
    leaves = {name: dict(flat(config, ("model.overrides",))) for name, config in configs.items()}
    keys = sorted({key for one in leaves.values() for key in one if key.partition(".")[0] not in _ASIDE})
    found = {key: {name: one.get(key) for name, one in leaves.items()} for key in keys}
    return {
        "data" if key == DATA else key: values
        for key, values in found.items()
        if key != "made_from.sequences_sha256" and len({repr(value) for value in values.values()}) > 1
    }


def _print(document: Mapping[str, Any]) -> None:
    console = answers()
    names = list(document["runs"])
    table = Table(
        Column("run", overflow="fold"), *(head for name in SCORES.values() for head in (name, "over the first"))
    )
    for name, told in document["runs"].items():
        row = [name]
        for score in SCORES:
            interval = told.get(f"{score}_interval")
            gain = f"{told[f'{score}_difference']:+.1f} ({interval[0]:+.1f} to {interval[1]:+.1f})" if interval else ""
            row += [f"{told[score]:.1f}", gain]
        table.add_row(*map(Text, row))
    console.print(table)
    whose = "test" if document["split"] == "test" else "validation"
    console.print(
        f"{whose} people of {document['store']}, protocol {document['protocol']}; in brackets 95% intervals, by "
        "bootstrap over people: of these runs, not of what another seed would give",
        soft_wrap=True,
    )
    if document["settings"]:
        unlike = Table("setting", *(Column(Text(name)) for name in names))
        for key, values in document["settings"].items():
            unlike.add_row(*(Text(str(cell)) for cell in (key, *(values[name] for name in names))))
        console.print(unlike)
