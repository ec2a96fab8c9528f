"""Dividing people into training and test, and a test person's walks into probe and gallery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gaitdiff.datasets.sequences import SourceSequence
from gaitdiff.errors import UserError, nearest, require_seed

AUTO, TRAIN, TEST, HALVES = "auto", "train", "test", "halves"
_SPLITS = (AUTO, TRAIN, TEST, HALVES)

#: With fewer people than this, "auto" leaves everybody to training.
MIN_PEOPLE = 8


def split_people(
    subjects: Sequence[str], *, split: str = AUTO, test_fraction: float | None = None, seed: int = 0
) -> list[tuple[str, str]]:
    """Give each sequence its split and role; nobody is on both sides.

    Args:
        subjects: who walks in each sequence.
        split: "auto" draws test people at random from those with several sequences; "train" and "test" put everybody
            there, and so does "halves" to test, see ``cut_in_halves``.
        test_fraction: share of all people that "auto" sends to test, 0 <= f < 1; by default 0.25 if there are
            at least eight people, else 0.
        seed: of the draw.

    Returns:
        (split, role) for each sequence: a test person with several sequences has one random "probe", all the
        others are "gallery"; the role is "" in training.

    Raises:
        UserError: an unknown split, an impossible fraction or a negative seed.
    """
    if split not in _SPLITS:
        raise UserError(f"there is no split {split!r}{nearest(split, _SPLITS)}: auto, train, test or halves")
    if test_fraction is not None and not 0 <= test_fraction < 1:
        raise UserError(f"the test fraction is {test_fraction}, but must be at least 0 and less than 1")
    require_seed(seed)
    rng = np.random.default_rng(seed)
    people = sorted(set(subjects))
    walks: dict[str, list[int]] = {person: [] for person in people}
    for number, subject in enumerate(subjects):
        walks[subject].append(number)
    result = [(TRAIN, "")] * len(subjects)
    several = [person for person in people if len(walks[person]) > 1]
    for person in _test_people(people, several, split, test_fraction, rng):
        probe = rng.choice(walks[person]) if len(walks[person]) > 1 else None
        for number in walks[person]:
            result[number] = (TEST, "probe" if number == probe else "gallery")
    return result


def why_nobody(people: int, test_fraction: float | None) -> str:
    """Why "auto" sends nobody of so many people to test, in brackets; empty where that was asked for."""
    if test_fraction == 0:
        return ""
    if test_fraction is None and people < MIN_PEOPLE:
        return f" (nobody of fewer than {MIN_PEOPLE} people: --test-fraction 0.5 chooses some, --split test all)"
    return " (nobody has several sequences: --split halves makes two of each)"


def cut_in_halves(walks: Sequence[SourceSequence]) -> list[SourceSequence]:
    """Cut each sequence into two of its name with "-1" and "-2", the first a test person's probe, the second gallery.

    So people are compared who were seen once: each one's first half is looked for among the second halves of all.

    Raises:
        UserError: a sequence is one file, or a single image, which has no halves.
    """
    found = []
    for walk in walks:
        middle = len(walk.files) // 2
        if middle == 0:
            raise UserError(
                f"--split halves cuts folders of images in two, but {walk.folder or walk.files[0]} has one file alone: "
                "leave it out, or use another --split"
            )
        for number, files, role in ((1, walk.files[:middle], "probe"), (2, walk.files[middle:], "gallery")):
            name = f"{walk.sequence}-{number}"
            found.append(replace(walk, sequence=name, files=files, split=TEST, role=role))
    return found


def _test_people(
    people: list[str], several: list[str], split: str, test_fraction: float | None, rng: np.random.Generator
) -> list[str]:
    """Who is tested; ``several`` are those of them who have a sequence to look for and others to find it among."""
    if split in (TEST, HALVES):
        return people
    if split == TRAIN:
        return []
    if test_fraction is None:
        test_fraction = 0.25 if len(people) >= MIN_PEOPLE else 0.0
    count = 0 if test_fraction == 0 else min(max(round(test_fraction * len(people)), 1), len(people) - 1)
    return [several[i] for i in sorted(rng.permutation(len(several))[:count])]
