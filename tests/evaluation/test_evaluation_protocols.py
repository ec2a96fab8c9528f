"""Every protocol against golden numbers and against plain loops over other sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gaitdiff.errors import UserError
from gaitdiff.evaluation import evaluate, grew_submission, hid_submission, rerank
from reference import GOLDEN, Set, golden_set

METRICS = [("euclidean", "euc"), ("cosine", "cos")]


def assert_within(ours: Any, theirs: Any, tolerance: float) -> None:
    """All that the reference reports is in our result, under the same names."""
    if isinstance(theirs, dict):
        for key, value in theirs.items():
            assert_within(ours[key], value, tolerance)
    else:
        assert np.shape(ours) == np.shape(theirs)
        assert np.abs(np.asarray(ours) - np.asarray(theirs)).max() <= tolerance


@pytest.mark.parametrize(("metric", "short"), METRICS)
@pytest.mark.parametrize("setting", ["single-view", "cross-view"])
@pytest.mark.parametrize("name", ["casia_b", "oumvlp"])
def test_casia_b_and_oumvlp_equal_the_reference(name: str, setting: str, metric: str, short: str) -> None:
    walks, expected = golden_set(name)
    scores = evaluate(name, **walks, metric=metric, setting=setting)
    theirs = expected[f"{setting.replace('-', '_')}_{short}"]
    assert_within(scores, theirs, 1e-9)
    assert scores["views"] == sorted(set(walks["views"]))
    means = [row["mean"]["rank1"] if setting == "single-view" else row["rank1"] for row in theirs.values()]
    assert scores["rank1"] == pytest.approx(np.mean(means))


@pytest.mark.parametrize(("metric", "short"), METRICS)
def test_sustech1k_equals_the_reference(metric: str, short: str) -> None:
    walks, expected = golden_set("sustech1k")
    scores = evaluate("sustech1k", **walks, metric=metric)
    assert_within(scores, expected[f"single_view_{short}"], 1e-9)
    assert scores["rank5"] == pytest.approx(expected[f"single_view_{short}"]["Overall"]["mean"]["rank5"])
    assert scores["probes"] == sum(any(word in kind for word in ("01", "02", "03", "04")) for kind in walks["types"])


@pytest.mark.parametrize(("metric", "short"), METRICS)
def test_ccpg_equals_the_reference(metric: str, short: str) -> None:
    walks, expected = golden_set("ccpg")
    before = {key: np.copy(value) for key, value in walks.items()}
    assert_within(evaluate("ccpg", **walks, metric=metric), expected[short], 1e-5)  # its ranks are float32
    assert all(np.array_equal(before[key], walks[key]) for key in walks)


@pytest.mark.parametrize(("metric", "short"), METRICS)
def test_grew_equals_the_reference(metric: str, short: str, tmp_path: Path) -> None:
    walks, expected = golden_set("grew")
    scores = evaluate("grew", **walks, metric=metric)
    for name, value in expected[f"real_scene_{short}"].items():
        assert scores[name.lower().replace("-", "")] == value
    written = grew_submission(tmp_path / "grew.csv", **walks, metric=metric)
    assert written.read_bytes() == (GOLDEN / "evaluation" / "grew" / f"submission_{short}.csv").read_bytes()


@pytest.mark.parametrize(("metric", "short"), METRICS)
@pytest.mark.parametrize(("again", "kind"), [(True, "rerank"), (False, "plain")])
def test_hid_equals_the_reference(metric: str, short: str, again: bool, kind: str, tmp_path: Path) -> None:
    walks, _ = golden_set("hid")
    written = hid_submission(tmp_path / "hid.csv", **walks, metric=metric, rerank=again)
    assert written.read_bytes() == (GOLDEN / "evaluation" / "hid" / f"submission_{kind}_{short}.csv").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["hid.csv"]


@pytest.mark.parametrize(("k1", "k2", "weight"), [(6, 6, 0.3), (20, 6, 0.3), (6, 1, 0.3), (8, 3, 0.5)])
def test_re_ranking_equals_the_reference(k1: int, k2: int, weight: float) -> None:
    with np.load(GOLDEN / "evaluation" / "re_ranking.npz") as file:
        ours = rerank(file["dist"], int(file["query_num"]), k1, k2, weight)
        assert np.abs(ours - file[f"final_k1={k1}_k2={k2}_lambda={weight}"]).max() < 3e-3


def test_re_ranking_equals_its_definition_by_sets() -> None:
    features = np.random.default_rng(5).normal(size=(30, 4))
    distance = np.linalg.norm(features[:, None] - features, axis=2).astype(np.float32)
    queries, k1, k2, weight = 9, 7, 3, 0.4
    d = (distance / distance.max(1, keepdims=True)).astype(np.float64)
    order = [list(np.argsort(row, kind="stable")) for row in d]

    def mutual(i: int, k: int) -> set[int]:
        return {j for j in order[i][: k + 1] if i in order[j][: k + 1]}

    encodings = np.zeros((30, 30))
    for i in range(30):
        members = set(mutual(i, k1))
        for q in mutual(i, k1):
            half = mutual(q, round(k1 / 2))
            if len(half & mutual(i, k1)) > 2 / 3 * len(half):
                members |= half
        for j in members:
            encodings[i, j] = np.exp(-d[i, j])
        encodings[i] /= encodings[i].sum()
    expanded = np.stack([np.mean([encodings[j] for j in order[i][:k2]], axis=0) for i in range(30)])
    ours = rerank(distance, queries, k1, k2, weight)
    for q in range(queries):
        for g in range(queries, 30):
            small, large = np.minimum(expanded[q], expanded[g]).sum(), np.maximum(expanded[q], expanded[g]).sum()
            assert ours[q, g - queries] == pytest.approx(
                (1 - weight) * (1 - small / large) + weight * d[q, g], abs=1e-5
            )


def test_re_ranking_of_equal_rows_is_finite() -> None:
    distance = np.zeros((12, 12), np.float32)
    distance[:, 8:], distance[8:] = 1, 1
    ours = rerank(distance, 3, k1=2, k2=2)
    assert np.isfinite(ours).all()
    assert ours[:, :5].max() < ours[:, 5:].max()


def random_set(seed: int, types: list[str], views: list[str], people: int = 7, keep: float = 0.8) -> Set:
    """FeatureSet of a few people, some missing, in any order; whole-number features make every distance exact."""
    rng = np.random.default_rng(seed)
    walks = [(str(p), kind, view) for p in range(people) for kind in types for view in views if rng.random() < keep]
    rng.shuffle(walks)
    labels, kinds, seen = (list(column) for column in zip(*walks, strict=True))
    own = rng.integers(-3, 4, (people, 6, 3))
    features = np.stack([own[int(label)] for label in labels]) + rng.integers(-2, 3, (len(labels), 6, 3))
    return {"features": features.astype(np.float32), "labels": labels, "types": kinds, "views": seen}


def sorted_gallery(walks: Set, probe: int, gallery: list[int], metric: str) -> list[int]:
    """Gallery rows by distance, ties in their order, by a plain loop."""
    near = []
    for j in gallery:
        a, b = walks["features"][probe].astype(np.float64), walks["features"][j].astype(np.float64)
        if metric == "euclidean":
            near.append(np.float32(np.sqrt(((a - b) ** 2).sum(0)).mean()))
        else:
            near.append(1 - ((a * b).sum(0) / np.linalg.norm(a, axis=0) / np.linalg.norm(b, axis=0)).mean())
    return [gallery[k] for k in np.argsort(near, kind="stable")]


def matches(walks: Set, probe: int, order: list[int]) -> list[int]:
    """Ranks, from 1, at which the probe's person stands."""
    return [k + 1 for k, j in enumerate(order) if walks["labels"][j] == walks["labels"][probe]]


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("seed", [1, 2])
def test_cross_view_equals_a_plain_loop(seed: int, metric: str) -> None:
    views = ["000", "018", "090"]
    walks = random_set(seed, ["nm-01", "bg-01", "cl-01", "nm-02", "bg-02", "cl-02", "nm-03"], views, keep=0.6)
    scores = evaluate("CASIA_B", **walks, metric=metric, setting="cross_view")
    label, kind, view = walks["labels"], walks["types"], walks["views"]
    everyone = range(len(label))
    gallery = [j for j in everyone if kind[j].endswith("-02")]
    for name in ("NM", "BG", "CL"):
        rank1, precision = [], []
        for seen in views:
            firsts, found = [], []
            for i in everyone:
                if kind[i] != f"{name.lower()}-01" or view[i] != seen:
                    continue
                others = [j for j in gallery if not (label[j] == label[i] and view[j] == view[i])]
                ranks = matches(walks, i, sorted_gallery(walks, i, others, metric))
                firsts.append(ranks[:1] == [1])
                if ranks:
                    found.append(np.mean([(n + 1) / rank for n, rank in enumerate(ranks)]))
            rank1.append(round(100 * np.mean(firsts), 2))
            precision.append(round(100 * np.mean(found), 2))
        assert scores[name]["rank1_per_probe_view"] == pytest.approx(rank1, abs=1e-9)
        assert scores[name]["mAP_per_probe_view"] == pytest.approx(precision, abs=1e-9)
        assert scores[name]["mAP"] == pytest.approx(np.mean(precision))


