"""Ranking in pieces, ranks without sorting, and features that pass through a file."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gaitdiff.data.store import SequenceStore, StoreWriter
from gaitdiff.errors import UserError
from gaitdiff.evaluation import evaluate, grew_submission, rank_metrics, ranking
from gaitdiff.evaluation.features import extract, gait_energy_images
from gaitdiff.evaluation.stored import evaluate_store
from gaitdiff.models import create_model
from gaitdiff.models.base import Backbone
from reference import Set, golden_arrays, golden_document, golden_set

CPU = torch.device("cpu")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ranks_equal_a_stable_sort_whatever_the_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    distance = rng.integers(0, 6, (40, 90)) / 4  # many of the same distance
    probe, gallery = rng.integers(0, 12, 40), rng.integers(0, 10, 90)  # two people are nowhere in the gallery
    ignore = rng.random((40, 90)) < 0.2
    first, precision, inverse = [], [], []
    for i in range(40):
        order = [j for j in np.argsort(distance[i], kind="stable") if not ignore[i, j]]
        ranks = [k + 1 for k, j in enumerate(order) if gallery[j] == probe[i]]
        if ranks:
            first.append(ranks[0])
            precision.append(np.mean([(n + 1) / rank for n, rank in enumerate(ranks)]))
            inverse.append(len(ranks) / ranks[-1])
    scores = rank_metrics(distance, probe, gallery, ranks=(1, 3, 200), ignore=ignore)
    for k in (1, 3, 200):
        assert scores[f"rank{k}"] == pytest.approx(100 * np.mean([rank <= k for rank in first]))
    assert scores["mAP"] == pytest.approx(100 * np.mean(precision))
    assert scores["mINP"] == pytest.approx(100 * np.mean(inverse))
    assert scores["probes"] == len(first) < 40


def test_ties_of_features_go_by_gallery_order() -> None:
    """One person's walk and another's are the same: the first in the gallery wins, whatever the pieces."""
    same = np.ones((1, 4, 2), np.float32)
    features = np.concatenate([same, same, same, 3 * same])
    for labels, rank1 in ((["a", "a", "b", "b"], 100), (["a", "b", "a", "b"], 0)):
        scores = evaluate("gait3d", features, labels, ["0"] * 4, ["0"] * 4, probe_mask=[True, False, False, False])
        assert scores["rank1"] == rank1
        assert scores["rank5"] == 100


CASES: list[tuple[str, str, Set]] = [
    ("casia_b", "casia-b", {}),
    ("casia_b", "casia-b", {"setting": "cross-view"}),
    ("sustech1k", "sustech1k", {}),
    ("ccpg", "ccpg", {}),
    ("grew", "grew", {}),
    ("hid", "hid", {}),
    ("grew", "leave-one-out", {}),
]


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize(("name", "protocol", "data"), CASES)
def test_tiny_pieces_from_disk_give_the_same(
    name: str, protocol: str, data: Set, metric: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walks, _ = golden_set(name)
    whole = evaluate(protocol, **walks, metric=metric, **data)
    np.save(tmp_path / "features.npy", walks["features"])
    on_disk = {**walks, "features": np.load(tmp_path / "features.npy", mmap_mode="r")}
    pieces = count_pieces(monkeypatch)
    monkeypatch.setattr(ranking, "MEMORY", 20_000)
    monkeypatch.setattr("gaitdiff.evaluation.metrics._RANKED_AT_A_TIME", 100)
    assert evaluate(protocol, **on_disk, metric=metric, **data) == whole
    assert len(pieces) > 20


def count_pieces(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by one at each product of a chunk of probes with a block of the gallery."""
    pieces: list[int] = []
    plain = ranking.distances

    def counted(*given: Any) -> Tensor:
        pieces.append(1)
        return plain(*given)

    monkeypatch.setattr(ranking, "distances", counted)
    return pieces


def test_gait3d_in_pieces_and_the_submission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meta, features = golden_document("gait3d"), golden_arrays("gait3d")["features"]
    names = [meta[key] for key in ("labels", "types", "views")]
    walks, _ = golden_set("grew")
    results = []
    for memory in (ranking.MEMORY, 10_000):
        monkeypatch.setattr(ranking, "MEMORY", memory)
        scores = evaluate("gait3d", torch.from_numpy(features), *names, probe_set=meta["probe_set"])
        results.append((scores, grew_submission(tmp_path / f"{memory}.csv", **walks).read_bytes()))
    assert results[0] == results[1]


