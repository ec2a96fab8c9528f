"""Training people are set aside for validation, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gaitdiff.cli import main
from gaitdiff.data.split import split_store
from gaitdiff.data.store import SequenceStore
from gaitdiff.errors import UserError
from worlds import make_store


def test_some_training_people_are_set_aside(tmp_path: Path) -> None:
    source = SequenceStore(make_store(tmp_path / "store", people=9, test_people=3))
    made = SequenceStore(split_store(source.path, tmp_path / "new", 2, seed=1))
    assert made.header.manifest_sha256 != source.header.manifest_sha256
    people = {split: {made.rows[i].subject for i in made.select(split=split)} for split in ("train", "val", "test")}
    assert [len(people[split]) for split in ("train", "val", "test")] == [4, 2, 3]
    assert not people["train"] & people["val"]
    for person in people["val"]:
        roles = [made.rows[i].role for i in made.select(split="val") if made.rows[i].subject == person]
        assert roles.count("probe") == 1
        assert roles.count("gallery") == len(roles) - 1 > 0
    for before, after, row in zip(source, made, source.rows, strict=True):
        assert np.array_equal(before.frames, after.frames)
        if row.split == "test":
            assert after.row == row
    assert (tmp_path / "new" / "frames.bin").samefile(source.path / "frames.bin")
    again = SequenceStore(split_store(source.path, tmp_path / "again", 2, seed=1))
    other = SequenceStore(split_store(source.path, tmp_path / "other", 2, seed=2))
    assert again.rows == made.rows
    assert other.rows != made.rows
    made.verify()


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_store(tmp_path / "store", people=7, test_people=3)
    for people in (1, 4, 99):
        with pytest.raises(UserError, match="--val-people takes from 2 to 3"):
            split_store(store, tmp_path / "new", people)
    with pytest.raises(UserError, match="must not be negative"):
        split_store(store, tmp_path / "new", 2, seed=-1)
    assert main(["data", "split", str(store), "--val-people", "2", "--out", str(tmp_path / "new")]) == 0
    with pytest.raises(UserError, match="has validation people already"):
        split_store(tmp_path / "new", tmp_path / "next", 2)
    assert main(["data", "split", str(store), "--val-people", "2", "--out", str(tmp_path / "new")]) == 2
    assert "exists already" in capsys.readouterr().err
