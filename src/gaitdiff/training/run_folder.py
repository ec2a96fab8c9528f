"""A run folder: resolved configuration, metrics, checkpoints; what lets the same command continue a stopped run."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias, get_type_hints

import numpy as np
import torch
import yaml

from gaitdiff.config.earlier import as_now
from gaitdiff.config.flat import flat, plain
from gaitdiff.config.recipe import STAGES
from gaitdiff.config.safe_yaml import read_mapping
from gaitdiff.config.values import convert, settings_of
from gaitdiff.errors import UserError
from gaitdiff.training.environment import Start, note_start
from gaitdiff.training.loggers import Logger, check_tracker, open_loggers
from gaitdiff.utils.files import NamesAndDrafts, parse_json, require_regular, sync, write_whole
from gaitdiff.utils.locks import HOLDER_FILE, LOCK_FILE, FolderLock
from gaitdiff.utils.progress import say
from gaitdiff.utils.text import printable
from gaitdiff.version import __version__

#: Parts of a configuration that may differ when a run is continued.
_FREE = ("machine", "run", "out", "data.store", "made_with", "identity", "made_from.sequences_sha256")
#: Settings that may be paths; the same place counts as the same, however it is written.
_PATHS = ("init", "diffusion.autoencoder", "diffusion.start")
#: Where a configuration tells data by their digest, and what the shapes of weights and of the optimiser's state are of.
DATA, _ROWS = "made_from.manifest_sha256", "made_from.sequences_sha256"
_BUILT = (
    *("model.", "objective", "diffusion.denoiser", "diffusion.pooling", "diffusion.projector", "diffusion.normalize"),
    *("contrastive.projector", "mode", "optim.optimizer", "optim.layer_decay", "optim.freeze_blocks"),
)
_DRAFT = ".config.yaml.partial"
_UNTOUCHED = "checkpoints are untouched, fix it and start the same command again"
#: What may lie in a folder whose run was stopped before it had a configuration.
_BEGUN = NamesAndDrafts((_DRAFT, LOCK_FILE, HOLDER_FILE))


#: A setting by its dotted name, as it was, and as it is.
Change: TypeAlias = tuple[str, Any, Any]


class RunFolder:
    """One training run on disk.

    ``config.yaml`` (resolved, with what the run was made from), ``metrics.jsonl`` (one JSON object a line, each with
    ``step``), ``environment.jsonl`` (a line a start: machine, versions, command), ``checkpoints/``. As a context
    manager it ends with giving back the right to write the folder.
    """

    def __init__(
        self,
        path: Path,
        lock: FolderLock | None,
        config: bytes,
        changes: Sequence[Change],
        others: Sequence[Change],
        identity: str,
    ) -> None:
        self.path, self.identity, self._lock, self._config = path, identity, lock, config
        self.changes, self._others = list(changes), list(others)
        self._loggers: list[Logger] = []
        self._lines = 0

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for logger in self._loggers:
            logger.close()
        if self._lock is not None:
            self._lock.release()

    @classmethod
    def open(
        cls,
        stage: str,
        config: Any,
        provenance: dict[str, Any],
        write: bool = True,
        growing: Sequence[str] = (),
        device: str = "",
    ) -> RunFolder:
        """Create the folder ``config.out``, or take up a run of the same stage and configuration.

        Args:
            provenance: what else a run must have in common with the one it continues: its data.
            write: whether this process is the one that writes; it then holds the folder's lock.
            growing: settings that may be larger than before, since no number depends on them that is there already.
            device: on what kind of one it computes, and in what precision, such as "cpu in float32"; "" for no run.

        Raises:
            UserError: the folder holds something else, is being written by another process, or cannot be written.
        """
        path = Path(config.out).resolve()
        if printable(str(path)) != str(path):
            raise UserError(f"{printable(str(path))} holds what cannot be written as text: choose another --out")
        resolved = {"stage": stage, **plain(asdict(config)), "made_from": provenance, "made_with": versions(device)}
        resolved["run"]["change"] = False  # a purpose of this once
        file, lock = path / "config.yaml", FolderLock(path) if write else None
        check_tracker(config.run.track)
        try:
            if not file.is_file() and not _is_free(path):
                raise UserError(f"{path} exists and is no run folder: choose another --out")
            if lock is not None:
                path.mkdir(parents=True, exist_ok=True)
                lock.acquire()
            before = read_config(path) if file.is_file() else {}
            resolved["identity"] = before.get("identity") or _identity(before or resolved)
            content = yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True).encode("utf-8")
            changes, others = [], []
            if before:
                _refuse_old_shares(path, before)
                changes = _changes(path, before, resolved, growing, config.run.change)
                others = _other_versions(path, before.get("made_with"), resolved["made_with"])
            elif lock is not None:
                write_whole(file, content)
                sync(path.parent)
        except BaseException as error:
            if lock is not None:
                lock.release()
            if isinstance(error, OSError):
                raise UserError(f"{path} cannot be written ({error.strerror}): choose another --out") from error
            raise
        return cls(path, lock, content, changes, others, resolved["identity"])

    def go_on(self, step: int, init: Start | None) -> None:
        """Keep the settings with which the run goes on after ``step``, what of them is new, and on what it goes on.

        Args:
            init: what its weights are from, where it begins with some.
        """
        with self._writing():
            if (self.path / "config.yaml").read_bytes() != self._config:
                write_whole(self.path / "config.yaml", self._config)
            note_start(self.path, step, init)
        if step > 0 and (told := [*self.changes, *self._others]):
            self.append({"step": step, "changed": {key: [old, new] for key, old, new in told}})

    @property
    def metrics_file(self) -> Path:
        """Where metrics are kept."""
        return self.path / "metrics.jsonl"

    def append(self, record: dict[str, Any]) -> None:
        """Add one line of metrics, here and to the trackers; numbers that are not finite become null."""
        record = _finite(record)
        with self._writing():
            with self.metrics_file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record, allow_nan=False) + "\n")
            self._lines += 1
            for logger in self._loggers:
                logger.log(record)

    def track(self, name: str, step: int) -> None:
        """Give what is measured after ``step`` to a tracker too, and what was before if it is new here.

        Raises:
            UserError: the metrics so far are damaged, or the tracker's files cannot be written.
        """
        with self._writing():
            self._loggers = open_loggers(name, self.path, step, read_metrics(self.path))

    def picture(self, step: int, make: Callable[[], Mapping[str, np.ndarray]]) -> None:
        """Give pictures (H, W), uint8, to the trackers; they are made only where there are some."""
        if self._loggers:
            pictures = make()
            with self._writing():
                for logger in self._loggers:
                    logger.images(step, pictures)

    def rewind(self, step: int) -> int:
        """Forget metrics of steps after ``step``, which will be made again; return how many lines are left."""
        kept = [json.dumps(record) + "\n" for record in read_metrics(self.path) if record["step"] <= step]
        write_whole(self.metrics_file, "".join(kept).encode("utf-8"), _UNTOUCHED)
        self._lines = len(kept)
        return len(kept)

    def settle(self) -> int:
        """Wait until all metrics are on disk; return how many lines they are."""
        with self._writing():
            if self.metrics_file.exists():
                sync(self.metrics_file)
        return self._lines

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"{self.metrics_file} cannot be written ({error.strerror}): {_UNTOUCHED}") from error


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Lines of a run's metrics.jsonl; a last line torn by a kill is left out.

    Raises:
        UserError: a line is damaged.
    """
    file = run / "metrics.jsonl"
    if not os.path.lexists(file):
        return []
    found: list[dict[str, Any]] = []
    try:
        for line in require_regular(file).read_text(encoding="utf-8").split("\n")[:-1]:
            record = parse_json(line)
            groups = (record.get("evaluation", {}), record.get("changed", {}))
            if not isinstance(record["step"], int) or not all(isinstance(group, dict) for group in groups):
                raise ValueError("no record")
            if not all(isinstance(value, int | float) for key, value in groups[0].items() if key != "about"):
                raise ValueError("no score")
            found.append({"step": record["step"], **record})
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}): mend that") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{file} is damaged in line {len(found) + 1}: remove that line, or the file") from error
    return found


