"""Whole sequences end to end, as networks get them in evaluation, against the reference's golden numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gaitdiff.config.schema import AugmentConfig
from gaitdiff.data.batches import IdentityBatches
from gaitdiff.data.store import SequenceStore, StoreWriter
from gaitdiff.evaluation.features import MAX_FRAMES, extract
from reference import golden_document
from worlds import make_store

COLLATE = golden_document("collate")


class Recorder(nn.Module):
    """Keeps what it is given, and answers with each sequence's mean frame."""

    def __init__(self, packs: bool) -> None:
        super().__init__()
        self.packs = packs
        self.seen: list[tuple[Tensor, list[int] | None]] = []

    def forward(self, clip: Tensor, lengths: Sequence[int] | None) -> Tensor:
        self.seen.append((clip, list(lengths) if lengths is not None else None))
        spans = clip[0].split(list(lengths)) if lengths is not None else clip.unbind()
        return torch.stack([span.mean(0) for span in spans])


def store_of(path: Path, sequences: list[np.ndarray]) -> SequenceStore:
    height, width = sequences[0].shape[1:]
    with StoreWriter(path, height=height, width=width, crop="cut", source="test") as writer:
        for i, frames in enumerate(sequences):
            writer.add(frames, subject="p", condition="", view="", sequence=str(i), split="test")
    return SequenceStore(path)


@pytest.mark.parametrize("case", COLLATE)
def test_sequences_are_packed_as_the_references(tmp_path: Path, case: str) -> None:
    golden = COLLATE[case]
    store = store_of(tmp_path / "store", [np.array(sequence, np.uint8) for sequence in golden["sequences"]])
    network = Recorder(packs=True)
    limit = golden["limit"] if golden["limit"] > 0 else MAX_FRAMES
    extract(network, store, np.arange(3), torch.device("cpu"), max_frames=limit)
    ((clip, lengths),) = network.seen
    assert (clip[0] * 255).round().byte().tolist() == golden["packed"]
    assert [lengths] == golden["lengths"]


@pytest.mark.parametrize("packs", [True, False])
def test_long_sequences_end_where_published_numbers_do(tmp_path: Path, packs: bool) -> None:
    rng = np.random.default_rng(0)
    sequences = [rng.integers(0, 256, (count, 4, 3), dtype=np.uint8) for count in (700, 720, 721, 1500)]
    store = store_of(tmp_path / "store", sequences)
    features = extract(Recorder(packs), store, np.arange(4), torch.device("cpu"))
    for feature, frames in zip(features, sequences, strict=True):
        np.testing.assert_allclose(feature, frames[:720].mean(0) / 255, rtol=1e-5)


def test_labels_number_the_sorted_people(tmp_path: Path) -> None:
    """As the reference's: b7, a1, b7 become 1, 0, 1."""
    for golden in COLLATE.values():
        assert [golden["label_set"].index(label) for label in golden["labels"]] == golden["out_labels"]
        assert golden["label_set"] == sorted(golden["label_set"])
    store = SequenceStore(make_store(tmp_path / "store", people=6, sequences=3))
    batches = IdentityBatches(
        store, store.select("train"), people=3, sequences=2, frames=2, sampling="unordered", augment=AugmentConfig()
    )
    owners = {store[row].frames[i].tobytes(): store.rows[row].subject for row in range(len(store)) for i in range(6)}
    people = sorted({store.rows[row].subject for row in store.select("train")})
    for step in range(5):
        batch = batches(step)
        assert [people.index(owners[clip[0].tobytes()]) for clip in batch.clips] == batch.labels.tolist()


def test_batches_are_full_and_of_one_shape(tmp_path: Path) -> None:
    """Nearly all: what they lack is filled up, and what comes out is each sequence's own."""
    rng = np.random.default_rng(0)
    sequences = [rng.integers(0, 256, (count, 4, 3), dtype=np.uint8) for count in rng.integers(20, 150, 90)]
    network = Recorder(packs=True)
    features = extract(network, store_of(tmp_path / "store", sequences), np.arange(90), torch.device("cpu"))
    expected = np.stack([frames.mean(0) / 255 for frames in sequences])
    np.testing.assert_allclose(features, expected, atol=1e-6)
    sizes = [clip.shape[1] for clip, _ in network.seen]
    assert len(set(sizes[:-1])) == 1
    assert max(sizes) * len(sizes) < 1.05 * sum(map(len, sequences)) + max(sizes)