@pytest.mark.parametrize("seed", [3, 4])
def test_single_view_equals_a_plain_loop(seed: int) -> None:
    views = ["000", "045", "090", "180"]
    walks = random_set(seed, ["00", "01"], views)
    scores = evaluate("ou-mvlp", **walks, metric="euclidean")
    label, kind, view = walks["labels"], walks["types"], walks["views"]
    everyone = range(len(label))
    for p, seen in enumerate(views):
        for g, other in enumerate(views):
            gallery = [j for j in everyone if kind[j] == "01" and view[j] == other]
            probes = [i for i in everyone if kind[i] == "00" and view[i] == seen]
            hits = [label[sorted_gallery(walks, i, gallery, "euclidean")[0]] == label[i] for i in probes]
            assert scores["NM"]["matrix"]["rank1"][p][g] == round(100 * np.mean(hits), 2)
    assert scores["probes"] == sum(one == "00" for one in kind)


@pytest.mark.parametrize("seed", [5, 6])
def test_ccpg_equals_a_plain_loop(seed: int) -> None:
    views = ["c1_0", "c1_1", "c2_0", "c3_0"]
    types = ["U0_D0_BG", "U0_D0", "U1_D1", "U2_D2", "U3_D3", "U0_D3", "U1_D0"]
    walks = random_set(seed, types, views, people=6, keep=0.7)
    scores = evaluate("ccpg", **walks, metric="euclidean")
    label, kind = walks["labels"], walks["types"]
    camera = [view[:2] for view in walks["views"]]
    everyone = range(len(label))
    pairs = {
        "CL": (("U0_D0_BG", "U0_D0"), ("U1_D1", "U2_D2", "U3_D3")),
        "UP": (("U3_D3",), ("U0_D3",)),
        "DN": (("U1_D0",), ("U1_D1",)),
        "BG": (("U0_D0_BG",), ("U0_D0",)),
    }
    for name, (ours, theirs) in pairs.items():
        probes = [i for i in everyone if kind[i] in ours]
        gallery = [j for j in everyone if kind[j] in theirs]
        first, precision, inverse = [], [], []
        for i in probes:
            others = [j for j in gallery if not (label[j] == label[i] and camera[j] == camera[i])]
            ranks = matches(walks, i, sorted_gallery(walks, i, others, "euclidean"))
            if ranks:
                first.append(ranks[0])
                precision.append(np.mean([(n + 1) / rank for n, rank in enumerate(ranks)]))
                inverse.append(len(ranks) / ranks[-1])
        reid = scores[name]["reid"]
        assert reid["cmc"] == pytest.approx([np.mean([f <= k for f in first]) for k in range(1, 11)])
        assert reid["rank1"] == pytest.approx(100 * reid["cmc"][0])
        assert reid["mAP"] == pytest.approx(100 * np.mean(precision))
        assert reid["mINP"] == pytest.approx(100 * np.mean(inverse))
        for p, one in enumerate(("c1", "c2", "c3")):
            for g, other in enumerate(("c1", "c2", "c3")):
                there = [j for j in gallery if camera[j] == other]
                here = [i for i in probes if camera[i] == one]
                hits = [label[sorted_gallery(walks, i, there, "euclidean")[0]] == label[i] for i in here]
                assert scores[name]["gait"]["rank1_matrix"][p][g] == round(100 * np.mean(hits), 2)


