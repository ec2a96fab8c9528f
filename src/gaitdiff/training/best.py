"""The best checkpoint of a run: by a score on validation people, or in pretraining without labels; and when to stop."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from gaitdiff.config.schema import RunConfig
from gaitdiff.errors import UserError
from gaitdiff.training.checkpoint_files import CheckpointContents, list_checkpoints, step_of, write_checkpoint
from gaitdiff.training.run_folder import read_metrics
from gaitdiff.utils.files import atomic_folder
from gaitdiff.utils.progress import say

#: Folder of the best checkpoint in a run.
BEST = "best"
#: By how much clips of different sequences lie farther apart than clips of one: AN - AP.
LABEL_FREE = "ap_an"
_REMEDY = "free some space, then start the same command again"
_SCORES = ("rank1", "rank5", "rank10", "mAP", "mINP")


def check_best(settings: RunConfig, validates: bool, kinds: Sequence[str] = ()) -> None:
    """Refuse a score that no protocol gives, and patience with nothing to go by.

    Args:
        validates: whether scores are of validation people.
        kinds: of features in pretraining, which are scored each by itself, and of which AN and AP are measured.

    Raises:
        UserError: one of these.
    """
    known = (*_SCORES, LABEL_FREE) if kinds else _SCORES
    if settings.best not in known and settings.best.rpartition("_")[::2] not in product(_SCORES, kinds):
        with_kind = f", the scores also with one of {', '.join('_' + kind for kind in kinds)}" if kinds else ""
        raise UserError(f"run.best is {settings.best!r}, but goes by one of {', '.join(known)}{with_kind}")
    if settings.patience and not _is_told(settings, validates):
        without = f", or --run.best {LABEL_FREE}" if kinds else ""
        raise UserError(
            f"run.patience is {settings.patience}, but nothing tells one checkpoint from a better one: it takes "
            f"run.evaluate_every above 0, and validation people (gaitdiff data split){without}"
        )


def _is_told(settings: RunConfig, validates: bool) -> bool:
    return settings.evaluate_every > 0 and (validates or settings.best == LABEL_FREE)


class Best:
    """Keeps ``run/best``, a checkpoint like the others.

    What is best so far is read from the run's metrics, so that a run that was stopped goes on as if it had not been.

    Args:
        run: folder of the run.
        settings: ``best`` is such as "rank1" or "mAP"; where an evaluation scores several kinds of features, the
            cosine's counts unless the kind is named too ("rank1_whitened"); or "ap_an". ``patience`` is after how many
            evaluations without a better one the run is over.
        validates: whether scores are of validation people.
        main: whether this is the process that writes.
    """

    def __init__(self, run: Path, settings: RunConfig, validates: bool, main: bool) -> None:
        self._run, self._score, self._patience = run, settings.best, settings.patience
        self._wanted = main and _is_told(settings, validates)
        self._highest, self._since, self._step, self._last = float("-inf"), 0, 0, 0
        measured = "pairs" if self._score == LABEL_FREE else "evaluation"
        for record in read_metrics(run) if self._wanted else []:
            if record["step"] > 0 and measured in record:
                self._take(record)
        if self._wanted:
            self._find()

    def check(self, record: Mapping[str, Any]) -> None:
        """Refuse a score that is not among those of an evaluation, the first one, which nothing has been trained for.

        Raises:
            UserError: it is not.
        """
        if self._wanted:
            self._of(record)

    def look(self, record: Mapping[str, Any], contents: Callable[[], CheckpointContents]) -> None:
        """Put the checkpoint of a step in place of the best so far, where it is better than all before.

        Args:
            record: what was measured at the step, as in the run's metrics.
        """
        if not self._wanted or not self._take(record):
            return
        write_checkpoint(self._run / BEST, *contents(), _REMEDY, replaces=True)
        shown = f"{self._highest:.4f}" if self._score == LABEL_FREE else f"{self._highest:.1f} on validation people"
        say(f"{self._run.name}: step {self._step} is the best so far, {self._score} {shown}")

    @property
    def over(self) -> bool:
        """Whether the run has been evaluated ``patience`` times without a better one."""
        return 0 < self._patience <= self._since

    def tell(self, iterations: int) -> None:
        """Say why a run ends before its last step, if it does."""
        if self.over and self._last < iterations:
            say(
                f"{self._run.name} ends after step {self._last} of {iterations}: {self._since} evaluations were no "
                f"better than that of step {self._step}, kept in {self._run / BEST}; a larger --run.patience goes on"
            )

    def _find(self) -> None:
        """See to it that the best checkpoint so far is the one that is kept, whatever was best by other settings."""
        kept = step_of(self._run / BEST)
        if self._step in (0, kept) or (kept or 0) > self._last:  # one ahead: it was killed then, and comes there again
            return
        if checkpoint := [path for path in list_checkpoints(self._run) if step_of(path) == self._step]:
            with atomic_folder(self._run / BEST, _REMEDY, replaces=True) as draft:
                shutil.copytree(checkpoint[0], draft, dirs_exist_ok=True)
            return
        say(
            f"{self._run.name}: step {self._step} was the best so far by {self._score}, but its checkpoint is not "
            "there: the next that is scored takes its place"
        )
        self._highest, self._since = float("-inf"), 0

    def _take(self, record: Mapping[str, Any]) -> bool:
        """Count an evaluation; whether it is the best so far."""
        value, self._last = self._of(record), record["step"]
        better = value > self._highest
        if better:
            self._highest, self._step = value, self._last
        self._since = 0 if better else self._since + 1
        return better

    def _of(self, record: Mapping[str, Any]) -> float:
        if self._score == LABEL_FREE:
            value = record.get("pairs", {}).get(LABEL_FREE)
            return float("-inf") if value is None or math.isnan(value) else value
        scores: Mapping[str, float] = record.get("evaluation", {})
        for key in (self._score, f"{self._score}_cosine"):
            if key in scores:
                return scores[key]
        raise UserError(f"run.best is {self._score!r}, but the scores of {self._run} are {', '.join(scores)}")
