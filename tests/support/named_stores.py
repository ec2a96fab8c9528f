"""Stores with the names of published data sets, and the words of the command that scores them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from gaitdiff.cli import main
from gaitdiff.data.store import StoreWriter

#: subject, condition, view, split, role
Names = tuple[str, str, str, str, str]

GREW_ROWS: list[Names] = [
    *((f"{p:05}train", "00", f"t{p}{k}", "train", "") for p in range(3) for k in range(2)),
    *((f"{p:05}", "01", f"g{p}", "test", "gallery") for p in range(5)),
    *((f"{p:05}", "02", f"h{p}", "test", "probe") for p in range(5)),
    *(("probe", "03", f"v{p}", "test", "") for p in range(5)),
]
CASIA_ROWS: list[Names] = [
    *((f"{p:03}", kind, view, "train", "") for p in range(3) for kind in ("nm-01", "nm-02") for view in ("000", "090")),
    *(
        (f"{p:03}", kind, view, "test", "gallery" if kind == "nm-01" else "probe")
        for p in range(80, 84)
        for kind in ("nm-01", "nm-05", "bg-01", "cl-01")
        for view in ("000", "018", "090")
    ),
]


def named_store(path: Path, rows: Sequence[Names], dataset: str = "", height: int = 64) -> Path:
    """A store with these names; everybody's frames are a bar of a width of their own."""
    people = sorted({row[0] for row in rows})
    with StoreWriter(path, height=height, width=height, source="test", dataset=dataset) as writer:
        for number, (subject, condition, view, split, role) in enumerate(rows):
            rng = np.random.default_rng(number)
            clip = np.zeros((4, height, height), np.uint8)
            for frame in clip:
                left = height // 2 - 4 + int(rng.integers(0, 3))
                frame[:, left : left + 3 + 2 * people.index(subject)] = 255
                frame[int(rng.integers(0, height)), : height // 2] = 255
            where = {"condition": condition, "view": view, "sequence": f"s{number}", "split": split, "role": role}
            writer.add(clip, subject=subject, **where)
    return path


def scored(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What ``evaluate`` prints."""
    capsys.readouterr()
    assert main(["evaluate", "--device", "cpu", *words]) == 0
    return capsys.readouterr().out


def refused(words: Sequence[str | Path], capsys: pytest.CaptureFixture[str]) -> str:
    """The sentence of a refused command."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("gaitdiff: ")
    return message
