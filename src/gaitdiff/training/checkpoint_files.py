"""Checkpoint folders: safetensors and JSON that appear whole or not at all, with a digest of every file.

``SHA256SUMS`` in a checkpoint is what ``sha256sum --check`` reads. It is checked before anything is used.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from gaitdiff.config.safe_yaml import read_mapping
from gaitdiff.errors import UserError, nearest, shown
from gaitdiff.models import list_pretrained
from gaitdiff.models.pretrained import pretrained_folder
from gaitdiff.utils.files import atomic_folder, json_object, parse_json, require_regular, write_whole
from gaitdiff.utils.progress import say

#: Tensors by name by file stem, and what JSON can hold by file stem.
CheckpointContents: TypeAlias = tuple[Mapping[str, Mapping[str, Tensor]], Mapping[str, Any]]

CHECKPOINTS, _PREFIX = "checkpoints", "step-"
#: File of a run that has had a checkpoint.
_SAVED = ".saved"
_NAME = re.compile(rf"{_PREFIX}\d{{8,}}")
_SUMS, _SUM = "SHA256SUMS", re.compile(r"([0-9a-f]{64})  ([\w.-]+)")
_OLDER = "remove the folder {name} to go on from an older checkpoint"


def save_checkpoint(
    run: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], documents: Mapping[str, Any], keep: int
) -> Path:
    """Write ``run/checkpoints/step-…`` atomically, then remove all but the ``keep`` newest.

    Args:
        tensors: file stem → tensors by name, written as ``<stem>.safetensors``.
        documents: file stem → what JSON can hold, written as ``<stem>.json``.

    Raises:
        UserError: it cannot be written (a full disk, say); older checkpoints are untouched.
    """
    final = run / CHECKPOINTS / f"{_PREFIX}{step:08d}"
    remedy = "the older ones are untouched, free some space or fix the folder, then start the same command again"
    write_checkpoint(final, tensors, documents, remedy, replaces=True)
    mark_saved(run)
    there = list_checkpoints(run)
    older = there[: there.index(final)]  # a newer one is damaged, else the run would have gone on from it
    for old in older[: max(0, len(older) + 1 - keep)] if keep > 0 else []:
        shutil.rmtree(old, ignore_errors=True)
    return final


def mark_saved(run: Path) -> None:
    """Let a run that has a checkpoint remember it, so that it never begins anew."""
    if not (run / _SAVED).exists():
        write_whole(run / _SAVED, b"", "free some space, then start the same command again")


def refuse_lost(run: Path) -> None:
    """Refuse to begin anew where a run had checkpoints, which may lie on a disk that is not there.

    Raises:
        UserError: it had some.
    """
    if (run / _SAVED).exists():
        raise UserError(f"{run} had checkpoints, and has none now: bring {CHECKPOINTS} back, or choose another --out")


def write_checkpoint(
    folder: Path,
    tensors: Mapping[str, Mapping[str, Tensor]],
    documents: Mapping[str, Any],
    remedy: str = "choose another --out",
    *,
    replaces: bool = False,
) -> None:
    """Write one checkpoint, which appears whole or not at all; see ``save_checkpoint``.

    Args:
        replaces: whether a folder that stands there makes room.

    Raises:
        UserError: it cannot be written; the sentence ends with ``remedy``.
    """
    with atomic_folder(folder, remedy, replaces=replaces) as draft:
        sums = []
        for name, data in _contents(tensors, documents):
            (draft / name).write_bytes(data)
            sums.append(f"{hashlib.sha256(data).hexdigest()}  {name}\n")
        (draft / _SUMS).write_text("".join(sums), encoding="utf-8")


def _contents(tensors: Mapping[str, Mapping[str, Tensor]], documents: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    for stem, named in tensors.items():
        yield f"{stem}.safetensors", save({key: value.detach().cpu().contiguous() for key, value in named.items()})
    for stem, document in documents.items():
        yield f"{stem}.json", json.dumps(document, indent=1).encode()


def list_checkpoints(run: Path) -> list[Path]:
    """Checkpoints of a run, oldest first: folders called "step-" and at least eight digits.

    Raises:
        UserError: their folder is there and cannot be listed.
    """
    folder = run / CHECKPOINTS
    try:
        with os.scandir(folder) as entries:
            found = [Path(entry.path) for entry in entries if _NAME.fullmatch(entry.name) and entry.is_dir()]
    except OSError as error:
        if not os.path.lexists(folder):
            return []
        raise UserError(f"{folder} cannot be listed ({error.strerror}): mend it, or choose another --out") from error
    return sorted(found, key=lambda path: int(path.name[len(_PREFIX) :]))


def backbone_sha256(checkpoint: Path) -> str:
    """Digest of a checkpoint's backbone, by which two that lay at one path are told apart."""
    return hashlib.sha256(require_regular(checkpoint / "backbone.safetensors").read_bytes()).hexdigest()


