"""How many labels a pretrained backbone saves: fine-tuned and from scratch, by the number of labelled people."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import gaitdiff
from gaitdiff.config.recipe import parse_config
from gaitdiff.config.schema import FinetuneConfig, MachineConfig, ModelConfig
from gaitdiff.data.store import SequenceStore
from gaitdiff.errors import UserError
from gaitdiff.evaluation.features import extract, rank_in_store, rows_to_score
from gaitdiff.report.figures import Series, save_chart
from gaitdiff.training.checkpoint import latest_checkpoint, load_checkpoint, read_checkpoint_info, read_model_document
from gaitdiff.training.device import make_accelerator
from gaitdiff.training.finetune import finetune
from gaitdiff.utils.files import write_whole
from gaitdiff.utils.progress import say

#: Where the backbone starts.
ARMS = ("scratch", "finetuned")
_DRAWS = 4000  # of the bootstrap
_RESULTS = "label_curve.json"
#: What the runs of one comparison have in common.
_SAME = {
    "backbone_sha256": "pretrained weights",
    "manifest_sha256": "data",
    "recipe": "recipe",
    "settings": "settings",
}


@dataclass(frozen=True)
class Cell:
    """One run: where it starts, how many people have labels (0 is all), and its seed."""

    arm: str
    people: int
    seed: int

    @property
    def name(self) -> str:
        """Folder of the run."""
        return f"{self.arm}-{self.people or 'all'}-{self.seed}"


@dataclass(frozen=True)
class Outcome:
    """What a run scores, person by person.

    Attributes:
        probes: (n,) number of probes of each test person.
        hits: (n,) how many of them find their person first.
        precision: (n,) sum of their average precisions.
    """

    probes: list[int]
    hits: list[int]
    precision: list[float]


def run(
    checkpoint: Path,
    data: Path,
    out: Path,
    *,
    recipe: str,
    people: str,
    seeds: int,
    settings: Sequence[str] = (),
    device: str = "auto",
) -> Path:
    """Train both arms with each number of labelled people and each seed, score them, and draw the curves.

    A run that is there already is not trained again; the same command continues a stopped one.

    Args:
        checkpoint: of pretraining, where one arm starts; the other starts from fresh weights of the same model.
        data: folder of a store with training and test people.
        out: folder for the runs, ``label_curve.json`` and the figures.
        recipe: of stage 2.
        people: numbers of labelled people between commas, or "all".
        seeds: runs of each kind.
        settings: of stage 2, each as "optim.iterations=500".

    Returns:
        The JSON file.

    Raises:
        UserError: anything about data, settings or machine that the user can fix.
    """
    start, store, numbers = latest_checkpoint(checkpoint), SequenceStore(data), _numbers(people)
    if seeds < 1:
        raise UserError(f"--seeds is {seeds}, but a comparison takes at least 1")
    cells = [Cell(arm, count, seed) for count in numbers for seed in range(seeds) for arm in ARMS]
    configs = {cell: _config(cell, start, data, out, recipe, settings, device) for cell in cells}
    about = {
        "gaitdiff": gaitdiff.__version__,
        "checkpoint": str(read_checkpoint_info(start).origin),
        "store": store.header.source,
        "backbone_sha256": hashlib.sha256((start / "backbone.safetensors").read_bytes()).hexdigest(),
        "manifest_sha256": store.header.manifest_sha256,
        "recipe": recipe,
        "settings": list(settings),
    }
    outcomes = _read(out / _RESULTS, about)
    place = make_accelerator(MachineConfig(device=device)).device
    for number, cell in enumerate(cells, 1):
        if cell.name not in outcomes:
            say(f"{number}/{len(cells)} {cell.name}")
            outcomes[cell.name] = _score(finetune(configs[cell]), store, configs[cell], place)
            _write(out / _RESULTS, {"about": about}, outcomes)
    return _conclude(out, about, outcomes, numbers, range(seeds), store)


def _numbers(people: str) -> list[int]:
    """The numbers of labelled people, 0 for all."""
    found = []
    for word in people.split(","):
        if word.strip().lower() != "all" and not word.strip().isdecimal():
            raise UserError(f'--people is {people!r}, but takes numbers between commas, or "all"')
        found.append(0 if word.strip().lower() == "all" else int(word))
    return list(dict.fromkeys(found))


def _config(
    cell: Cell, start: Path, data: Path, out: Path, recipe: str, settings: Sequence[str], device: str
) -> FinetuneConfig:
    """The settings of a run; a batch has no more people than there are."""
    flags = [word for setting in settings for word in _flag(setting)]
    words = ["--recipe", recipe, "--data.store", str(data), "--out", str(out / "runs" / cell.name), *flags]
    words += ["--data.people", str(cell.people), "--seed", str(cell.seed), "--machine.device", device]
    words += ["--run.evaluate_every", "0", "--mode", "finetune", "--init", str(start)]
    config = parse_config(FinetuneConfig, "gaitdiff label-curve", words)
    if cell.people:
        batch = replace(config.batch, people=min(config.batch.people, cell.people))
        config = replace(config, batch=batch)
    if cell.arm == "finetuned":
        return config
    model = read_model_document(start)
    fresh = ModelConfig(model["model"], model["preset"], model["config"])
    return replace(config, mode="scratch", init="", model=fresh)


def _flag(setting: str) -> tuple[str, str]:
    name, equals, value = setting.partition("=")
    if not equals or not name:
        raise UserError(f"--set takes KEY=VALUE, such as optim.iterations=500, not {setting!r}")
    return f"--{name}", value


def _score(folder: Path, store: SequenceStore, config: FinetuneConfig, place: torch.device) -> Outcome:
    rows = rows_to_score(store, config.run.protocol)
    if len(rows) == 0:
        raise UserError(f"{store.path} has no test people to score: import it with a split that has some")
    features = extract(load_checkpoint(folder, place), store, rows, place)
    probe, ranks = rank_in_store(features, store, rows, config.run.protocol, config.loss.distance, place)
    matched = ranks.first > 0
    people, person = np.unique([store.rows[int(row)].subject for row in probe[matched]], return_inverse=True)
    sums = (np.bincount(person, weights, len(people)) for weights in (None, ranks.first[matched] == 1))
    probes, hits = (values.astype(int).tolist() for values in sums)
    precision = np.bincount(person, ranks.precision[matched], len(people)).round(6)
    return Outcome(probes, hits, precision.tolist())


def _read(file: Path, about: dict[str, Any]) -> dict[str, Outcome]:
    if not file.exists():
        return {}
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        unlike = [what for key, what in _SAME.items() if document["about"][key] != about[key]]
        found = {name: Outcome(**one) for name, one in document["runs"].items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is damaged: choose another --out") from error
    if unlike:
        raise UserError(f"{file} holds a comparison with other {' and '.join(unlike)}: choose another --out")
    return found


def _write(file: Path, document: dict[str, Any], outcomes: dict[str, Outcome]) -> None:
    runs = {name: asdict(one) for name, one in sorted(outcomes.items())}
    write_whole(file, json.dumps({**document, "runs": runs}, indent=1).encode())


def difference(pairs: Sequence[tuple[Outcome, Outcome]], key: str, seed: int = 0) -> tuple[float, float, float]:
    """Mean of the second outcomes' score less the first's, and its 95% interval.

    The interval is a bootstrap's over seeds and, the same for both outcomes, over test people, whose probes stay
    together (Efron & Tibshirani 1993).

    Args:
        pairs: both outcomes of each seed.
        key: "hits", for rank-1, or "precision", for mAP.

    Returns:
        Percentage points.
    """
    probes = np.array(pairs[0][0].probes)
    gains = np.array([np.subtract(getattr(b, key), getattr(a, key)) for a, b in pairs])  # (seeds, people)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(probes), size=(_DRAWS, len(probes)))
    runs = rng.integers(len(pairs), size=(_DRAWS, len(pairs)))
    means = [100.0 * gains[np.ix_(s, p)].sum() / (len(s) * probes[p].sum()) for s, p in zip(runs, drawn, strict=True)]
    low, high = np.percentile(means, [2.5, 97.5])
    return 100.0 * float(gains.sum()) / (len(pairs) * int(probes.sum())), float(low), float(high)


def _spread(values: np.ndarray) -> str:
    """Mean, and standard deviation over seeds where there are several."""
    return f"{values.mean():.1f}" + (f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else "")


def _conclude(
    out: Path,
    about: dict[str, Any],
    outcomes: dict[str, Outcome],
    people: Sequence[int],
    seeds: Sequence[int],
    store: SequenceStore,
) -> Path:
    """Write the table into the JSON file, print it, and draw it."""
    everybody = len({row.subject for row in store.rows if row.split == "train"})
    table = Table(
        "people",
        "score",
        "from scratch",
        "fine-tuned",
        "gain",
        "95% interval",
        title="by the number of labelled people",
    )
    rows = []
    for count in sorted(people, key=lambda count: count or everybody):
        pairs = [(outcomes[Cell("scratch", count, s).name], outcomes[Cell("finetuned", count, s).name]) for s in seeds]
        row: dict[str, Any] = {"people": count or everybody}
        for score, key in (("rank1", "hits"), ("mAP", "precision")):
            scores = [[100.0 * sum(getattr(one, key)) / sum(one.probes) for one in pair] for pair in pairs]
            scratch, tuned = np.array(scores).T
            gain, low, high = difference(pairs, key)
            row[score] = {
                "scratch": scratch.round(2).tolist(),
                "finetuned": tuned.round(2).tolist(),
                "difference": round(gain, 2),
                "interval": [round(low, 2), round(high, 2)],
            }
            name = {"rank1": "rank-1", "mAP": "mAP"}[score]
            table.add_row(
                f"{row['people']}" if score == "rank1" else "",
                name,
                _spread(scratch),
                _spread(tuned),
                f"{gain:+.1f}",
                f"{low:+.1f} to {high:+.1f}",
            )
        rows.append(row)
    _write(out / _RESULTS, {"about": about, "seeds": list(seeds), "table": rows}, outcomes)
    Console(highlight=False).print(table)
    for score, label in (("rank1", "rank-1, %"), ("mAP", "mAP, %")):
        series = []
        for arm, name, colour in (("finetuned", "fine-tuned", "blue"), ("scratch", "from scratch", "red")):
            values = np.array([row[score][arm] for row in rows])  # (numbers of people, seeds)
            spread = values.std(1, ddof=1) if len(seeds) > 1 else None
            series.append(Series(name, [row["people"] for row in rows], values.mean(1), colour, spread))
        save_chart(out / f"label_curve_{score}", series, x_label="labelled people", y_label=label, log_x=True)
    return out / _RESULTS