def test_a_pair_of_views_without_rows_is_left_out() -> None:
    walks = random_set(7, ["00", "01"], ["000", "045", "090"], keep=1.0)
    names = list(zip(walks["types"], walks["views"], strict=True))
    kept = [i for i, name in enumerate(names) if name not in (("01", "045"), ("00", "090"))]
    less: Set = {key: [value[i] for i in kept] for key, value in walks.items() if key != "features"}
    less["features"] = walks["features"][kept]
    matrix, full = evaluate("oumvlp", **less)["NM"], evaluate("oumvlp", **walks)["NM"]["matrix"]["rank1"]
    expected = [[full[0][0], None, full[0][2]], [full[1][0], None, full[1][2]], [None] * 3]
    assert matrix["matrix"]["rank1"] == expected
    per_view = [full[0][2], (full[1][0] + full[1][2]) / 2, None]
    assert matrix["per_probe_view"]["rank1"] == per_view
    assert matrix["mean"]["rank1"] == pytest.approx((per_view[0] + per_view[1]) / 2)


def test_hid_without_re_ranking_is_the_nearest_row() -> None:
    walks = random_set(8, ["0"], [f"v{k}" for k in range(4)], keep=1.0)
    walks["labels"] = [
        "probe" if view == "v1" else label for label, view in zip(walks["labels"], walks["views"], strict=True)
    ]
    scores = evaluate("hid", **walks, metric="euclidean", rerank=False)
    gallery = [j for j, label in enumerate(walks["labels"]) if label != "probe"]
    probes = [i for i, label in enumerate(walks["labels"]) if label == "probe"]
    assert scores["labels"] == [walks["labels"][sorted_gallery(walks, i, gallery, "euclidean")[0]] for i in probes]
    assert scores["videos"] == ["v1"] * len(probes)