def latest_checkpoint(path: Path, model: str = "") -> Path:
    """The checkpoint that ``path`` names: itself, the newest whole one of a run folder, or weights that ship.

    These are named as "walkers", which are SMPLGait w/o 3D's, or as "walkers/gaitgl"; a run or a checkpoint under this
    path comes first. A damaged checkpoint is passed over with a sentence where there is an older one.

    Args:
        model: whose weights that ship are meant, if there are some of it and ``path`` does not say.

    Raises:
        UserError: there is none, or none that is whole.
    """
    name, *rest = path.parts or ("",)
    shipped = list_pretrained()
    if name in {one for one, _ in shipped} and not any(map(_is_trained, (path, *path.parents[:-1]))):
        return pretrained_folder(name, "/".join(rest) or (model if (name, model) in shipped else ""))
    if (path / "model.json").is_file():
        if reason := find_damage(path):
            raise UserError(f"{path} is damaged ({reason}): give another checkpoint")
        return path
    found = list_checkpoints(path)
    if not found:
        raise UserError(f"{path} {_no_checkpoint(path)}")
    reason, run = "", _identity(path)
    for checkpoint in reversed(found):
        if reason:
            say(f"{path}: {reason}; taking {checkpoint.name}")
        wrong = find_damage(checkpoint) or _misplaced(checkpoint, run)
        if not wrong:
            return checkpoint
        reason = f"{checkpoint.name} cannot be used ({wrong})"
    raise UserError(f"{path} has no checkpoint that is whole, {reason}: bring it back, or choose another --out")


def _is_trained(folder: Path) -> bool:
    """Whether a folder is a run or a checkpoint, also a damaged one, and not one of data, say."""
    names = (CHECKPOINTS, "config.yaml", "model.json", "state.json", "backbone.safetensors")
    return any(os.path.lexists(folder / name) for name in names)


def _no_checkpoint(path: Path) -> str:
    shipped = [name for name, _ in list_pretrained()]
    names = ", ".join(dict.fromkeys(shipped))
    give = f"give a run folder of gaitdiff pretrain or finetune, or weights that ship ({names})"
    if CHECKPOINTS in path.parts[-2:]:
        run = path.parent if path.name == CHECKPOINTS else path.parent.parent
        if there := ", ".join(checkpoint.name for checkpoint in list_checkpoints(run)):
            several = path.name == CHECKPOINTS
            what = "holds checkpoints" if several else "is none of the checkpoints that are kept (run.keep)"
            return f"{what}: give {run}, or one of {there} in it"
    if not os.path.lexists(path):
        if list_checkpoints(path.parent):
            return f"does not exist: give {path.parent}"
        return f"does not exist{nearest(str(path), shipped)}: {give}"
    if path.suffix.lower() in (".pt", ".pth", ".safetensors") and path.is_file():
        make = f"gaitdiff import-opengait {shlex.quote(str(path))} --model MODEL --out FOLDER"
        return f"is a file, not a checkpoint's folder (`{make}` makes one of a file of OpenGait): {give}"
    return f"holds no checkpoint: {give}" if path.is_dir() else f"is a file, not a checkpoint's folder: {give}"


