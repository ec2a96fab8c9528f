"""What a run costs is told before it is begun."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest

from gaitdiff.training.cost import kept_checkpoints

CASES = [*itertools.product((1, 10, 11), (1, 5, 1000), (0, 1, 2))]


@pytest.mark.parametrize(("iterations", "save_every", "keep"), CASES)
def test_checkpoints_that_stay_are_counted_right(iterations: int, save_every: int, keep: int) -> None:
    saved = [step for step in range(1, iterations + 1) if step % save_every == 0 or step == iterations]
    config = SimpleNamespace(
        optim=SimpleNamespace(iterations=iterations), run=SimpleNamespace(save_every=save_every, keep=keep)
    )
    assert kept_checkpoints(config) == len(saved[-keep:] if keep else saved)
