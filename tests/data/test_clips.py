"""Which frames make a clip, and the cut, against the reference's golden numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gaitdiff.config.schema import AugmentConfig
from gaitdiff.data.batches import PretrainBatches
from gaitdiff.data.clips import crop_sides, sample_clip
from gaitdiff.data.store import SequenceStore, StoreWriter
from reference import golden_arrays, golden_document
from worlds import make_store

WINDOWS = golden_document("clips")["windows"]


@pytest.mark.parametrize("case", WINDOWS)
def test_ordered_windows_are_distributed_as_the_references(case: str) -> None:
    golden = WINDOWS[case]
    length, frames, draws = golden["length"], golden["frames"], golden["draws"]
    rng = np.random.default_rng(0)
    sampling = "ordered" if golden["skip"] else "consecutive"
    clips = np.stack([sample_clip(sampling, length, frames, rng, golden["skip"]) for _ in range(draws)])
    assert sorted(set(clips[:, 0])) == golden["first_indices_seen"]
    assert sorted(set((np.diff(clips) % length).flatten())) == golden["forward_steps_mod_length_seen"]
    frequency = np.bincount(clips.flatten(), minlength=length) / draws
    # Both sides are shares of 4,000 draws: five standard deviations of their difference at most.
    assert np.abs(frequency - golden["frame_frequency"]).max() < 5 * np.sqrt(2 * 0.25 / draws)


@pytest.mark.parametrize("case", ["w64", "w128"])
def test_cut_equals_the_references(case: str) -> None:
    arrays = golden_arrays("clips")
    whole = np.broadcast_to(
        arrays[f"{case}/in"][:, :1], (2, arrays[f"{case}/in"].shape[2], arrays[f"{case}/in"].shape[2])
    )
    want = arrays[f"{case}/out"][:, 0]
    cut = (crop_sides(whole) / 255.0).astype(np.float32)
    assert cut.shape[2] == want.shape[1]
    assert (cut == want[:, None]).all()


def test_pretraining_gives_cut_frames_empty_sides(tmp_path: Path) -> None:
    """A store of cut walks gives the batches of one whose outer columns are black."""
    cut = SequenceStore(make_store(tmp_path / "cut", width=44))
    with StoreWriter(tmp_path / "whole", source="test") as writer:
        for walk in cut:
            frames = np.pad(walk.frames, ((0, 0), (0, 0), (10, 10)))
            row = walk.row
            names = {"condition": row.condition, "view": row.view, "sequence": row.sequence}
            writer.add(frames, subject=row.subject, **names, split=row.split, role=row.role)
    whole = SequenceStore(tmp_path / "whole")
    settings: dict[str, Any] = {
        "batch": 4,
        "latent_frames": 5,
        "gait_frames": 3,
        "sampling": "unordered",
        "augment": AugmentConfig(),
    }
    for step in range(3):
        a, b = (PretrainBatches(store, store.select("train"), **settings)(step) for store in (cut, whole))
        np.testing.assert_array_equal(a.latent, b.latent)
        np.testing.assert_array_equal(a.gait, b.gait)
        assert a.latent.shape == (4, 5, 64, 64)
        assert a.latent.max() == 255
