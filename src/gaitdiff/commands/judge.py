"""Whether walks that were made like somebody's are recognised as theirs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gaitdiff.commands.likeness import Likeness
from gaitdiff.commands.synthetic import solid
from gaitdiff.data.clips import crop_sides
from gaitdiff.evaluation.features import extract, run_walks
from gaitdiff.evaluation.identity import Identified, identity_check
from gaitdiff.training.checkpoint import load_checkpoint, pick_features, read_checkpoint_info


@dataclass(frozen=True)
class Checked:
    """Whether new walks are recognised as those of the people that they are like.

    Attributes:
        made, real: look-ups of the new walks, and of as many frames of the walks that they are like.
        how: whose features are compared, and how.
    """

    made: Identified
    real: Identified
    how: str

    def lines(self) -> list[str]:
        """What there is to say, a line each."""
        return [
            f"looked up among {self.made.people:,} people, another real walk of each ({self.how}):",
            f"  made: {self.made}",
            f"  real, as many frames: {self.real}",
        ]


class Judge:
    """Looks new walks up among other walks of the people that they are like."""

    def __init__(self, checkpoint: Path, likeness: Likeness, frames: int, place: torch.device) -> None:
        info = read_checkpoint_info(checkpoint)
        info.require_height(likeness.store)
        self._place, self._metric = place, info.metric
        self._network, kind = pick_features(load_checkpoint(info.folder, place), "auto")
        self._gallery = extract(self._network, likeness.store, likeness.others(), place)
        real = [likeness.clip(number, "consecutive", frames) for number in range(len(likeness.rows))]
        self._real = identity_check(self._features(real), self._gallery, self._metric)
        self._made: list[np.ndarray] = []
        self._how = f"{self._metric} distance of {kind}, {info.origin}"

    def see(self, clips: list[np.ndarray]) -> None:
        """Take new walks, in the order of those that they are like."""
        self._made.append(self._features([solid(clip) for clip in clips]))

    def verdict(self) -> Checked:
        """What came out, once all have been seen."""
        return Checked(identity_check(np.concatenate(self._made), self._gallery, self._metric), self._real, self._how)

    def _features(self, walks: list[np.ndarray]) -> np.ndarray:
        """(N, C, P) float32, NaN for walks without frames."""
        found = np.full((len(walks), *self._gallery.shape[1:]), np.nan, np.float32)
        some = [number for number, walk in enumerate(walks) if len(walk)]
        if some:
            lengths = np.array([len(walks[number]) for number in some])
            given = run_walks(self._network, lengths, lambda i: crop_sides(walks[some[i]]), self._place)
            found[some] = np.asarray(given)
        return found
