"""Whom ``gaitdiff generate`` makes walks like: one walk of a store, or its test people by turns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gaitdiff.commands.compare_walks import find_walk
from gaitdiff.data.clips import pad_sides, sample_clip
from gaitdiff.data.store import SequenceStore
from gaitdiff.data.store.manifest import Row
from gaitdiff.datasets.sequences import NAMELESS
from gaitdiff.errors import UserError
from gaitdiff.evaluation.held_out import held_out_rows

_TURNS, _CLIP, _GALLERY = 0, 1, 2  # streams of random numbers


@dataclass(frozen=True)
class Likeness:
    """Walks that others are to be made like.

    Attributes:
        store: where they are.
        rows: numbers in the store, one for each new walk.
        seed: of what is drawn of them.
        whose: in words.
    """

    store: SequenceStore
    rows: tuple[int, ...]
    seed: int
    whose: str

    def row(self, number: int) -> Row:
        """The manifest's line of the walk that a new one is like."""
        return self.store.rows[self.rows[number]]

    def clip(self, number: int, sampling: str, frames: int) -> np.ndarray:
        """A clip of the walk that a new one is like, (frames, H, H) uint8: the same whenever the walk is the same."""
        row, kind = self.rows[number], (_CLIP, frames, *sampling.encode())
        index = sample_clip(sampling, self.store.rows[row].frames, frames, _random(self.seed, row, *kind))
        return pad_sides(self.store.clip(row, index))

    def others(self) -> np.ndarray:
        """Another walk of each one's person, (N,) row numbers: by another camera where there is one.

        Raises:
            UserError: somebody has no other walk.
        """
        walks = walks_of(self.store, self.store.rows[self.rows[0]].split)
        found = []
        for row in self.rows:
            mine = self.store.rows[row]
            rest = [other for other in walks[mine.subject] if other != row]
            if not rest:
                raise UserError(f"{mine.subject} has one walk in {self.store.path}: there is no other to look for")
            elsewhere = [other for other in rest if self.store.rows[other].view != mine.view]
            found.append(int(_random(self.seed, row, _GALLERY).choice(elsewhere or rest)))
        return np.array(found, dtype=np.int64)


def parse_like(like: str) -> tuple[SequenceStore, int | None]:
    """A store, and the number of a walk in it where one is named: ``STORE`` or ``STORE:ROW``.

    A path may hold colons: it is the longest one that is there.

    Raises:
        UserError: no store, or no such walk, see ``find_walk``.
    """
    cuts = [len(like), *(place for place in range(len(like) - 1, 0, -1) if like[place] == ":")]
    cut = next((place for place in cuts if Path(like[:place]).exists()), None)
    if cut is None:
        return SequenceStore(like.rpartition(":")[0] or like), None
    store = SequenceStore(like[:cut])
    return store, None if cut == len(like) else find_walk(store, like[cut + 1 :])


def like_one(store: SequenceStore, row: int, count: int, seed: int) -> Likeness:
    """One walk, ``count`` times."""
    return Likeness(store, (row,) * count, seed, f"{store.rows[row].name} of {store.path}")


def like_test_people(store: SequenceStore, count: int, seed: int) -> Likeness:
    """Test people by turns, and their walks by turns, each in an order that the seed draws.

    Raises:
        UserError: there are none.
    """
    walks = walks_of(store)
    if not walks:
        raise UserError(f"{store.path} has no test people whose names are known: give --like a walk, STORE:ROW")
    return Likeness(store, _by_turns(walks, count, seed), seed, f"the test people of {store.path}")


def like_each_once(store: SequenceStore, count: int, seed: int) -> Likeness:
    """A walk of each of ``count`` test people who have another one, too.

    Raises:
        UserError: there are fewer.
    """
    walks = {who: rows for who, rows in walks_of(store).items() if len(rows) > 1}
    if not 2 <= count <= len(walks):
        raise UserError(
            f"--count is {count}, but --check looks for so many people among each other: take from 2 to {len(walks)}, "
            f"the test people with several walks in {store.path}"
        )
    return Likeness(store, _by_turns(walks, count, seed), seed, f"the test people of {store.path}")


def walks_of(store: SequenceStore, split: str = "test") -> dict[str, list[int]]:
    """Row numbers by people of a split; those whom nobody knows are left out."""
    found: dict[str, list[int]] = {}
    for row in held_out_rows(store, split).tolist():
        if store.rows[row].subject != NAMELESS:
            found.setdefault(store.rows[row].subject, []).append(row)
    return found


def _by_turns(walks: dict[str, list[int]], count: int, seed: int) -> tuple[int, ...]:
    rng = _random(seed, _TURNS)
    people = rng.permutation(sorted(walks)).tolist()
    orders = {who: rng.permutation(walks[who]).tolist() for who in people}
    turns = ((people[number % len(people)], number // len(people)) for number in range(count))
    return tuple(orders[who][turn % len(orders[who])] for who, turn in turns)


def _random(*key: int) -> np.random.Generator:
    return np.random.default_rng(key)
