"""``gaitdiff compare-walks``: how alike two walks are, and how alike those of one person and of others are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gaitdiff.data.store import SequenceStore
from gaitdiff.datasets.sequences import NAMELESS
from gaitdiff.errors import UserError, nearest
from gaitdiff.evaluation.features import extract
from gaitdiff.evaluation.walks import similarity
from gaitdiff.training.checkpoint import load_checkpoint, pick_features, read_checkpoint_info
from gaitdiff.training.device import device_for
from gaitdiff.utils.files import json_object, require_output, write_json

#: How many people the pairs are made of, and how many walks of each, at most: some 8,000 pairs.
PEOPLE, WALKS = 32, 4

#: Letters of a mistyped name that a message shows.
_LETTERS = 200


@dataclass(frozen=True)
class Comparison:
    """Two walks beside pairs of others.

    Attributes:
        names: of the two.
        similarity: of the two, see ``gaitdiff.similarity``.
        same, different: similarities of pairs of one person and of two, (n,) and (m,), without the two.
        how: distance and features, in words.
        where: whom the pairs are of, in words.
    """

    names: tuple[str, str]
    similarity: float
    same: np.ndarray
    different: np.ndarray
    how: str
    where: str

    def lines(self) -> list[str]:
        """What there is to say, a line each."""
        return [
            " and ".join(self.names),
            f"similarity {self.similarity:.4f}, distance {round(1 - self.similarity, 4) + 0.0:.4f} ({self.how})",
            f"as similar or more, among {self.where}:",
            f"  {self._share(self.different)} of different people",
            f"  {self._share(self.same)} of one person",
        ]

    def document(self) -> dict[str, Any]:
        """The same as JSON can hold it, with all similarities of pairs, ascending."""
        return {
            "walks": self.names,
            "similarity": self.similarity,
            "how": self.how,
            "pairs of": self.where,
            "one person": np.sort(self.same).astype(float).tolist(),
            "different people": np.sort(self.different).astype(float).tolist(),
        }

    def _share(self, pairs: np.ndarray) -> str:
        if len(pairs) == 0:
            return "there are no pairs"
        share = 100 * float((pairs >= self.similarity).mean())
        return f"{share:.1f} % (median similarity {np.median(pairs):.4f}) of {len(pairs):,} pairs"


def compare_walks(
    checkpoint: Path,
    data: Path,
    one: str,
    other: str,
    *,
    features: str = "auto",
    metric: str | None = None,
    resize: bool = False,
    device: str = "auto",
    json_file: Path | None = None,
) -> Comparison:
    """Compare two walks of a store, and pairs of its other walks: of both walks' split, or of all where they differ.

    Args:
        one, other: row numbers, or names as ``find_walk`` takes them.
        features: see ``gaitdiff.training.checkpoint.pick_features``.
        metric: ``"cosine"`` or ``"euclidean"``; None: the distance that the checkpoint was trained with, or cosine.
        resize: convert frames of another height than the checkpoint's.
        json_file: where all numbers are written too.

    Raises:
        UserError: no such walk, no checkpoint, features that it does not have, frames of another height; the file
            cannot be written.
    """
    if json_file is not None:
        require_output(json_file, "--json", lambda path: "similarity" in json_object(path))
    place = device_for(device)
    info, store = read_checkpoint_info(checkpoint), SequenceStore(data)
    info.require_features(features)
    info.require_height(store, resize)
    pair = [find_walk(store, name) for name in (one, other)]
    splits = {store.rows[i].split for i in pair}
    split = splits.pop() if len(splits) == 1 else None
    drawn = draw_rows(store, split)
    rows, places = np.unique([*pair, *drawn], return_inverse=True)
    network, kind = pick_features(load_checkpoint(info.folder, place), features)
    found = extract(network, store, rows, place, height=info.height if resize else None)
    metric = metric or info.metric
    alike = similarity(found, found, metric).numpy()
    first, second = np.triu_indices(len(rows), 1)
    counted = np.isin(np.arange(len(rows)), places[2:])
    keep = counted[first] & counted[second] & ~(np.isin(first, places[:2]) & np.isin(second, places[:2]))
    first, second = first[keep], second[keep]
    people = np.array([store.rows[int(row)].subject for row in rows])
    same = people[first] == people[second]
    near = alike[first, second]
    where = f"{len(set(people[counted]))} people of {'the whole store' if split is None else f'the {split} split'}"
    names = store.rows[pair[0]].name, store.rows[pair[1]].name
    two = float(alike[places[0], places[1]])
    result = Comparison(names, two, near[same], near[~same], f"{metric} distance of {kind}", where)
    if json_file is not None:
        write_json(json_file, result.document(), "choose another --json")
    return result


def find_walk(store: SequenceStore, name: str) -> int:
    """A walk's row number, from that number or from its name.

    Args:
        name: subject/condition/view/sequence as the manifest has them; empty ones may be left out.

    Raises:
        UserError: there is none, or several; the sentence names the nearest.
    """
    named = name.startswith("0") and name != "0" and any(row.subject == name for row in store.rows)
    if name.isascii() and name.isdigit() and not named:  # 01 is a person where one is called so, 1 is a row
        number = int(name[:20])
        if number >= len(store):
            raise UserError(f"there is no row {name[:20]} in {store.path}, which has {len(store)} sequences, from 0 on")
        return number
    found = [i for i, row in enumerate(store.rows) if name in (row.name, "/".join(row.key))]
    exact = [i for i in found if name == "/".join(store.rows[i].key)]
    if len(found) > 1 and len(exact) != 1:
        numbers = " or ".join(map(str, found[:4]))
        raise UserError(f"{len(found)} sequences of {store.path} are called {name!r}: give a row number, {numbers}")
    if found:
        return (exact or found)[0]
    short = name[:_LETTERS]
    if walks := [row.name for row in store.rows if row.subject == name]:
        several = f"{len(walks)} sequences, such as {walks[0]}" if len(walks) > 1 else f"one sequence, {walks[0]}"
        raise UserError(f"{short!r} is a person of {store.path} with {several}: name a sequence")
    person = [row.name for row in store.rows if short.startswith(f"{row.subject}/")]
    people = sorted({row.subject for row in store.rows})
    hint = nearest(short, person, 0) if person else nearest(short.partition("/")[0], people)
    raise UserError(
        f"there is no sequence {short!r} in {store.path}{hint}: give its row number, from 0 to {len(store) - 1}, or "
        "subject/condition/view/sequence as in its manifest.csv"
    )


def draw_rows(store: SequenceStore, split: str | None) -> list[int]:
    """Some walks of some people that are known, always the same: at most ``WALKS`` of each of ``PEOPLE``."""
    walks: dict[str, list[int]] = {}
    for row in store.select(split).tolist():
        if store.rows[row].subject != NAMELESS:
            walks.setdefault(store.rows[row].subject, []).append(row)
    rng = np.random.default_rng(0)
    people = rng.permutation(sorted(walks))[:PEOPLE].tolist()
    return [int(row) for person in people for row in rng.permutation(walks[person])[:WALKS]]
