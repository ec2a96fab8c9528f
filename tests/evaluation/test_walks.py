"""Walks in memory get the features that evaluation computes, and are compared as protocols compare them."""

from __future__ import annotations

import pickle
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gaitdiff
from gaitdiff.data.store import SequenceStore, StoreWriter
from gaitdiff.errors import UserError
from gaitdiff.evaluation import distance_matrix, evaluate
from gaitdiff.evaluation.features import extract
from gaitdiff.models import GaitModel, create_model, list_models
from gaitdiff.models.base import NoHead

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SequenceStore:
    """Walks of 1 to 730 frames."""
    path, rng = tmp_path_factory.mktemp("walks") / "store", np.random.default_rng(0)
    with StoreWriter(path, source="test") as writer:
        for i, length in enumerate([3, 1, 40, 730, 3]):
            frames = rng.integers(0, 256, (length, 64, 64), np.uint8)
            names = {"subject": f"p{i % 2}", "condition": "", "view": "", "sequence": str(i)}
            writer.add(frames, **names, split="test", role="")
    return SequenceStore(path)


def tiny(name: str = "smplgait") -> GaitModel:
    torch.manual_seed(0)
    model = create_model(name, "tiny", 3).eval()
    with torch.no_grad():
        next(model.head.parameters()).mul_(1.1)  # as training would
    return model


@pytest.mark.parametrize("name", list_models())
def test_features_are_those_of_evaluation(name: str, store: SequenceStore) -> None:
    model, rows = tiny(name), np.array([0, 1, 2, 4])
    expected = extract(model, store, rows, CPU)
    assert gaitdiff.embed(model, [store[int(i)].frames for i in rows]).equal(expected)
    torch.testing.assert_close(gaitdiff.embed(model, store[2].frames), expected[2])
    model.head = NoHead()
    raw = extract(model.backbone, store, rows, CPU)
    assert gaitdiff.embed(model, store[list(rows)]).equal(raw)
    assert gaitdiff.embed(model.backbone, store[list(rows)]).equal(raw)


@pytest.mark.parametrize("kind", [torch.half, torch.bfloat16, torch.double])
def test_models_of_any_precision_embed(kind: torch.dtype, store: SequenceStore) -> None:
    walks = [store[0].frames, store[2].frames]
    expected = gaitdiff.embed(tiny(), walks)
    for model, what in ((tiny(), expected), (tiny().backbone, gaitdiff.embed(tiny().backbone, walks))):
        given = gaitdiff.embed(model.to(kind), walks)
        assert given.dtype == torch.float32
        assert (given - what).norm() < 0.03 * what.norm()


def test_wrapped_models_embed_as_what_is_in_them(store: SequenceStore) -> None:
    for model in (tiny(), create_model("smplgait", "tiny").eval()):
        expected = gaitdiff.embed(model, store[2])
        for wrapped in (torch.nn.DataParallel(model), torch.optim.swa_utils.AveragedModel(model)):
            assert gaitdiff.embed(wrapped, store[2]).equal(expected)
        with torch.compiler.set_stance("force_eager"):
            torch.testing.assert_close(gaitdiff.embed(torch.compile(model), store[2]), expected)


def test_a_fresh_head_is_left_aside_also_after_half_precision() -> None:
    for kind in (torch.half, torch.bfloat16):
        assert not create_model("smplgait", "tiny").to(kind).float().headed


@pytest.mark.parametrize("height", [None, 64])
def test_frames_that_gait_models_do_not_take_are_refused(height: int | None, tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "wide", width=128, source="test") as writer:
        writer.add(np.zeros((3, 64, 128), np.uint8), subject="p", condition="", view="", sequence="0", split="test")
    wide = SequenceStore(tmp_path / "wide")
    with pytest.raises(UserError, match="64 px high and 128 wide"):
        extract(tiny().backbone, wide, np.array([0]), CPU, height=height)


def test_features_of_no_rows_are_refused_and_write_nothing(store: SequenceStore, tmp_path: Path) -> None:
    for out in (None, str(tmp_path / "features.npy")):
        with pytest.raises(UserError, match="there are no sequences to compute features of"):
            extract(tiny(), store, np.array([], int), CPU, out)  # type: ignore[call-overload]
    assert not list(tmp_path.iterdir())
    found = extract(tiny(), store, np.array([2]), CPU, str(tmp_path / "features.npy"))
    assert torch.from_numpy(np.array(found)).equal(extract(tiny(), store, np.array([2]), CPU))


def test_a_head_that_nobody_trained_is_left_aside(store: SequenceStore) -> None:
    model, walk = create_model("smplgait", pretrained="walkers").eval(), store[2].frames
    raw = gaitdiff.embed(model.backbone, walk)
    for untrained in (model, deepcopy(model), pickle.loads(pickle.dumps(model)), gaitdiff.load_checkpoint("walkers")):
        assert not untrained.headed
        assert gaitdiff.embed(untrained, walk).equal(raw)
    assert not deepcopy(model).bfloat16().headed
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    model(torch.rand(2, 3, 64, 44)).embedding.square().sum().backward()
    optimizer.step()
    assert model.headed
    assert gaitdiff.embed(model, walk).equal(model(torch.tensor(walk[None, :, :, 10:54]) / 255).embedding[0])


