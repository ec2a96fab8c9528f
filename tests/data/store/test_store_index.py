"""A store is asked by number, by person, by slice and by a list of numbers, and says what it has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gaitdiff.data.store import SequenceStore
from gaitdiff.errors import UserError
from noise_stores import LENGTHS, NAMES, make_frames, make_store


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> SequenceStore:
    return SequenceStore(make_store(tmp_path_factory.mktemp("index") / "store"))


@pytest.mark.parametrize(
    ("which", "rows"),
    [
        (NAMES[2], [i for i, name in enumerate(NAMES) if name == NAMES[2]]),
        (slice(1, None, 2), [1, 3]),
        (slice(-2, 99), [3, 4]),
        (slice(3, 1), []),
        ([4, -5], [4, 0]),
        ([], []),
        (np.array([2, -1]), [2, 4]),
        (np.array([], np.int64), []),
    ],
)
def test_several_come_as_a_list(opened: SequenceStore, which: Any, rows: list[int]) -> None:
    found = opened[which]
    assert isinstance(found, list)
    assert [walk.row for walk in found] == [opened.rows[i] for i in rows]
    for i, walk in zip(rows, found, strict=True):
        np.testing.assert_array_equal(walk.frames, make_frames(i, LENGTHS[i]))


@pytest.mark.parametrize("which", [3, -2, np.int32(3), np.uint8(3), np.array(3)])
def test_one_comes_alone(opened: SequenceStore, which: Any) -> None:
    np.testing.assert_array_equal(opened[which].frames, make_frames(3, LENGTHS[3]))


@pytest.mark.parametrize(
    ("which", "kind", "sentence"),
    [
        (5, IndexError, "no row 5 in .*, which has 5 sequences"),
        (np.int64(-6), IndexError, "no row -6"),
        ([0, 5], IndexError, "no row 5"),
        (NAMES[2] + "x", KeyError, f"did you mean '{NAMES[2]}'"),
        ("x" * 60_000, UserError, "there is no person 'xxx"),
        (True, TypeError, "a row number, a person's name, a slice or a list of row numbers, not True"),
        (np.array([True] * 4), TypeError, "not .*True"),
        (1.0, TypeError, r"not 1\.0"),
        (None, TypeError, "not None"),
        ((0, 1), TypeError, r"not \(0, 1\)"),
        ([[0]], TypeError, r"not \[0\]"),
        (["p1"], TypeError, "not 'p1'"),
        (np.zeros((2, 2), np.int64), TypeError, "list of row numbers"),
    ],
)
def test_anything_else_is_told(opened: SequenceStore, which: Any, kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind, match=sentence) as caught:
        opened[which]
    assert len(str(caught.value)) < 600