def find_damage(checkpoint: Path) -> str:
    """Compare a checkpoint's files with their digests.

    Returns:
        What is wrong, in a few words that name the file; nothing for one that is whole, or older than digests.

    Raises:
        UserError: a file may not be read.
    """
    sums = checkpoint / _SUMS
    try:
        if sums.name not in os.listdir(checkpoint):
            return ""
        text = require_regular(sums).read_text(encoding="ascii")
        lines = [_SUM.fullmatch(line) for line in text.split("\n")[:-1]]
        if not text.endswith("\n") or not all(lines):
            return f"{_SUMS} is no list of digests"
        digests = {line[2]: line[1] for line in lines if line}
        for file in dict.fromkeys((*digests, *(file.name for file in checkpoint.iterdir()))):
            if (
                file in digests
                and hashlib.sha256(require_regular(checkpoint / file).read_bytes()).hexdigest() != digests[file]
            ):
                return f"{file} is not what was written"
            if file not in digests and Path(file).suffix in (".safetensors", ".json"):
                return f"{_SUMS} does not know {file}"
    except PermissionError as error:
        raise UserError(f"{error.filename} cannot be read ({error.strerror}): mend that") from error
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    except ValueError:
        return f"{_SUMS} is no list of digests"
    return ""


def step_of(checkpoint: Path) -> int | None:
    """The step that a checkpoint says it is of; None where it says none, or is not there."""
    step = _state(checkpoint).get("step")
    return step if type(step) is int else None


def _misplaced(checkpoint: Path, run: str) -> str:
    """Why a checkpoint is not one of this run and of the step in its name, as this version writes it."""
    state, step = _state(checkpoint), int(checkpoint.name[len(_PREFIX) :])
    if state.get("step", step) != step:
        return f"it is of step {shown(state['step'])}"
    if run and state.get("run", run) != run:
        return "it is of another run"
    return f"{_SUMS} is not there" if "run" in state and not (checkpoint / _SUMS).exists() else ""


def _state(checkpoint: Path) -> dict[str, Any]:
    try:
        return json_object(checkpoint / "state.json")
    except (OSError, ValueError):  # who needs it says so
        return {}


def _identity(run: Path) -> str:
    """What the checkpoints of a run folder say they are of; nothing for one begun before they did."""
    try:
        return str(read_mapping(run / "config.yaml").get("identity", ""))
    except (OSError, ValueError):
        return ""


def read_tensors(checkpoint: Path, stem: str) -> dict[str, Tensor]:
    """Tensors of one file of a checkpoint.

    Raises:
        UserError: missing or corrupt.
    """
    path = tensor_file(checkpoint, stem)
    try:
        return load_file(require_regular(path))
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read ({_reason(error)}): {_OLDER.format(name=checkpoint.name)}") from error


def read_document(checkpoint: Path, stem: str, keys: Sequence[str]) -> dict[str, Any]:
    """One JSON document of a checkpoint.

    Raises:
        UserError: missing, corrupt, or without one of ``keys``.
    """
    path = checkpoint / f"{stem}.json"
    try:
        document: dict[str, Any] = parse_json(require_regular(path).read_text(encoding="utf-8"))
        missing = [key for key in keys if key not in document]
        if missing:
            raise ValueError(f"it lacks {missing[0]!r}")
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({_reason(error)}): {_OLDER.format(name=checkpoint.name)}") from error
    return document


@dataclass(frozen=True)
class TrainingState:
    """Where a run stands at a checkpoint.

    Attributes:
        step: how many it has taken.
        pending: losses of steps that no line of metrics tells of yet.
        lines: how many lines of metrics there were; 0 where that was not told yet.
    """

    step: int
    pending: tuple[float, ...]
    lines: int


def read_state(checkpoint: Path) -> TrainingState:
    """A checkpoint's ``state.json``, as far as the training loop needs it.

    Raises:
        UserError: missing, corrupt, or of another step than its folder's name says.
    """
    state = read_document(checkpoint, "state", ("step", "pending"))
    step, pending, lines = state["step"], state["pending"], state.get("lines", 0)
    named = int(checkpoint.name[len(_PREFIX) :]) if _NAME.fullmatch(checkpoint.name) else step
    good = type(step) is int and step == named and type(lines) is int and lines >= 0 and isinstance(pending, list)
    if not good or not all(type(loss) is float and math.isfinite(loss) for loss in pending):
        raise UserError(f"{checkpoint / 'state.json'} is damaged: {_OLDER.format(name=checkpoint.name)}")
    return TrainingState(step, tuple(pending), lines)


def tensor_file(checkpoint: Path, stem: str) -> Path:
    """Where a checkpoint keeps a file of tensors."""
    return checkpoint / f"{stem}.safetensors"


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).strip().rstrip(".")
