"""Who is compared with whom: conditions, views and galleries, and people whose names are not told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gaitdiff.cli import main
from gaitdiff.errors import UserError
from gaitdiff.evaluation import evaluate
from named_stores import CASIA_ROWS, GREW_ROWS, named_store, refused, scored
from worlds import TINY_SCRATCH, make_store

# --- conditions and galleries -------------------------------------------------------------------------------------


def test_conditions_that_are_there_are_scored_and_others_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row for row in CASIA_ROWS if row[1] != "cl-01"]
    store, written = named_store(tmp_path / "store", rows, "casia-b"), tmp_path / "scores.json"
    screen = scored([str(run), "--data", str(store), "--json", str(written)], capsys)
    assert "not scored: CL: " in screen
    assert "'cl-01'" in screen
    scores = json.loads(written.read_text())["embeddings"]
    assert set(scores["missing"]) == {"CL"}
    assert scores["rank1"] == pytest.approx(np.mean([scores[name]["mean"]["rank1"] for name in ("NM", "BG")]))


def shape_of(value: Any) -> Any:
    """The keys of nested results, and the lengths of lists."""
    if isinstance(value, dict):
        return {key: shape_of(item) for key, item in value.items() if key != "matrix"}
    return [shape_of(item) for item in value] if isinstance(value, list) else "number"


def random_casia() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    kinds = ("nm-01", "nm-02", "nm-05", "bg-01", "bg-02", "cl-01", "cl-02")
    names = [(f"{p}", kind, view) for p in range(6) for kind in kinds for view in ("000", "018", "090")]
    labels, types, views = (list(column) for column in zip(*names, strict=True))
    return {"features": rng.normal(size=(len(names), 5, 2)), "labels": labels, "types": types, "views": views}


def test_results_have_one_shape_in_both_settings() -> None:
    single, cross = (evaluate("casia-b", **random_casia(), setting=name) for name in ("single-view", "cross-view"))
    assert shape_of(single) == shape_of(cross)
    assert set(single["NM"]["mean"]) == {"rank1", "rank5", "mAP"}


@pytest.mark.parametrize("k", [1, 5])
def test_rank_k_of_views_equals_a_plain_loop(k: int) -> None:
    walks = random_casia()
    scores = evaluate("casia-b", **walks, metric="euclidean")
    label, kind, view, x = walks["labels"], walks["types"], walks["views"], walks["features"]
    hits, precisions = [], []
    probes = [i for i in range(len(label)) if kind[i] in ("bg-01", "bg-02") and view[i] == "018"]
    for i in probes:
        gallery = [j for j in range(len(label)) if kind[j] in ("nm-01", "nm-02") and view[j] == "090"]
        order = sorted(gallery, key=lambda j: np.linalg.norm(x[i] - x[j], axis=0).mean())
        ranks = [place + 1 for place, j in enumerate(order) if label[j] == label[i]]
        hits.append(ranks[0] <= k)
        precisions.append(np.mean([(n + 1) / rank for n, rank in enumerate(ranks)]))
    assert scores["BG"]["matrix"][f"rank{k}"][1][2] == round(100 * np.mean(hits), 2)
    assert scores["BG"]["matrix"]["mAP"][1][2] == round(100 * np.mean(precisions), 2)


ONE_PERSON: dict[str, tuple[list[str], list[str], dict[str, Any]]] = {
    "gait3d": (["a", "a", "b"], ["0", "0", "0"], {"probe_mask": [True, False, True]}),
    "leave-one-out": (["a", "a", "probe"], ["0", "0", "0"], {}),
    "grew": (["a", "a", "b"], ["01", "02", "02"], {}),
    "casia-b": (["a", "a", "b"], ["nm-01", "nm-05", "nm-05"], {}),
    "oumvlp": (["a", "a", "b"], ["01", "00", "00"], {}),
    "sustech1k": (["a", "a", "b"], ["00-nm", "01-nm", "01-nm"], {}),
    "ccpg": (["a", "a", "b"], ["U1_D1", "U0_D0", "U0_D0"], {}),
}


@pytest.mark.parametrize("protocol", ONE_PERSON)
def test_a_gallery_of_one_person_is_no_score(protocol: str) -> None:
    labels, types, data = ONE_PERSON[protocol]
    features = np.random.default_rng(0).normal(size=(3, 4, 2))
    with pytest.raises(UserError, match=r"one person alone \(a\)"):
        evaluate(protocol, features, labels, types, ["000", "090", "090"], **data)


def test_a_run_without_a_gallery_says_so_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_store(tmp_path / "store", people=6, test_people=1)
    flags = [*TINY_SCRATCH, "--optim.iterations", "1", "--run.evaluate_every", "1", "--data.store", str(store)]
    assert main(["finetune", *flags, "--out", str(tmp_path / "run")]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "this run is not scored" in said
    assert "one person alone" in said
    assert "evaluation" not in (tmp_path / "run" / "metrics.jsonl").read_text()
    assert "one person alone" in refused(["evaluate", tmp_path / "run", "--data", store, "--device", "cpu"], capsys)


# --- what hides in conditions and views ---------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["single-view", "cross-view"])
def test_people_whose_names_are_not_told_are_in_no_condition(setting: str) -> None:
    """Scores with rows of the person "probe" are those without, and such a person makes no gallery of several."""
    walks = random_casia()
    told = evaluate("casia-b", **walks, setting=setting)
    secret = {**walks, "labels": ["probe"] * len(walks["labels"])}
    both = {key: [*walks[key], *secret[key]] for key in ("labels", "types", "views")}
    features = np.concatenate([walks["features"], walks["features"] + 0.01])
    assert evaluate("casia-b", features, **both, setting=setting) == told
    alone = ["1" if label == "1" else "probe" for label in walks["labels"]]
    with pytest.raises(UserError, match="one person alone"):
        evaluate("casia-b", **{**walks, "labels": alone}, setting=setting)


def test_a_view_with_one_person_is_no_score() -> None:
    """Whoever is looked for in a gallery view of one person is found, or cannot be: 100 or 0 by construction."""
    walks = random_casia()
    kept = [
        i
        for i, (label, kind, view) in enumerate(zip(walks["labels"], walks["types"], walks["views"], strict=True))
        if view != "090" or label == "2" or kind not in ("nm-01", "nm-02")
    ]
    less: dict[str, Any] = {key: [walks[key][i] for i in kept] for key in ("labels", "types", "views")}
    scores = evaluate("casia-b", walks["features"][kept], **less)
    whole = evaluate("casia-b", **walks)
    for name in ("NM", "BG", "CL"):
        matrix, full = (np.array(result[name]["matrix"]["rank1"], float) for result in (scores, whole))
        assert np.isnan(matrix[:, 2]).all()
        assert np.array_equal(matrix[:, :2], full[:, :2])
    with pytest.raises(UserError, match="each view of the gallery holds one person alone"):
        evaluate("casia-b", np.ones((4, 4, 2)), list("1122"), ["nm-01", "nm-05"] * 2, ["18", "0", "0", "18"])


def test_probes_seen_only_where_they_do_not_count_have_no_match() -> None:
    walks = random_casia()
    views = ["000" if label == "3" else view for label, view in zip(walks["labels"], walks["views"], strict=True)]
    scores = evaluate("casia-b", **{**walks, "views": views})
    assert scores["counts"]["without_match"] == 5 * 3  # five types of probes, three walks each


def test_every_scored_condition_has_its_row(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also the only one that is left of several: the reader must see what was scored."""
    rows = [row for row in CASIA_ROWS if row[1] in ("nm-01", "bg-01")]
    screen = scored([str(run), "--data", str(named_store(tmp_path / "store", rows, "casia-b"))], capsys)
    assert sum(line.strip("│ ").startswith("BG") for line in screen.splitlines()) == 2
    assert "the scores above are those of BG" in screen


