"""Which frames make a clip, and the cut, against the reference's golden numbers."""

from __future__ import annotations

import numpy as np
import pytest

from gaitdiff.data.clips import crop_sides, sample_clip
from reference import golden_arrays, golden_document

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
