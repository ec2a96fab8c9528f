"""What pretraining gains with few labels: fine-tuned and from scratch, by the number of labelled people."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

import gaitdiff
from gaitdiff.config.recipe import parse_config
from gaitdiff.config.schema import FinetuneConfig, ModelConfig
from gaitdiff.data.store import SequenceStore
from gaitdiff.errors import UserError, shown
from gaitdiff.evaluation.held_out import require_scorable
from gaitdiff.evaluation.outcomes import SUMMED, Outcome, difference, outcome_of, spread
from gaitdiff.paper.settings import counting, split_setting
from gaitdiff.report.figures import save_chart
from gaitdiff.report.labels import SCORES, SCRATCH, label_series
from gaitdiff.training.checkpoint import load_checkpoint, read_checkpoint_info, read_model_document
from gaitdiff.training.checkpoint_files import backbone_sha256, latest_checkpoint
from gaitdiff.training.device import device_for
from gaitdiff.training.finetune import finetune
from gaitdiff.utils.files import parse_json, require_regular, write_json
from gaitdiff.utils.locks import writing
from gaitdiff.utils.progress import answers, say

_RESULTS = "label_curve.json"
_USUAL = (5, 10, 20, 40)  # numbers of labelled people, unless told
_LONGEST = 100  # bytes of an arm's name, which is part of a folder's
#: Settings that each run has its own of.
_OWN = ("recipe", "out", "data.store", "data.people", "seed", "machine.device", "run.evaluate_every", "mode", "init")
#: What the runs of one comparison have in common.
_SAME = {"model": "model", "manifest_sha256": "data", "recipe": "recipe", "settings": "settings"}


@dataclass(frozen=True)
class Cell:
    """One run: what it starts from, how many people have labels (0 is all), and its seed."""

    arm: str
    people: int
    seed: int

    @property
    def name(self) -> str:
        """Folder of the run."""
        return f"{self.arm}-{self.people or 'all'}-{self.seed}"


@dataclass(frozen=True)
class LabelCurve:
    """A comparison that is done.

    Attributes:
        file: the JSON file with all of it.
        table: by number of labelled people, as in the file: ``people``; for each of ``rank1`` and ``mAP`` and each arm
            its ``scores`` (percent, one of each seed), beside scratch also ``difference`` and ``interval``.
        runs: number of labelled people, arm and seed to the run's folder.
    """

    file: Path
    table: list[dict[str, Any]]
    runs: dict[tuple[int, str, int], Path]


def run(
    checkpoints: Mapping[str, Path],
    data: Path,
    out: Path,
    *,
    recipe: str,
    people: str,
    seeds: Sequence[int],
    settings: Sequence[str] = (),
    device: str = "auto",
) -> LabelCurve:
    """Train every arm with each number of labelled people and each seed, score them, and draw the curves.

    A run that is there already is not trained again; the same command continues a stopped one, and one with more
    checkpoints, people or seeds adds to what is there.

    Args:
        checkpoints: name to pretraining where an arm starts, all of one model; one arm more, "scratch", starts from
            fresh weights of the same model.
        data: folder of a store with training and test people.
        out: folder for the runs, ``label_curve.json`` and the figures.
        recipe: of stage 2.
        people: numbers of labelled people between commas, or "all"; "": those of 5, 10, 20 and 40 that are fewer than
            there are, and all.
        seeds: of the runs of each kind.
        settings: of stage 2, each as "optim.iterations=500".

    Raises:
        UserError: anything about data, settings or machine that the user can fix.
    """
    starts = {name: latest_checkpoint(path) for name, path in checkpoints.items()}
    store = SequenceStore(data)
    about = {
        "gaitdiff": gaitdiff.__version__,
        "model": _model(starts),
        "checkpoints": {name: _origin(start) for name, start in starts.items()},
        "store": store.header.source,
        "manifest_sha256": store.header.manifest_sha256,
        "recipe": recipe,
        "settings": list(settings),
    }
    everybody = len({row.subject for row in store.rows if row.split == "train"})
    numbers = _numbers(people) if people else [*(count for count in _USUAL if count < everybody), 0]
    if max(numbers) > everybody:
        raise UserError(f"--people names {max(numbers)}, but {data} has {everybody} training people: name fewer")
    if 0 in numbers:  # which are as many
        numbers = [count for count in numbers if count != everybody]
    cells = [Cell(arm, count, seed) for count in numbers for seed in seeds for arm in (SCRATCH, *starts)]
    configs = {cell: _config(cell, everybody, starts, data, out, recipe, settings, device) for cell in cells}
    some = configs[Cell(next(iter(starts)), numbers[0], seeds[0])]
    about["resolved"] = _resolved(some)
    place = device_for(device)
    with writing(out):
        outcomes = _read(out / _RESULTS, about)
        require_scorable(store, some.run.protocol)
        for start in starts.values():
            read_checkpoint_info(start).require_height(store)
        for number, cell in enumerate(cells, 1):
            if cell.name not in outcomes:
                say(f"{number}/{len(cells)} {cell.name}")
                with _own_words():
                    trained = finetune(configs[cell])
                run, metric = configs[cell].run, configs[cell].loss.distance
                outcomes[cell.name] = outcome_of(load_checkpoint(trained, place), store, run.protocol, metric, place)
                _write(out / _RESULTS, {"about": about}, outcomes)
        numbers.sort(key=lambda count: count or everybody)
        table = [_row(outcomes, count, everybody, list(starts), seeds) for count in numbers]
        _write(out / _RESULTS, {"about": about, "seeds": list(seeds), "table": table}, outcomes)
    _print(table)
    for score, name in SCORES.items():
        save_chart(
            out / f"label_curve_{score}", label_series(table, score), x_label="labelled people", y_label=f"{name}, %",
            log_x=True,
        )  # fmt: skip
    folders = {(cell.people or everybody, cell.arm, cell.seed): _folder(out, cell) for cell in cells}
    return LabelCurve(out / _RESULTS, table, folders)


def named_checkpoints(words: Sequence[str]) -> dict[str, Path]:
    """Checkpoints by name: "NAME=PATH", or a path, whose last part is its name.

    Raises:
        UserError: two have one name, or a name cannot be that of a folder.
    """
    found: dict[str, Path] = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not equals or Path(word).exists() or not re.fullmatch(r"[\w.-]+", name):
            name, path = Path(word).resolve().name, word
        if not name.isprintable() or len(os.fsencode(name)) > _LONGEST:
            raise UserError(f"{shown(name)} cannot be the name of an arm: name this one, as in other={shown(path)}")
        if name in found or name == SCRATCH:
            raise UserError(f"two arms would be called {name!r}: name this one, as in other={path}")
        found[name] = Path(path)
    return found


def _resolved(config: FinetuneConfig) -> dict[str, Any]:
    """What recipe and settings come to, of all that scores depend on and that is the same for all runs."""
    apart = {*_OWN, "batch.people"}
    return {key: value for key, value in counting(config).items() if key not in apart}


def _origin(start: Path) -> dict[str, str]:
    return {"origin": str(read_checkpoint_info(start).origin), "backbone_sha256": backbone_sha256(start)}


def _model(starts: Mapping[str, Path]) -> dict[str, Any]:
    """What all checkpoints are weights of."""
    models = {}
    for name, start in starts.items():
        document = read_model_document(start)
        models[name] = {"name": document["model"], "preset": document["preset"], "overrides": document["config"]}
    (first, model), *others = models.items()
    for name, other in others:
        if other != model:
            raise UserError(f"{first} and {name} are of different models: compare them with scratch one by one")
    return model


def _numbers(people: str) -> list[int]:
    """The numbers of labelled people, 0 for all."""
    found = []
    for word in people.split(","):
        if word.strip().lower() == "all":
            found.append(0)
        elif not word.strip().isdecimal():
            raise UserError(f'--people is {people!r}, but takes numbers between commas, or "all"')
        elif int(word) == 0:
            raise UserError('--people names 0: give numbers of labelled people, or "all"')
        else:
            found.append(int(word))
    return list(dict.fromkeys(found))


def _config(
    cell: Cell,
    everybody: int,
    starts: Mapping[str, Path],
    data: Path,
    out: Path,
    recipe: str,
    settings: Sequence[str],
    device: str,
) -> FinetuneConfig:
    """The settings of a run; a batch has no more people than the run, or of all of them than ``everybody``."""
    flags = [word for setting in settings for word in _flag(setting)]
    words = ["--recipe", recipe, "--data.store", str(data), "--out", str(_folder(out, cell)), *flags]
    words += ["--data.people", str(cell.people), "--seed", str(cell.seed), "--machine.device", device]
    words += ["--run.evaluate_every", "0", "--mode", "finetune"]
    some = next(iter(starts.values()))
    words += ["--init", str(starts.get(cell.arm, some))]
    with _own_words():
        config = parse_config(FinetuneConfig, "gaitdiff label-curve", words)
    config = replace(config, batch=replace(config.batch, people=min(config.batch.people, cell.people or everybody)))
    if cell.arm != SCRATCH:
        return config
    return replace(config, mode="scratch", init="", model=ModelConfig(**_model({SCRATCH: some})))


@contextmanager
def _own_words() -> Iterator[None]:
    """Within the block, what gaitdiff finetune says of its flags speaks of ``--set``."""
    try:
        yield
    except UserError as error:
        raise UserError(re.sub(r"--([a-z]+\.\w[\w.]*)( (?=[\d\[]))?", _as_setting, str(error))) from error


def _as_setting(flag: re.Match[str]) -> str:
    return f"--set {flag[1]}{'=' if flag[2] else ''}"


def _folder(out: Path, cell: Cell) -> Path:
    return out / "runs" / cell.name


def _flag(setting: str) -> tuple[str, str]:
    name, value = split_setting(setting)
    if name in _OWN:
        raise UserError(f"--set {name} is not free: gaitdiff label-curve gives each of its runs its own")
    return f"--{name}", value


def _read(file: Path, about: dict[str, Any]) -> dict[str, Outcome]:
    if not file.exists():
        return {}
    try:
        document = parse_json(require_regular(file).read_text(encoding="utf-8"))
        before = document["about"]
        unlike = [_unlike(what, before[key], about[key]) for key, what in _SAME.items() if before[key] != about[key]]
        now, then = about["resolved"], before.get("resolved", about["resolved"])
        unlike += [f"{key} ({then.get(key)}, not {value})" for key, value in now.items() if then.get(key) != value]
        for name, start in before["checkpoints"].items():
            if about["checkpoints"].setdefault(name, start)["backbone_sha256"] != start["backbone_sha256"]:
                unlike.append(f"weights called {name}")
        found = {name: Outcome(**one) for name, one in document["runs"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is damaged: choose another --out") from error
    if unlike:
        raise UserError(f"{file} holds a comparison with other {' and '.join(unlike)}: choose another --out")
    return found


def _unlike(what: str, before: Any, now: Any) -> str:
    return f"{what} ({' '.join(before) or 'none'}, not {' '.join(now) or 'none'})" if isinstance(now, list) else what


def _write(file: Path, document: dict[str, Any], outcomes: dict[str, Outcome]) -> None:
    runs = {name: asdict(one) for name, one in sorted(outcomes.items())}
    write_json(file, {**document, "runs": runs})


def _row(
    outcomes: Mapping[str, Outcome], count: int, everybody: int, arms: Sequence[str], seeds: Sequence[int]
) -> dict[str, Any]:
    """Scores of all arms with one number of labelled people."""
    row: dict[str, Any] = {"people": count or everybody}
    fresh = [outcomes[Cell(SCRATCH, count, seed).name] for seed in seeds]
    for score in SUMMED:
        row[score] = {SCRATCH: {"scores": [one.percent(score) for one in fresh]}}
        for arm in arms:
            tuned = [outcomes[Cell(arm, count, seed).name] for seed in seeds]
            gain, low, high = (round(value, 2) for value in difference(list(zip(fresh, tuned, strict=True)), score))
            scores = [one.percent(score) for one in tuned]
            row[score][arm] = {"scores": scores, "difference": gain, "interval": [low, high]}
    return row


def _print(table: Sequence[Mapping[str, Any]]) -> None:
    shown = Table("people", "score", "arm", "mean", "over scratch", "95% interval", title="by labelled people")
    for row in table:
        for score, name in SCORES.items():
            for arm, found in row[score].items():
                scores, gain = found["scores"], ("", "")
                if arm != SCRATCH:
                    low, high = found["interval"]
                    gain = (f"{found['difference']:+.1f}", f"{low:+.1f} to {high:+.1f}")
                heads = ("", "") if arm != SCRATCH else (f"{row['people']}" if score == "rank1" else "", name)
                shown.add_row(*map(Text, (*heads, arm, spread(scores), *gain)))
    answers().print(shown)
