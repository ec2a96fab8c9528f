"""Where a run's metrics go besides ``metrics.jsonl``: to a tracker, by the name in ``run.track``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor
from torch.nn import functional

from gaitdiff.errors import UserError


class Logger(Protocol):
    """Takes what a run measures; made with (run folder, step that the run goes on from, lines of metrics before)."""

    def log(self, record: Mapping[str, Any]) -> None:
        """Take a line of ``metrics.jsonl``: ``step`` and numbers, lists and mappings of them, strings."""

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Take pictures (H, W), uint8, by name."""

    def close(self) -> None:
        """Write what has not been written yet."""


class TensorBoard:
    """Event files in ``tensorboard/`` of the run folder: scalars, pictures, and what scores are scores of as text."""

    def __init__(self, folder: Path, step: int, before: Sequence[Mapping[str, Any]]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        events = folder / "tensorboard"
        late = not events.exists()
        # What a stopped run left of steps after its last checkpoint, step 0 of one without any too, is told to be void.
        first = step + 1 if step else 0
        self._writer: Any = SummaryWriter(events, purge_step=first)
        for record in before if late else ():
            self.log(record)

    def log(self, record: Mapping[str, Any]) -> None:
        """Write each number under its dotted name with slashes, each string as text."""
        step = record["step"]
        for name, value in _flat({key: value for key, value in record.items() if key != "step"}):
            if isinstance(value, str):
                self._writer.add_text(name, value, step)
            else:
                self._writer.add_scalar(name, float(value), step)
        self._writer.flush()  # a run that is killed has lost none of what its checkpoint stands for

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Write each picture."""
        for name, image in images.items():
            self._writer.add_image(name, image, step, dataformats="HW")

    def close(self) -> None:
        """Write what has not been written yet."""
        self._writer.close()


class Trackio:
    """A run of the project "gaitdiff" on this machine, named by the run folder and the one around it.

    What is measured again after a kill stands there twice, with the same numbers: trackio takes nothing back.
    """

    def __init__(self, folder: Path, step: int, before: Sequence[Mapping[str, Any]]) -> None:
        import trackio

        self._image, self._finish = trackio.Image, trackio.finish
        name = "-".join(folder.resolve().parts[-2:])
        start = partial(trackio.init, "gaitdiff", name, embed=False, auto_log_cpu=False, auto_log_gpu=False)
        with redirect_stdout(sys.stderr):  # what it says is no result of the run
            try:
                self._run = start(resume="must" if step else "never")
                before = ()
            except ValueError:  # it tracks from here on
                self._run = start(resume="never")
        for record in before:
            self.log(record)

    def log(self, record: Mapping[str, Any]) -> None:
        """Log each number and string under its dotted name with slashes."""
        values = dict(_flat({key: value for key, value in record.items() if key != "step"}))
        self._run.log(values, step=record["step"])

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Log each picture."""
        pictures = {name: self._image(np.repeat(image[:, :, None], 3, axis=2)) for name, image in images.items()}
        self._run.log(pictures, step=step)

    def close(self) -> None:
        """Send what has not been sent yet."""
        with redirect_stdout(sys.stderr):
            self._finish()


#: Trackers by name.
LOGGERS: dict[str, Callable[[Path, int, Sequence[Mapping[str, Any]]], Logger]] = {
    "tensorboard": TensorBoard,
    "trackio": Trackio,
}
#: What those that come with gaitdiff need.
_MODULES = {"tensorboard": "torch.utils.tensorboard", "trackio": "trackio"}


def check_tracker(track: str) -> None:
    """Refuse a tracker before anything is written.

    Raises:
        UserError: an unknown name, or a package is missing.
    """
    if track == "none":
        return
    if track not in LOGGERS:
        raise UserError(f"run.track is {track!r}: choose none or one of {', '.join(sorted(LOGGERS))}")
    if module := _MODULES.get(track):
        try:
            import_module(module)
        except ImportError as error:
            raise UserError(f"run.track is {track}, which is not installed: pip install {track}") from error


def open_loggers(track: str, folder: Path, step: int, before: Sequence[Mapping[str, Any]]) -> list[Logger]:
    """The trackers of a run that goes on from ``step`` and has logged ``before``; none for "none".

    Args:
        track: what ``check_tracker`` has let pass.
    """
    return [] if track == "none" else [LOGGERS[track](folder, step, before)]


def side_by_side(clip: Tensor, gap: int = 2) -> np.ndarray:
    """Frames (T, H, W) in 0..1 as one picture (H, T (W + gap)), uint8."""
    frames = clip.detach().float().clamp(0, 1).mul(255).round().byte().cpu()
    return functional.pad(frames, (0, gap)).permute(1, 0, 2).flatten(1).numpy()


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Numbers and strings by name with slashes; a mapping's keys and a list's places are names."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{name}/{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from _flat(item, f"{name}/{place}")
    elif value is not None:
        yield name, value
