"""Stores of noise, and changes to their files, that tests of the store share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gaitdiff.data.store import StoreWriter
from gaitdiff.data.store.codec import DEFAULT_CODEC

NAMES = ["p1", "p2", "p2", "Zoë 😀", 'quote " comma , end']
LENGTHS = [5, 1, 9, 30, 2]
SPLITS = [("train", ""), ("train", ""), ("test", "probe"), ("test", "gallery"), ("test", "gallery")]


def make_frames(seed: int, length: int, height: int = 64, width: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (length, height, width), dtype=np.uint8)


def make_store(path: Path, height: int = 64, width: int = 64, crop: str = "full", codec: str = DEFAULT_CODEC) -> Path:
    with StoreWriter(path, height=height, width=width, crop=crop, source="a test", codec=codec) as writer:
        for i, (name, length, (split, role)) in enumerate(zip(NAMES, LENGTHS, SPLITS, strict=True)):
            frames = make_frames(i, length, height, width)
            writer.add(frames, subject=name, condition="nm", view="", sequence=f"{i:02}", split=split, role=role)
    return path


def edit_header(**values: object) -> Callable[[Path], None]:
    def damage(store: Path) -> None:
        header = json.loads((store / "store.json").read_text("utf-8"))
        header.update(values)
        header = {key: value for key, value in header.items() if value is not None}
        (store / "store.json").write_text(json.dumps(header), "utf-8")

    return damage


def add_one(writer: StoreWriter, frames: np.ndarray, **names: str) -> None:
    words = {"subject": "a", "condition": "", "view": "", "sequence": "0", "split": "train", "role": "", **names}
    writer.add(frames, **words)
