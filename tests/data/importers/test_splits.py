"""Who is tested when no partition says it, and why nobody is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gaitdiff.data.importers import import_data
from gaitdiff.data.importers.splits import split_people
from masks import Tree, make_folder, walk


def test_split_rules() -> None:
    people = [f"p{i}" for i in range(20) for _ in range(2)]

    def tested(**options: object) -> set[str]:
        drawn = split_people(people, **options)  # type: ignore[arg-type]
        return {name for name, (split, _) in zip(people, drawn, strict=True) if split == "test"}

    assert tested(seed=1) == tested(seed=1)
    assert len({frozenset(tested(seed=seed)) for seed in range(5)}) > 1
    assert [len(tested(test_fraction=f)) for f in (0, 0.01, 0.5, 0.99)] == [0, 1, 10, 19]
    assert len(tested()) == 5
    assert tested(split="test") == set(people)
    assert tested(split="train") == set()
    assert split_people(["a", "b"]) == [("train", ""), ("train", "")]  # too few people to hold some out
    assert split_people(["a"], test_fraction=0.9) == [("train", "")]  # nobody is left alone in training
    assert split_people(["a"], split="test") == [("test", "gallery")]


@pytest.mark.parametrize(
    ("people", "walks", "options", "why"),
    [
        (2, 2, {}, "0 are tested (nobody of fewer than 8 people: --test-fraction 0.5 chooses some"),
        (9, 1, {}, "0 are tested (nobody has several sequences: --split halves"),
        (2, 2, {"split": "train"}, "0 are tested"),
        (2, 2, {"test_fraction": 0.0}, "0 are tested"),
    ],
)
def test_nobody_is_tested_for_a_reason(
    people: int, walks: int, options: dict[str, Any], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree: Tree = {}
    for who in range(people):
        for number in range(walks):
            tree |= walk(f"p{who}/w{number}")
    import_data(make_folder(tmp_path / "tree", tree), tmp_path / "store", layout="subject/sequence", **options)
    said = " ".join("".join(capsys.readouterr()).split())
    assert why in said
    assert ("(nobody" in said) == why.endswith(("some", "halves"))