def test_nobody_learns_that_the_nameless_are_one_person(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(subject, kind, view, "train", "") for subject, kind, view, _, _ in GREW_ROWS]
    store = named_store(tmp_path / "store", rows, "grew")
    flags = [*TINY_SCRATCH, "--optim.iterations", "1", "--run.evaluate_every", "0", "--data.store", str(store)]
    assert main(["finetune", *flags, "--out", str(tmp_path / "run")]) == 0
    assert "5 sequences" in " ".join(capsys.readouterr().err.split())
    checkpoint = tmp_path / "run" / "checkpoints" / "step-00000001"
    people = {row[0] for row in rows} - {"probe"}
    assert json.loads((checkpoint / "model.json").read_text())["num_classes"] == len(people)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"probe_set": ["a-0-0"], "probe_mask": [True, False, False, False]}, "both probe_set and probe_mask"),
        ({"probe_set": ["a-0-0", "z-0-0"]}, "1 of the 2 sequences that probe_set names .* 'z-0-0'"),
    ],
)
def test_probes_are_named_in_one_way_and_are_there(data: dict[str, Any], sentence: str) -> None:
    features = np.random.default_rng(0).normal(size=(4, 3, 2)).astype(np.float32)
    with pytest.raises(UserError, match=sentence):
        evaluate("gait3d", features, list("aabb"), ["0", "1"] * 2, ["0"] * 4, **data)
    with pytest.raises(UserError, match="real numbers"):
        evaluate("leave-one-out", features.astype(np.complex64), list("aabb"), ["0", "1"] * 2, ["0"] * 4)


def test_one_sequence_each_is_said() -> None:
    features = np.random.default_rng(0).normal(size=(4, 3, 2)).astype(np.float32)
    with pytest.raises(UserError, match="each person has one sequence alone"):
        evaluate("leave-one-out", features, list("abcd"), ["0"] * 4, ["0"] * 4)