def test_walks_come_in_many_forms(store: SequenceStore) -> None:
    model = tiny().train()
    walk = store[2].frames
    want = gaitdiff.embed(model, walk)
    assert model.training
    assert not want.requires_grad
    cut = walk[:, :, 10:54]
    unit = torch.from_numpy(walk.copy()).float() / 255
    for other in (store[2], cut, torch.from_numpy(cut.copy()), unit, unit.double(), unit.numpy()[:, :, 10:54]):
        torch.testing.assert_close(gaitdiff.embed(model, other), want)
    mixed = gaitdiff.embed(model, [walk, unit, store[0]])
    torch.testing.assert_close(mixed[:2], want.expand(2, -1, -1))
    torch.testing.assert_close(mixed[2], gaitdiff.embed(model, store["p0"][0]))
    assert gaitdiff.embed(model, np.stack([walk, walk])).shape == (2, *want.shape)
    masks = walk > 127
    torch.testing.assert_close(gaitdiff.embed(model, masks), gaitdiff.embed(model, masks.astype(np.uint8) * 255))


def test_only_the_first_frames_count_as_in_evaluation(store: SequenceStore) -> None:
    model = tiny()
    assert gaitdiff.embed(model, store[3]).equal(gaitdiff.embed(model, store[3].frames[:720]))
    torch.testing.assert_close(gaitdiff.embed(model, store[3]), extract(model, store, np.array([3]), CPU)[0])


@pytest.mark.parametrize(
    ("frames", "sentence"),
    [
        ([], "a list of at least one"),
        ("p0", "or a list of at least one, not 'p0'"),
        (np.zeros((3, 64, 40), np.uint8), r"must be aligned silhouettes .*, not \(3, 64, 40\)"),
        (np.zeros((0, 64, 64), np.uint8), "must be aligned silhouettes"),
        ([np.zeros((3, 64, 64), np.uint8), np.zeros((64, 64), np.uint8)], "walk 1 must be aligned silhouettes"),
        ([np.zeros((3, 64, 64), np.uint8), None], "walk 1 must be an array or a tensor of frames, not NoneType"),
        (np.zeros((3, 64, 64), np.int64), "the walk must be uint8, or floats from 0 to 1, not int64"),
        (np.ones((3, 64, 64), np.uint8), "multiply it by 255"),
        (np.full((3, 64, 64), 255.0), "divide by 255"),
        (np.full((3, 64, 64), np.nan), "silhouettes are in"),
        ([np.zeros((3, 64, 64), np.uint8), np.zeros((3, 128, 88), np.uint8)], "frames are 64 and 128 px high"),
        (np.zeros((3, 128, 128), np.uint8), "frames are 128 px high, but a model .* 64 px"),
    ],
)
def test_what_is_no_walk_is_refused(frames: Any, sentence: str) -> None:
    model = tiny()
    model.height = 64
    with pytest.raises(UserError, match=sentence):
        gaitdiff.embed(model, frames)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_similarity_is_one_minus_the_distance_that_protocols_rank_by(metric: str) -> None:
    random = torch.Generator().manual_seed(0)
    features = torch.randn(12, 5, 3, generator=random) + torch.randn(6, 5, 3, generator=random).repeat_interleave(2, 0)
    labels = [str(i // 2) for i in range(12)]
    table = gaitdiff.similarity(features, features, metric)
    torch.testing.assert_close(table, 1 - distance_matrix(features, features, metric), rtol=0, atol=0)
    torch.testing.assert_close(table.diagonal(), torch.ones(12), rtol=0, atol=1e-3)
    assert float(table.max()) < 1.001
    assert metric == "euclidean" or float(table.min()) >= -1
    others = table.clone().fill_diagonal_(-torch.inf)
    found = float((others.argmax(1) // 2 == torch.arange(12) // 2).float().mean())
    scores = evaluate("leave-one-out", features, labels, [""] * 12, [""] * 12, metric)
    assert scores["rank1"] == pytest.approx(100 * found)
    assert 0 < found < 1


def test_similarities_have_the_shape_of_what_is_compared() -> None:
    one, several = torch.rand(5, 3), np.random.default_rng(0).random((4, 5, 3), np.float32)
    assert gaitdiff.similarity(one, several[0]).shape == ()
    assert gaitdiff.similarity(one, several).shape == (4,)
    assert gaitdiff.similarity(several, one).shape == (4,)
    assert gaitdiff.similarity(several, several[:2]).shape == (4, 2)
    assert float(gaitdiff.similarity(one, one)) == pytest.approx(1)
    for bad in (one[0], one[:4], several[None]):
        with pytest.raises(UserError, match=r"\(n, C, P\)"):
            gaitdiff.similarity(one, bad)
    with pytest.raises(UserError, match="did you mean 'cosine'"):
        gaitdiff.similarity(one, one, "cosin")


def test_the_package_alone_still_loads_no_torch() -> None:
    code = (
        "import sys, gaitdiff; assert {'embed', 'similarity'} <= set(dir(gaitdiff)); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parent).returncode == 0
