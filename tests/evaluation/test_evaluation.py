"""Protocols and metrics against golden numbers and brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from gaitdiff.errors import UserError
from gaitdiff.evaluation import distance_matrix, evaluate, rank_metrics, ranking
from gaitdiff.evaluation.protocols import get_protocol
from gaitdiff.evaluation.scoring import headline_metrics
from gaitdiff.utils.modes import evaluating
from reference import golden_arrays, golden_document

NAMES = {"Rank-1": "rank1", "Rank-5": "rank5", "Rank-10": "rank10", "mAP": "mAP", "mINP": "mINP"}


@pytest.mark.parametrize("case", ["gait3d", "gait3d_small_gallery"])
@pytest.mark.parametrize(("metric", "short"), [("euclidean", "euc"), ("cosine", "cos")])
def test_gait3d_equals_the_reference(case: str, metric: str, short: str) -> None:
    meta, features = golden_document(case), golden_arrays(case)["features"]
    scores = evaluate(
        "gait3d", features, meta["labels"], meta["types"], meta["views"], metric, probe_set=meta["probe_set"]
    )
    for theirs, ours in NAMES.items():
        assert scores[ours] == pytest.approx(meta["expected"][short][theirs], abs=1e-4)


def test_distances_equal_the_reference() -> None:
    arrays = golden_arrays("gait3d")
    features, probe = torch.from_numpy(arrays["features"]), torch.from_numpy(arrays["probe_mask"])
    for metric, key in (("euclidean", "dist_euc"), ("cosine", "dist_cos")):
        ours = distance_matrix(features[probe], features[~probe], metric).numpy()
        assert np.abs(ours - arrays[key]).max() < 1e-4 * np.abs(arrays[key]).max()


def test_leave_one_out_equals_brute_force() -> None:
    rng = np.random.default_rng(0)
    labels = [str(i) for i in rng.integers(0, 8, 30)]
    features = rng.normal(size=(30, 6, 2)).astype(np.float32) + 0.7 * np.array([int(x) for x in labels])[:, None, None]
    scores = evaluate("leave-one-out", features, labels, ["a"] * 30, ["b"] * 30, "euclidean")
    right, precision, inverse, counted = 0, 0.0, 0.0, 0
    for i in range(30):
        distance = [np.linalg.norm(features[i] - features[j], axis=0).mean() for j in range(30)]
        order = [j for j in np.argsort(distance, kind="stable") if j != i]
        hits = [labels[j] == labels[i] for j in order]
        if not any(hits):
            continue
        counted += 1
        right += hits[0]
        positions = [k + 1 for k, hit in enumerate(hits) if hit]
        precision += float(np.mean([(n + 1) / k for n, k in enumerate(positions)]))
        inverse += len(positions) / positions[-1]
    assert scores["probes"] == counted
    assert scores["rank1"] == pytest.approx(100 * right / counted)
    assert scores["mAP"] == pytest.approx(100 * precision / counted)
    assert scores["mINP"] == pytest.approx(100 * inverse / counted)


def test_rank_beyond_the_gallery_counts_all_of_it() -> None:
    distance = np.array([[0.1, 0.2, 0.3]])
    scores = rank_metrics(distance, np.array(["b"]), np.array(["a", "a", "b"]), ranks=(1, 10))
    assert scores["rank1"] == 0
    assert scores["rank10"] == 100


@pytest.mark.parametrize("kind", ["tensor", "list of tensors", "array", "list of lists"])
def test_features_of_any_kind_give_the_same(kind: str) -> None:
    plain = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 5, 2)).astype(np.float32))
    taught = plain.clone().requires_grad_()
    kinds = {"tensor": taught, "list of tensors": list(taught), "array": plain.numpy(), "list of lists": plain.tolist()}
    given: Any = kinds[kind]
    assert gait3d(features=given) == gait3d(features=plain)
    ours = distance_matrix(given, given)
    assert not ours.requires_grad
    assert torch.equal(ours, distance_matrix(plain, plain))


def test_rows_of_different_shapes_are_named() -> None:
    with pytest.raises(UserError, match="all of one shape"):
        gait3d(features=[torch.zeros(2, 1), torch.zeros(3, 1)] * 2)


def test_a_module_goes_back_into_its_mode_after_a_failure() -> None:
    module = torch.nn.Linear(3, 1)
    with pytest.raises(RuntimeError, match="shapes"), evaluating(module):
        module(torch.zeros(1, 2))
    assert module.training


def exact(probe: torch.Tensor, gallery: torch.Tensor) -> torch.Tensor:
    """Mean over parts of Euclidean distances in float64, from differences."""
    difference = probe.double()[:, None] - gallery.double()[None]
    return difference.square().sum(2).sqrt().mean(2)


@pytest.mark.parametrize("outlier", [0.0, 1e4])
def test_close_features_far_from_zero_keep_their_digits(outlier: float) -> None:
    features = torch.randn(40, 32, 4, generator=torch.Generator().manual_seed(0)) * 0.01 + 100
    features[20] += outlier
    truth = exact(features[:20], features[20:])
    ours = distance_matrix(features[:20], features[20:], "euclidean")
    assert float((ours - truth).abs().max()) < 1e-5 * float(truth.max())
    near = slice(1, None)
    assert float((ours - truth)[:, near].abs().max()) < 1e-4 * float(truth[:, near].max())


@pytest.mark.parametrize("size", [1, 7, 20, 40])
def test_scores_of_close_features_equal_those_of_exact_distances(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = [str(i % 8) for i in range(40)]
    people = torch.randn(8, 32, 2, generator=torch.Generator().manual_seed(1)) * 0.003
    noise = torch.randn(40, 32, 2, generator=torch.Generator().manual_seed(2)) * 0.01
    features = people.repeat(5, 1, 1) + noise + 50
    monkeypatch.setattr(ranking, "MEMORY", 16 * 4 * 64 * size)
    names = (labels, ["0"] * 40, ["0"] * 40)
    scores = evaluate("gait3d", features, *names, "euclidean", probe_mask=[i < 16 for i in range(40)])
    truth = rank_metrics(exact(features[:16], features[16:]).numpy(), np.array(labels[:16]), np.array(labels[16:]))
    assert headline_metrics(scores) == pytest.approx(truth)
    assert scores["mAP"] < 100


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("size", [1e19, 1e30, 1e38])
def test_features_too_large_for_distances_are_refused(size: float, metric: str) -> None:
    features = np.random.default_rng(0).uniform(0.5, 1, (4, 8, 2)).astype(np.float32) * np.float32(size)
    features[2:] *= -1
    for score in (
        lambda: gait3d(features=features, metric=metric),
        lambda: distance_matrix(features, features, metric),
    ):
        with pytest.raises(UserError, match="too large for distances in float32"):
            score()


@pytest.mark.parametrize(("metric", "grows"), [("euclidean", 2.0**56), ("cosine", 1.0)])
def test_distances_of_large_features_are_those_of_small_ones(metric: str, grows: float) -> None:
    features = np.random.default_rng(0).normal(size=(4, 8, 2)).astype(np.float32)
    large = features * np.float32(2**56)
    assert torch.equal(distance_matrix(large, large, metric) / grows, distance_matrix(features, features, metric))


def test_ranking_demands_labels_and_distances_that_fit() -> None:
    distance, probe, gallery = np.zeros((2, 3)), np.array(["a", "b"]), np.array(["a", "b", "c"])
    with pytest.raises(UserError, match=r"3 probe labels and 2 gallery labels do not fit .* \(2, 3\)"):
        rank_metrics(distance, gallery, probe)
    with pytest.raises(UserError, match="do not fit"):
        rank_metrics(distance[0], probe, gallery)
    with pytest.raises(UserError, match=r"ignore must have the shape .* \(2, 3\), not \(3, 2\)"):
        rank_metrics(distance, probe, gallery, ignore=np.zeros((3, 2), bool))
    with pytest.raises(UserError, match="NaN"):
        rank_metrics(distance * np.nan, probe, gallery)
    with pytest.raises(UserError, match="infinite"):
        rank_metrics(np.where(distance == distance.max(), np.inf, distance), probe, gallery)
    with pytest.raises(UserError, match="there are 0 probes and a gallery of 3"):
        rank_metrics(distance[:0], probe[:0], gallery)
    with pytest.raises(UserError, match="from 1 on"):
        rank_metrics(distance, probe, gallery, ranks=(1, 0))
    assert "rank2" in rank_metrics(distance, probe, gallery, ranks=(k for k in (1, 2)))  # type: ignore[arg-type]


def gait3d(**changed: object) -> dict[str, float]:
    data: dict[str, object] = {
        "features": np.eye(4, dtype=np.float32)[:, :, None],
        "labels": ["a", "a", "b", "b"],
        "types": ["0"] * 4,
        "views": ["0", "1", "0", "1"],
        "probe_set": ["a-0-0", "b-0-0"],
        **changed,
    }
    return evaluate("gait3d", **data)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"probe_set": None}, "needs probe_set, a list of label-type-view, or probe_mask, not None"),
        ({"probe_set": "a-0-0"}, "not 'a-0-0'"),
        ({"probe_mask": [0, 2]}, "4 features but probe_mask has 2 rows"),
        ({"probe_mask": [0, 1, 2, 3]}, "True or False for each row"),
        ({"probe_mask": torch.tensor([0, 1, 2, 3])}, "True or False for each row"),
        ({"labels": None}, "labels must be a list with one name a row, not None"),
        ({"views": "0101"}, "views must be a list"),
        ({"device": "cuda:99"}, "no device 'cuda:99'"),
        ({"device": "gpu"}, "no device 'gpu'"),
        ({"probe_set": []}, "probe set is empty"),
        ({"probe_set": ["a-0-0", "a-0-1", "b-0-0", "b-0-1"]}, "gallery set is empty"),
        ({"labels": ["a", "b", "c", "d"], "probe_set": ["a-0-0"]}, "no probe's person is in the gallery"),
        ({"labels": ["a"]}, "4 features but 1 labels"),
        ({"metric": "cosin"}, "did you mean 'cosine'"),
        ({"features": np.full((4, 2, 1), np.nan, np.float32)}, "not finite"),
        ({"features": np.zeros((4, 2), np.float32)}, r"\(N, C, P\)"),
    ],
)
def test_mistakes_are_named(changed: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        gait3d(**changed)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("changed", [
    {"labels": torch.tensor([1, 1, 2, 2])},
    {"labels": list(torch.tensor([1, 1, 2, 2]))},
    {"labels": np.array([1, 1, 2, 2])},
    {"labels": np.array([b"1", b"1", b"2", b"2"])},
    {"labels": [b"1", "1", 2, np.int64(2)]},
    {"views": torch.tensor([0, 1, 0, 1]), "types": np.zeros(4, int)},
    {"metric": "Euclidean"},
])  # fmt: skip
def test_names_of_any_kind_are_words(changed: dict[str, object]) -> None:
    given: dict[str, object] = {"labels": ["1", "1", "2", "2"], "probe_set": ["1-0-0", "2-0-0"]}
    assert gait3d(**{**given, **changed}) == gait3d(**given)


def test_a_mask_of_any_kind_chooses_the_probes() -> None:
    mask, expected = [True, False, True, False], gait3d()
    for given in (mask, tuple(mask), np.array(mask), torch.tensor(mask), [np.bool_(one) for one in mask]):
        assert gait3d(probe_set=None, probe_mask=given) == expected


@pytest.mark.parametrize(("written", "name"), [
    ("gait_3d", "gait3d"),
    ("Gait3D", "gait3d"),
    ("SUSTech-1K", "sustech1k"),
    ("OU-MVLP", "oumvlp"),
    ("casiab", "casia-b"),
    ("Leave_One_Out", "leave-one-out"),
])  # fmt: skip
def test_protocols_go_by_their_letters(written: str, name: str) -> None:
    assert get_protocol(written).name == name


def test_unknown_protocol_and_missing_data_are_named() -> None:
    with pytest.raises(UserError, match="did you mean 'gait3d'"):
        evaluate("gait3", np.eye(2)[:, :, None], ["a", "b"], ["0", "0"], ["0", "0"])
    with pytest.raises(UserError, match="probe_set"):
        evaluate("gait3d", np.eye(2)[:, :, None], ["a", "b"], ["0", "0"], ["0", "0"])