def read_config(run: Path) -> dict[str, Any]:
    """A run's resolved configuration.

    Raises:
        UserError: there is none, or it is damaged.
    """
    file = run / "config.yaml"
    try:
        config = read_mapping(file)
    except FileNotFoundError as error:
        above = next((folder for folder in run.resolve().parents[:2] if (folder / "config.yaml").is_file()), None)
        hint = f": give {above}" if above else ""
        what = "is no run folder: it has no config.yaml" if run.is_dir() else "does not exist: give a run folder"
        raise UserError(f"{run} {what}{hint}") from error
    except NotADirectoryError as error:
        raise UserError(f"{run} is no run folder: it is a file") from error
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}): mend it, or choose another --out") from error
    except ValueError as error:
        raise UserError(f"{file} is damaged ({error}): choose another --out") from error
    as_now(config)
    if wrong := _complete(config):
        raise UserError(f"{file} is damaged ({wrong}): choose another --out")
    return config


def _complete(config: dict[str, Any]) -> str:
    """Give a run's configuration the settings that came after it, at their defaults; return what else is wrong."""
    kind = STAGES.get(str(config.get("stage")))
    if kind is None:
        return "it lacks its stage"
    fresh = plain(asdict(kind(out="", data=get_type_hints(kind)["data"](store=""))))
    for name, default in fresh.items():
        value = config.setdefault(name, default)
        if isinstance(default, dict):
            if not isinstance(value, dict):
                return f"it lacks {name}"
            config[name] = {**default, **value}
    for name in ("made_from", "made_with"):
        if not isinstance(config.get(name, {}), dict):
            return f"{name} is no mapping"
    for name, setting in settings_of(kind).items():
        value = config
        for key in name.split("."):
            value = value[key]
        try:
            convert(setting.hint, value)
        except ValueError as error:
            return f"{name} cannot be {error}"
    return "it lacks out" if not config["out"] else "" if config["data"]["store"] else "it lacks data.store"


