"""Whom walks are made like, and whom they are looked up among."""

from __future__ import annotations

from pathlib import Path

import pytest

from gaitdiff.commands.likeness import like_each_once, like_test_people, parse_like
from gaitdiff.data.store import SequenceStore
from gaitdiff.errors import UserError
from named_stores import named_store


def test_who_is_looked_for_stands_elsewhere(tmp_path: Path) -> None:
    names = [(who, "nm", view, "test", "") for who in ("a", "b") for view in ("c0", "c0", "c1")]
    opened = SequenceStore(named_store(tmp_path / "s", [*names, ("c", "nm", "c0", "test", "")]))
    for seed in range(8):
        found = like_each_once(opened, 2, seed)
        assert {found.row(number).subject for number in range(2)} == {"a", "b"}
        for row, other in zip(found.rows, found.others().tolist(), strict=True):
            mine, its = opened.rows[row], opened.rows[other]
            assert row != other
            assert its.subject == mine.subject
            assert its.view != mine.view
        assert found.rows == like_each_once(opened, 2, seed).rows
    assert len({like_test_people(opened, 6, seed).rows for seed in range(8)}) > 1
    rows = like_test_people(opened, 9, 0).rows
    assert sorted(rows) == [*range(6), 6, 6, 6]  # each person's walks in turn
    assert len({opened.rows[row].subject for row in rows[:3]}) == 3


def test_a_store_and_a_walk_in_one_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("s", "s:1", "s:1:x"):
        named_store(tmp_path / name, [("1", "x:y", "", "test", ""), ("2", "", "", "test", "")])
    monkeypatch.chdir(tmp_path)
    for word, folder, row in (
        ("s", "s", None),
        ("s:0", "s", 0),
        ("s:1", "s:1", None),
        ("s:1:1", "s:1", 1),
        ("s:1:x", "s:1:x", None),
        ("s:1:x:0", "s:1:x", 0),
        ("s:1/x:y/s0", "s", 0),
        (f"{tmp_path}/s:1:2/s1", "s:1", 1),
    ):
        found, number = parse_like(word)
        assert (found.path.name, number) == (folder, row), word
    for word, sentence in ((":0", "no store at .*:0"), ("none:3", "no store at .*none:"), ("s:", "no sequence ''")):
        with pytest.raises(UserError, match=sentence):
            parse_like(word)
