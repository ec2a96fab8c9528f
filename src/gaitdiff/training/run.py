"""A run folder: resolved configuration, metrics, checkpoints; what lets the same command continue a stopped run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from gaitdiff.errors import UserError

#: Parts of a configuration that may differ when a run is continued.
_FREE = ("machine", "out")


class RunFolder:
    """One training run on disk.

    ``config.yaml`` (resolved), ``metrics.jsonl`` (one JSON object a line, each with ``step``), ``checkpoints/``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def open(cls, out: str, stage: str, config: Any) -> RunFolder:
        """Create the folder, or take up a run of the same stage and configuration.

        Raises:
            UserError: the folder holds something else, or cannot be written.
        """
        path = Path(out).resolve()
        resolved = {"stage": stage, **plain(asdict(config))}
        file = path / "config.yaml"
        try:
            if file.is_file():
                _require_same(path, yaml.safe_load(file.read_text(encoding="utf-8")), resolved)
            elif path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise UserError(f"{path} exists and is no run folder: choose another --out")
            path.mkdir(parents=True, exist_ok=True)
            draft = path / ".config.yaml.partial"
            draft.write_text(yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True), encoding="utf-8")
            os.replace(draft, file)
        except OSError as error:
            raise UserError(f"{path} cannot be written ({error.strerror}): choose another --out") from error
        return cls(path)

    @property
    def metrics_file(self) -> Path:
        """Where metrics are kept."""
        return self.path / "metrics.jsonl"

    def append(self, record: dict[str, Any]) -> None:
        """Add one line of metrics."""
        try:
            with self.metrics_file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise UserError(
                f"{self.metrics_file} cannot be written ({error.strerror}): checkpoints are untouched, mend it and "
                "start the same command again"
            ) from error

    def rewind(self, step: int) -> None:
        """Forget metrics of steps after ``step``: those will be made again."""
        kept = [json.dumps(record) + "\n" for record in read_metrics(self.path) if record["step"] <= step]
        draft = self.path / ".metrics.jsonl.partial"
        draft.write_text("".join(kept), encoding="utf-8")
        os.replace(draft, self.metrics_file)


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Lines of a run's metrics.jsonl; a last line torn by a kill is left out."""
    file = run / "metrics.jsonl"
    if not file.is_file():
        return []
    return list(_whole_lines(file.read_text(encoding="utf-8")))


def read_config(run: Path) -> dict[str, Any]:
    """A run's resolved configuration.

    Raises:
        UserError: there is none.
    """
    try:
        config: dict[str, Any] = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{run} is no run folder: it has no config.yaml") from error
    return config


def plain(value: Any) -> Any:
    """Tuples as lists, throughout: what YAML and JSON give back."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _whole_lines(text: str) -> Iterator[dict[str, Any]]:
    lines = text.split("\n")
    yield from (json.loads(line) for line in lines[:-1])  # what follows the last line break was never finished


def _require_same(path: Path, old: Any, new: dict[str, Any]) -> None:
    before, after = dict(_flat(old)), dict(_flat(new))
    for key in sorted(before.keys() | after.keys()):
        if key.split(".")[0] not in _FREE and before.get(key) != after.get(key):
            raise UserError(
                f"{path} holds a run with {key} = {before.get(key)!r}, not {after.get(key)!r}: "
                "choose another --out, or repeat its settings to continue it"
            )


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value
