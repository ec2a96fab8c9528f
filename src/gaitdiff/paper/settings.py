"""Settings on top of all runs of a grid, as ``--set`` gives them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from gaitdiff.config.flat import flat, plain
from gaitdiff.config.recipe import STAGES
from gaitdiff.config.values import settings_of
from gaitdiff.errors import UserError
from gaitdiff.paper.cells import Run

#: What each run of a grid has its own of.
_OWN = ("recipe", "out", "data.store", "seed", "machine.device", "mode", "init")
#: Settings that a run's numbers do not come from.
_FREE = (
    *("out", "machine", "data.store", "init"),
    *("run.log_every", "run.save_every", "run.keep", "run.track", "run.change"),
)
_ALIKE = ("run.", "machine.")  # groups that mean the same in both stages


def counting(config: Any) -> dict[str, Any]:
    """The settings of a stage that numbers come from, by dotted name, but for where it starts."""
    resolved = flat(plain(asdict(config)))
    return {key: value for key, value in resolved if key not in _FREE and key.split(".")[0] not in _FREE}


class Settings:
    """Settings by stage.

    Args:
        given: each as KEY=VALUE, or for a setting that both stages have as pretrain:KEY=VALUE or finetune:KEY=VALUE.

    Raises:
        UserError: there is no such setting, each run has its own of it, its stage is not told, or it is given twice.
    """

    def __init__(self, given: Sequence[str]) -> None:
        self._values: dict[str, dict[str, str]] = {stage: {} for stage in STAGES}
        for setting in given:
            key, value = split_setting(setting)
            stage, colon, name = key.partition(":")
            name = name if colon else key
            stages = [one for one in STAGES if (one == stage or not colon) and name in settings_of(STAGES[one])]
            if name in _OWN or name.split(".")[0] == "model":
                raise UserError(f"--set {key} is not free: each run has its own")
            if not stages:
                raise UserError(f"--set {key}: no stage has such a setting (gaitdiff pretrain --help lists them)")
            if len(stages) > 1 and not name.startswith(_ALIKE):
                raise UserError(f"--set {key} is of both stages: give pretrain:{key} or finetune:{key}")
            for one in stages:
                if self._values[one].setdefault(name, value) != value:
                    raise UserError(f"--set {key} is given twice, with other values: give one")

    def flags(self, stage: str) -> list[str]:
        """Those of a stage, as a command line has them."""
        return [word for key, value in self._values[stage].items() for word in (f"--{key}", value)]

    def refuse_levers(self, runs: Iterable[Run]) -> None:
        """Refuse a setting that tells some of the runs from others.

        Raises:
            UserError: there is one.
        """
        for run in runs:
            for key in self._values[run.stage]:
                if any(key == lever or key.startswith(f"{lever}.") for lever in run.levers):
                    raise UserError(f"--set {key}: {run.name} differs from other runs by it, leave it out")


def split_setting(setting: str) -> tuple[str, str]:
    """KEY=VALUE in two.

    Raises:
        UserError: it is none.
    """
    key, equals, value = setting.partition("=")
    if not equals or not key:
        raise UserError(f"--set takes KEY=VALUE, such as run.keep=1, not {setting!r}")
    return key, value