MEASURED = """
import sys
import numpy as np
from gaitdiff.evaluation import evaluate, ranking

def peak():  # KiB; getrusage would tell the peak of who started this, if that was higher
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

def score(features):
    n = len(features)
    labels, views = [str(i % 50) for i in range(n)], [str(i) for i in range(n)]
    return evaluate("gait3d", features, labels, ["0"] * n, views, probe_mask=[i < 100 for i in range(n)])

ranking.MEMORY = 32 << 20
features = np.load(sys.argv[1], mmap_mode="r")
score(np.array(features[:200]))  # what the libraries take
before = peak()
score(features)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_memory_stays_bounded(tmp_path: Path) -> None:
    rows, shape = 4000, (256, 64)  # 262 MB on disk
    with (tmp_path / "features.npy").open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, *shape)}
        np.lib.format.write_array_header_1_0(file, header)
        block = np.random.default_rng(0).normal(size=(200, *shape)).astype(np.float32)
        for _ in range(rows // 200):
            file.write(block.data)
    command = [sys.executable, "-c", MEASURED, str(tmp_path / "features.npy")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=True)
    assert int(done.stdout) < 80 * 1024  # KiB


def mixed_store(path: Path) -> SequenceStore:
    """FeatureSet of many lengths, one longer than a batch."""
    rng = np.random.default_rng(0)
    with StoreWriter(path, width=64, crop="full", source="test") as writer:
        for number, frames in enumerate((5, 9, 5, 1100, 3, 700, 400, 9, 1)):
            clip = (255 * (rng.random((frames, 64, 64)) < 0.3)).astype(np.uint8)
            writer.add(
                clip,
                subject=f"p{number % 3}",
                condition="nm-01" if number < 5 else "nm-05",
                view="000",
                sequence=str(number),
                split="test",
                role="probe" if number < 3 else "gallery",
            )
    return SequenceStore(path)


class Recorder(Backbone):
    """Mean and largest frame sum of each sequence; remembers the batches it saw."""

    channels, parts, sampling = 2, 1, "unordered"

    def __init__(self, packs: bool) -> None:
        super().__init__()
        self.packs = packs
        self.seen: list[tuple[tuple[int, ...], int]] = []

    def forward(self, clip: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        self.seen.append((tuple(clip.shape), len(clip) if lengths is None else len(lengths)))
        walks = list(clip) if lengths is None else list(clip[0].split(list(lengths)))
        sums = [walk.sum((1, 2)) for walk in walks]
        return torch.stack([torch.stack([one.mean(), one.max()]) for one in sums]).unsqueeze(2)


def test_extract_packs_what_may_be_packed(tmp_path: Path) -> None:
    store = mixed_store(tmp_path / "store")
    rows = np.array([8, 0, 3, 1, 2, 5, 7, 6, 4])
    packed, equal = Recorder(packs=True), Recorder(packs=False)
    ours, theirs = (extract(network, store, rows, CPU, max_frames=1100) for network in (packed, equal))
    frames = [store[int(row)].frames[:, :, 10:54] / 255 for row in rows]
    expected = np.array([[one.sum((1, 2)).mean(), one.sum((1, 2)).max()] for one in frames])
    for found in (ours, theirs):
        assert found.shape == (9, 2, 1)
        assert found[:, :, 0].numpy() == pytest.approx(expected, rel=1e-5)
    assert [count for _, count in packed.seen] == [1, 2, 6]  # 1100; 700 and 400; all the short ones
    assert all(shape[0] == 1 and shape[1] <= 1100 for shape, _ in packed.seen)
    assert sorted(shape[:2] for shape, _ in equal.seen) == [
        (1, 1),
        (1, 3),
        (1, 400),
        (1, 700),
        (1, 1100),
        (2, 5),
        (2, 9),
    ]


def test_extract_of_a_model_gives_its_embeddings_packed_or_not(tmp_path: Path) -> None:
    store = mixed_store(tmp_path / "store")
    rows = np.array([4, 0, 1, 2, 7])
    torch.manual_seed(0)
    model = create_model("smplgait", "walkers", num_classes=3).eval()
    found = extract(model, store, rows, CPU)
    for place, row in enumerate(rows):
        clip = torch.from_numpy(store[int(row)].frames[None, :, :, 10:54] / 255).float()
        with torch.no_grad():
            alone = model(clip).embedding[0]
        assert torch.allclose(found[place], alone, atol=1e-5 * float(alone.abs().max()))
    assert extract(model.backbone, store, rows, CPU).shape == (5, model.backbone.channels, model.backbone.parts)


def test_features_pass_through_a_file(tmp_path: Path) -> None:
    store = mixed_store(tmp_path / "store")
    rows, folder = np.array([8, 0, 3, 1, 2, 5, 7, 6, 4]), tmp_path / "features"
    folder.mkdir()
    for packs in (True, False):
        on_disk = extract(Recorder(packs), store, rows, CPU, folder / "features.npy")
        assert isinstance(on_disk, np.memmap)
        assert np.array_equal(on_disk, extract(Recorder(packs), store, rows, CPU).numpy())
    images = gait_energy_images(store, rows, folder / "images.npy")
    assert np.array_equal(images, gait_energy_images(store, rows).numpy())
    assert evaluate_store(images, store, rows) == evaluate_store(torch.from_numpy(np.array(images)), store, rows)
    assert sorted(path.name for path in folder.iterdir()) == ["features.npy", "images.npy"]
    with pytest.raises(UserError, match="cannot be written"):
        extract(Recorder(True), store, rows, CPU, folder / "no" / "features.npy")


def test_a_failure_leaves_no_half_file(tmp_path: Path) -> None:
    class Failing(Recorder):
        def forward(self, clip: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
            if self.seen:
                raise RuntimeError("broken")
            return super().forward(clip, lengths)

    store = mixed_store(tmp_path / "store")
    (tmp_path / "out").mkdir()
    with pytest.raises(RuntimeError, match="broken"):
        extract(Failing(True), store, np.arange(9), CPU, tmp_path / "out" / "features.npy")
    assert not list((tmp_path / "out").iterdir())