def casia(**changed: Any) -> Set:
    return {**random_set(9, ["nm-01", "nm-05", "bg-01", "cl-01"], ["000", "090"], keep=1.0), **changed}


@pytest.mark.parametrize(
    ("protocol", "changed", "sentence"),
    [
        ("casia", {}, "did you mean 'casia-b'"),
        ("casia-b", {"setting": "crossview"}, "did you mean 'cross-view'"),
        ("casia-b", {"settings": "cross-view"}, "did you mean 'setting'"),
        ("casia-b", {"metric": "l2"}, "no metric 'l2'"),
        (
            "casia-b",
            {"types": ["nm-01"] * 56},
            "no probes for NM: it looks for the types 'nm-05', 'nm-06' but .*'nm-01'$",
        ),
        ("casia-b", {"types": ["nm-05"] * 56}, "no gallery for NM"),
        ("casia-b", {"views": ["000"] * 56}, "compares different views"),
        ("casia-b", {"labels": [str(i) for i in range(56)]}, "no probe's person is in the gallery"),
        ("casia-b", {"setting": "cross-view"}, "no gallery for NM"),
        ("oumvlp", {}, "no probes for NM"),
        ("sustech1k", {}, "types that contain '01-nm'"),
        ("ccpg", {}, "no probes for CL"),
        ("ccpg", {"rerank": True}, "protocol 'ccpg' has no 'rerank': it takes no other data"),
        ("grew", {}, "no probes for local"),
        ("hid", {}, "no probes"),
        ("hid", {"labels": ["probe"] * 56}, "no gallery"),
        ("gait3d", {"probe_mask": [True]}, "probe_mask has 1 rows"),
        ("casia-b", {"features": np.zeros((56, 4), np.float32)}, r"\(N, C, P\), .* not \(56, 4\)"),
        ("casia-b", {"features": np.zeros((0, 4, 2), np.float32), "labels": []}, r"not \(0, 4, 2\)"),
    ],
)
def test_mistakes_are_named(protocol: str, changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        evaluate(protocol, **casia(**changed))
    assert "\n" not in str(caught.value)


def test_features_that_are_not_finite_are_named_by_their_row() -> None:
    walks = casia()
    walks["features"][13, 2, 1] = np.nan
    name = "-".join(walks[key][13] for key in ("labels", "types", "views"))
    with pytest.raises(UserError, match=rf"feature 13 \({name}\) is not finite"):
        evaluate("casia-b", **walks)


def test_mistakes_in_submissions_are_named(tmp_path: Path) -> None:
    walks, _ = golden_set("grew")
    file = tmp_path / "grew.csv"
    with pytest.raises(UserError, match=r"gallery row .* has 'x7'"):
        grew_submission(file, **{**walks, "labels": ["x7"] * 70})
    few: Set = {key: value[:20] for key, value in walks.items()}
    with pytest.raises(UserError, match="20 nearest gallery rows, but"):
        grew_submission(file, **few)
    with pytest.raises(UserError, match="no probes for the submission"):
        grew_submission(file, **{**walks, "types": ["01"] * 70})
    with pytest.raises(UserError, match="holds a comma"):
        grew_submission(file, **{**walks, "views": ["a,b"] * 70})
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="cannot be written"):
        grew_submission(tmp_path / "no" / "grew.csv", **walks)


def test_mistakes_in_re_ranking_are_named() -> None:
    square = np.ones((4, 4), np.float32)
    for distance, queries, k1 in ((square[:2], 1, 6), (square, 4, 6), (square, 0, 6), (square, 2, 0)):
        with pytest.raises(UserError, match="re-ranking needs"):
            rerank(distance, queries, k1)
    with pytest.raises(UserError, match="a weight from 0 to 1"):
        rerank(square, 2, weight=2.0)
    with pytest.raises(UserError, match="NaN"):
        rerank(square * np.nan, 2)
    with pytest.raises(UserError, match="distances of at least 0, not -1"):
        rerank(-square, 2)