def _finite(value: Any) -> Any:
    """The same with None in place of numbers that are not finite, throughout."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _is_free(path: Path) -> bool:
    """Whether a run may begin in a folder that has no configuration."""
    return not path.exists() or (path.is_dir() and all(entry.name in _BEGUN for entry in path.iterdir()))


def _refuse_old_shares(path: Path, before: dict[str, Any]) -> None:
    """Refuse a run of several processes that an earlier version began, when each of them had batches of its own."""
    made_from = before.get("made_from")
    count = made_from.get("processes", 1) if isinstance(made_from, dict) else 1
    if count != 1:
        raise UserError(
            f"{path} was begun by {count} processes, each with batches of its own, which now share one: choose another "
            "--out"
        )


def _changes(
    path: Path,
    old: dict[str, Any],
    new: dict[str, Any],
    growing: Sequence[str],
    on_purpose: bool,
) -> list[Change]:
    """What a run's numbers come from that is not as it was.

    Raises:
        UserError: something is other than before, and not on purpose.
    """
    if old.get("stage") != new["stage"]:
        raise UserError(f"{path} holds a run of gaitdiff {old.get('stage')}, not {new['stage']}: choose another --out")
    before, after = (dict(flat(config)) for config in (old, new))
    found = []
    same_rows = before.get(_ROWS) == after.get(_ROWS, "")
    for key in sorted(after):
        if same_rows and key == "data.min_frames":  # it leaves out the same sequences as before
            continue
        if key in _FREE or key.split(".")[0] in _FREE or _same(key, before.get(key), after[key]):
            continue
        found.append((key, before.get(key), after[key]))
    refused = [change for change in found if not (change[0] in growing and change[2] > change[1])]
    if refused and not on_purpose:
        unlike = ", and ".join(
            f"other data ({old['data']['store']}, not {new['data']['store']} as it is now)"
            if key == DATA
            else f"{key} = {was!r}, not {now!r}"
            for key, was, now in refused
        )
        raise UserError(
            f"{path} holds a run with {unlike}: choose another --out, or repeat its settings to continue it, or go on "
            "with the new ones by --run.change true"
        )
    if built := [key for key, _, _ in found if key.startswith(_BUILT)]:
        raise UserError(f"{path} keeps what it trains, so that {built[0]} cannot change: choose another --out")
    for key, was, now in found:
        say(f"{path}: {'its data are others' if key == DATA else f'{key} is {now} instead of {was}'}")
    return found


def _same(key: str, old: Any, new: Any) -> bool:
    if key in _PATHS and old and new:
        return bool(old == new) or Path(old).resolve() == Path(new).resolve()
    return bool(old == new)


def provenance(manifest_sha256: str, rows: np.ndarray) -> dict[str, Any]:
    """What a run is made from: its data, and which sequences of them it learns from."""
    sequences = hashlib.sha256(np.ascontiguousarray(rows, dtype=np.int64).tobytes()).hexdigest()
    return {"manifest_sha256": manifest_sha256, "sequences_sha256": sequences}


def versions(device: str) -> dict[str, str]:
    """What a run is made with, that its numbers may depend on."""
    found = {"gaitdiff": __version__, "python": platform.python_version(), "torch": str(torch.__version__)}
    return {**found, "device": device} if device else found


def _other_versions(path: Path, before: Mapping[str, str] | None, now: Mapping[str, str]) -> list[Change]:
    """What a run goes on with that is not as before; it is said, for versions may change last digits.

    Another kind of device draws other noise.
    """
    unlike = [(name, was, now[name]) for name, was in (before or {}).items() if name in now and now[name] != was]
    if unlike:
        told = ", ".join(f"{name} {new} instead of {was}" for name, was, new in unlike)
        digits = "" if any(name == "device" for name, _, _ in unlike) else " in their last digits"
        say(f"{path} goes on with {told}: its numbers may differ{digits}")
    return [(f"made_with.{name}", was, new) for name, was, new in unlike]


def _identity(config: dict[str, Any]) -> str:
    """A digest of all that a run's numbers come from as it begins: its checkpoints carry it, too."""
    settings = {key: value for key, value in flat(config) if key not in _FREE and key.split(".")[0] not in _FREE}
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()
