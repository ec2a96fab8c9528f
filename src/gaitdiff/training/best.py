"""The best checkpoint of a run, by a score on validation people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from gaitdiff.errors import UserError
from gaitdiff.training.checkpoint_files import CheckpointContents, write_checkpoint
from gaitdiff.training.run_folder import read_metrics
from gaitdiff.utils.progress import say

#: Folder of the best checkpoint in a run.
BEST = "best"
_SCORES = ("rank1", "rank5", "rank10", "mAP", "mINP")


class Best:
    """Keeps ``run/best``, a checkpoint like the others.

    What is best so far is read from the run's metrics, so that a run that was stopped goes on as if it had not been.

    Args:
        run: folder of the run.
        score: such as "rank1" or "mAP"; where an evaluation tells several kinds of features apart, the cosine's counts
            unless the kind is named too ("rank1_whitened").
        wanted: whether any is kept at all.
    """

    def __init__(self, run: Path, score: str, wanted: bool = True) -> None:
        if score.partition("_")[0] not in _SCORES:
            raise UserError(f"run.best is {score!r}, but goes by one of {', '.join(_SCORES)}")
        self._run, self._score, self._wanted = run, score, wanted
        records = read_metrics(run) if wanted else []
        seen = [self._of(record["evaluation"]) for record in records if record["step"] > 0 and "evaluation" in record]
        self._highest = max(seen, default=float("-inf"))

    def look(self, scores: Mapping[str, float], step: int, contents: Callable[[], CheckpointContents]) -> None:
        """Put the checkpoint of a step in place of the best so far, where its scores are better than all before."""
        if not self._wanted or self._of(scores) <= self._highest:
            return
        self._highest = self._of(scores)
        write_checkpoint(self._run / BEST, *contents(), "free some space, then start the same command again")
        say(f"{self._run.name}: step {step} is the best so far, {self._score} {self._highest:.1f} on validation people")

    def _of(self, scores: Mapping[str, float]) -> float:
        for key in (self._score, f"{self._score}_cosine"):
            if key in scores:
                return scores[key]
        raise UserError(f"run.best is {self._score!r}, but the scores of {self._run} are {', '.join(scores)}")
