"""Features with names in one file, and two walks compared with others."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import gaitdiff
from gaitdiff.cli import main
from gaitdiff.commands.compare_walks import PEOPLE, WALKS, compare_walks, draw_rows, find_walk
from gaitdiff.data.store import SequenceStore, StoreWriter
from gaitdiff.errors import UserError
from gaitdiff.evaluation.stored import rank_in_store
from gaitdiff.training.checkpoint import read_checkpoint_info
from named_stores import named_store, refused
from worlds import make_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("store") / "store", frames=4)


def embedded(run: Path, store: Path, out: Path, *flags: str) -> dict[str, np.ndarray]:
    assert main(["embed", str(run), str(store), "--out", str(out), "--device", "cpu", *flags]) == 0
    with np.load(out) as file:
        return dict(file)


@pytest.mark.parametrize("split", ["all", "train", "test"])
def test_features_stand_beside_the_names_of_the_manifest(
    split: str, run: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = embedded(run, store, tmp_path / "f.npz", "--split", split)
    assert capsys.readouterr().out == f"{tmp_path / 'f.npz'}\n"
    opened = SequenceStore(store)
    rows = [row for row in opened.rows if split in ("all", row.split)]
    for column in ("subject", "condition", "view", "sequence", "split"):
        assert found[column].tolist() == [getattr(row, column) for row in rows]
    assert found["features"].dtype == np.float32
    info, about = read_checkpoint_info(run), json.loads(str(found["about"]))
    assert (about["checkpoint"], about["metric"], about["features"]) == (str(info.origin), info.metric, "embeddings")
    assert gaitdiff.load_checkpoint(run).metric == info.metric
    walks = [opened[opened.rows.index(row)] for row in rows]
    np.testing.assert_allclose(found["features"], gaitdiff.embed(gaitdiff.load_checkpoint(run), walks), atol=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == ["f.npz"]


def test_the_features_are_those_that_were_asked_for(run: Path, store: Path, tmp_path: Path) -> None:
    raw = embedded(run, store, tmp_path / "f.npz", "--features", "raw")["features"]
    opened = SequenceStore(store)
    assert np.allclose(raw, gaitdiff.embed(gaitdiff.load_checkpoint(run).backbone, opened[:]), atol=1e-6)
    tall = named_store(tmp_path / "tall", [("p", "", "", "train", "")], height=128)
    assert embedded(run, tall, tmp_path / "g.npz", "--resize")["features"].shape[0] == 1


def test_features_in_bfloat16_are_close_and_scores_say_so(
    run: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = embedded(run, store, tmp_path / "f.npz")["features"]
    half = embedded(run, store, tmp_path / "h.npz", "--precision", "bfloat16")["features"]
    assert half.dtype == np.float32
    assert 1e-5 < np.linalg.norm(half - whole) / np.linalg.norm(whole) < 0.02
    scores = ["evaluate", str(run), "--data", str(store), "--device", "cpu", "--protocol", "leave-one-out"]
    for precision in ("bfloat16", "float32"):
        json_file, features = tmp_path / f"{precision}.json", tmp_path / f"{precision}.npy"
        words = ["--precision", precision, "--json", str(json_file), "--save-features", str(features)]
        assert main([*scores, *words]) == 0
        about = json.loads(json_file.read_text())["embeddings"]["about"]
        assert about["precision"] == precision
        assert ("computed in bfloat16" in capsys.readouterr().out) is (precision == "bfloat16")
    assert not np.array_equal(np.load(tmp_path / "bfloat16.npy"), np.load(tmp_path / "float32.npy"))


def test_mistakes_in_embedding(
    run: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, walks = tmp_path / "f.npz", ["embed", run, store]
    taken = tmp_path / "taken.npz"
    taken.write_text("mine")
    tall = named_store(tmp_path / "tall", [("p" * 1001, "", "", "train", "")], height=128)
    for words, sentence in (
        ([*walks, "--out", taken], "exists already"),
        ([*walks, "--out", tmp_path / "none" / "f.npz"], "its folder does not exist"),
        ([*walks, "--out", tmp_path / "f.npy"], "call it f.npz"),
        ([*walks, "--out", out, "--split", "tst"], "invalid choice: 'tst'"),
        (["embed", "walkers", store, "--out", out, "--features", "neck"], "without a trained head"),
        (["embed", run, tall, "--out", out], "128 px"),
        (["embed", run, tall, "--out", out, "--resize"], "names of 1,001 letters"),
        (["embed", run, tall, "--out", out, "--split", "test"], "has no test sequences"),
        (["embed", tmp_path / "nobody", store, "--out", out], "does not exist"),
        (["embed", run, tmp_path / "nothing", "--out", out], "there is no store"),
    ):
        assert sentence in refused(words, capsys)
    assert taken.read_text() == "mine"
    monkeypatch.setattr(np, "savez", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert "No space left" in refused([*walks, "--out", out], capsys)
    assert {path.name for path in tmp_path.iterdir()} == {"taken.npz", "tall"}


def test_features_that_are_not_finite_are_not_written(
    run: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = gaitdiff.load_checkpoint(run)
    next(model.backbone.parameters()).data.fill_(float("nan"))
    monkeypatch.setattr("gaitdiff.commands.embed.load_checkpoint", lambda *_: model)
    assert main(["embed", str(run), str(store), "--out", str(tmp_path / "f.npz"), "--device", "cpu"]) == 2
    assert "not finite" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="has no umask")
def test_files_have_the_users_permissions(run: Path, store: Path, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        embedded(run, store, tmp_path / "f.npz")
        words = ["evaluate", str(run), "--data", str(store), "--device", "cpu", "--json", str(tmp_path / "s.json")]
        assert main([*words, "--save-features", str(tmp_path / "f.npy")]) == 0
        assert main(["export", str(run), "--out", str(tmp_path / "m.onnx")]) == 0
    finally:
        os.umask(before)
    files = list(tmp_path.iterdir())
    assert len(files) == 4
    assert {path.stat().st_mode & 0o777 for path in files} == {0o640}
    weights = list(run.rglob("*.safetensors"))
    assert weights
    assert {path.stat().st_mode & 0o777 for path in weights} == {0o666 & ~before}


def test_two_walks_lie_among_pairs_of_others(
    run: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened, words = SequenceStore(store), ["compare-walks", str(run), str(store), "--device", "cpu"]
    words += ["--json", str(tmp_path / "alike.json")]
    capsys.readouterr()
    assert main([*words, "12", "p5/nm/cam1/s0"]) == 0
    out = capsys.readouterr().out
    metric = read_checkpoint_info(run).metric
    features = gaitdiff.embed(gaitdiff.load_checkpoint(run), opened[opened.select("test")])
    alike = gaitdiff.similarity(features, features, metric).numpy()
    one, other = np.triu_indices(6, 1)
    pairs, same = alike[one, other], one // 3 == other // 3
    asked = (one == 0) & (other == 4)
    told = [float(number) for number in re.findall(r"-?\d+\.\d+", out)]
    expected = [alike[0, 4], 1 - alike[0, 4]]
    for some in (pairs[~same & ~asked], pairs[same]):
        expected += [100 * (some >= alike[0, 4]).mean(), np.median(some)]
    assert told == pytest.approx(expected, abs=0.051)
    for text in (
        f"{metric} distance of embeddings",
        "p4/nm/cam0/s0 and p5/nm/cam1/s0",
        "2 people of the test split",
        "8 pairs of different",
        "6 pairs of",
    ):
        assert text in out
    document = json.loads((tmp_path / "alike.json").read_text())
    assert document["similarity"] == pytest.approx(alike[0, 4], abs=1e-5)
    assert document["one person"] == pytest.approx(sorted(pairs[same].tolist()), abs=1e-5)
    assert document["different people"] == pytest.approx(sorted(pairs[~same & ~asked].tolist()), abs=1e-5)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_distances_are_those_that_evaluation_ranks_by(metric: str, run: Path, store: Path) -> None:
    opened = SequenceStore(store)
    rows = opened.select("test")
    features = gaitdiff.embed(gaitdiff.load_checkpoint(run), opened[rows])
    probes, ranks = rank_in_store(features, opened, rows, metric=metric)
    gallery = [i for i in rows.tolist() if opened.rows[i].role == "gallery"]
    for probe, first in zip(probes.tolist(), ranks.first, strict=True):
        alike = [
            (
                compare_walks(run, store, str(probe), str(i), metric=metric, device="cpu").similarity,
                opened.rows[i].subject,
            )
            for i in gallery
        ]
        order = [who for _, who in sorted(alike, key=lambda pair: -pair[0])]
        assert order.index(opened.rows[probe].subject) + 1 == first


def test_walks_of_two_splits_and_of_one_person(run: Path, store: Path) -> None:
    found = compare_walks(run, store, "0", "12", device="cpu")
    assert "6 people of the whole store" in found.lines()[2]
    assert len(found.same) + len(found.different) == 18 * 17 // 2 - 1
    assert compare_walks(run, store, "3", "3", device="cpu").similarity == pytest.approx(1, abs=1e-3)


def test_pairs_are_few_however_many_walks_there_are(tmp_path: Path) -> None:
    names = [(f"p{i % 50:02}", f"{i}", "", "test", "") for i in range(300)] + [("probe", "", "", "test", "")]
    opened = SequenceStore(named_store(tmp_path / "store", names))
    rows = draw_rows(opened, "test")
    assert rows == draw_rows(opened, "test")
    people = [opened.rows[i].subject for i in rows]
    assert "probe" not in people
    assert [people.count(who) for who in set(people)] == [WALKS] * PEOPLE


def test_walks_are_found_by_name(tmp_path: Path) -> None:
    keys = [
        ("a", "nm", "", "0"),
        ("a", "", "nm", "0"),
        ("b", "nm", "c1", "0"),
        ("b", "nm", "c2", "0"),
        ("10", "", "", "7"),
        ("02", "", "", "7"),
    ]
    with StoreWriter(tmp_path / "store", source="test") as writer:
        for subject, condition, view, sequence in keys:
            where = {"condition": condition, "view": view, "sequence": sequence, "split": "train", "role": ""}
            writer.add(np.full((1, 64, 64), 255, np.uint8), subject=subject, **where)
    store = SequenceStore(tmp_path / "store")
    rows = {"2": 2, "b/nm/c2/0": 3, "a/nm//0": 0, "a//nm/0": 1, "10/7": 4, "10///7": 4, "02/7": 5}
    assert {name: find_walk(store, name) for name in rows} == rows
    for name, sentence in (
        ("6", "no row 6 in .* 6 sequences"),
        ("02", "'02' is a person of .* with one sequence, 02/7"),
        ("9" * 5000, "no row 9999"),
        ("a/nm/0", "2 sequences .* give a row number, 0 or 1"),
        ("b/nm/c3/0", "did you mean 'b/nm/c[12]/0'"),
        ("B", "no sequence 'B'"),
        ("b", "'b' is a person of .* with 2 sequences, such as b/nm/c1/0: name a sequence"),
        ("x" * 60_000, "there is no sequence"),
        ("-1", "no sequence '-1'"),
    ):
        with pytest.raises(UserError, match=sentence) as caught:
            find_walk(store, name)
        assert len(str(caught.value)) < 700
