"""Arrays of a batch reach the device as they are, whatever they are."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from gaitdiff.data.transfer import as_block, send

CPU = torch.device("cpu")


class Pair(NamedTuple):
    rows: Any
    names: tuple[str, ...]


@pytest.mark.parametrize("way", [send, as_block])
def test_arrays_within_tuples_become_tensors_in_their_places(way: Any) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, 5, 7), dtype=np.uint8)
    mask, none = rng.random(5) < 0.5, np.zeros((0, 3, 3), np.float32)
    turned = np.asfortranarray(rng.normal(size=(4, 3)).astype(np.float32))
    values = (frames, Pair(np.arange(3), ("a", "b")), (mask, none, turned))
    sent = way(values, CPU)
    assert type(sent[1]) is Pair
    assert sent[1].names == ("a", "b")
    for mine, array in zip((sent[0], sent[1].rows, *sent[2]), (frames, np.arange(3), mask, none, turned), strict=True):
        assert mine.dtype == torch.from_numpy(array).dtype
        np.testing.assert_array_equal(mine.numpy(), array)


def test_a_block_is_one_tensor() -> None:
    sent = as_block((np.arange(3, dtype=np.uint8), np.arange(5.0), np.ones(2, bool)), CPU)
    assert len({tensor.untyped_storage().data_ptr() for tensor in sent}) == 1
    assert all(tensor.data_ptr() % 8 == 0 for tensor in sent)
