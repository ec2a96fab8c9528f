"""A number and its name: the protocol of a store's data set, and what every score says of itself."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

import gaitdiff
from gaitdiff.cli import main
from gaitdiff.data.store import SequenceStore
from gaitdiff.evaluation import distance_matrix, evaluate, grew_submission, hid_submission
from gaitdiff.evaluation.about import Compared
from gaitdiff.evaluation.held_out import held_out_rows
from gaitdiff.evaluation.protocols import PROTOCOLS
from gaitdiff.evaluation.stored import evaluate_store, store_protocol
from gaitdiff.recognition.losses import triplet_loss
from named_stores import CASIA_ROWS, GREW_ROWS, Names, named_store, scored
from worlds import TINY_PRETRAIN, TINY_SCRATCH, make_store


def ideal_features(store: SequenceStore, rows: np.ndarray) -> np.ndarray:
    """Features in which the nearest row of every known person is that person's, but a secret probe is nearer still."""
    people = sorted({store.rows[int(row)].subject for row in rows} - {"probe"})
    features = np.zeros((len(rows), len(people) + 1, 1), np.float32)
    for place, row in enumerate(rows):
        subject, view = store.rows[int(row)].subject, store.rows[int(row)].view
        secret = subject == "probe"
        features[place, int(view[1:]) if secret else people.index(subject), 0] = 1
        features[place, -1, 0] = 0.5 if secret or view.startswith("h") else 0.0
    return features


# --- the protocol of a data set -----------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["auto", "gait3d", "leave-one-out", "grew"])
def test_secret_probes_are_in_no_gallery(protocol: str, tmp_path: Path) -> None:
    """With a secret probe nearer than every person's own, rank-1 would be 0."""
    store = SequenceStore(named_store(tmp_path / "grew", GREW_ROWS, "grew"))
    rows = held_out_rows(store)
    scores = evaluate_store(ideal_features(store, rows), store, rows, protocol)
    assert scores["rank1"] == 100
    everyone = {"people": 5, "sequences": 10 if protocol == "leave-one-out" else 5}
    assert scores["counts"] == {"probe": everyone, "gallery": everyone, "without_match": 0}


@pytest.mark.parametrize("dataset", ["grew", "casia-b", "gait3d", "walkers", "frames", "", "unheard-of"])
def test_default_protocol_is_the_data_sets(dataset: str, tmp_path: Path) -> None:
    store = SequenceStore(named_store(tmp_path / "store", GREW_ROWS, dataset))
    assert store_protocol(store).name == (dataset if dataset in PROTOCOLS else "gait3d")
    assert store_protocol(store, "Leave_One_Out").name == "leave-one-out"


@pytest.mark.parametrize(
    ("source", "dataset"),
    [
        ("grew of GREW, import 0123456789abcdef", "grew"),
        ("casia-b of GaitDatasetB, import 0123456789abcdef", "casia-b"),
        ("walkers, preset lite, seed 0, 40 people", "walkers"),
        ("my own walks", ""),
    ],
)
def test_stores_of_older_versions_tell_their_data_set(source: str, dataset: str, tmp_path: Path) -> None:
    store = named_store(tmp_path / "store", GREW_ROWS)
    header = json.loads((store / "store.json").read_text())
    del header["dataset"]
    (store / "store.json").write_text(json.dumps({**header, "source": source}))
    assert SequenceStore(store).header.dataset == dataset


@pytest.mark.parametrize(
    ("dataset", "rows", "protocol"),
    [("grew", GREW_ROWS, "grew"), ("casia-b", CASIA_ROWS, "casia-b")],
)
def test_commands_take_the_data_sets_protocol(
    dataset: str, rows: list[Names], protocol: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = str(named_store(tmp_path / "store", rows, dataset))
    plain, asked = (scored([str(run), "--data", store, *more], capsys) for more in ((), ("--protocol", protocol)))
    assert plain == asked
    assert f"protocol: {protocol}" in plain
    two = ["--optim.iterations", "1", "--run.evaluate_every", "1", "--data.store", store, "--out"]
    for verb, flags in (("finetune", TINY_SCRATCH), ("pretrain", TINY_PRETRAIN)):
        out = tmp_path / verb
        assert main([verb, *flags, *two, str(out)]) == 0
        assert yaml.safe_load((out / "config.yaml").read_text())["run"]["protocol"] == protocol
        records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        named = [record["about"] for record in records if "evaluation" in record]
        assert [(about["protocol"], about["dataset"], about["step"]) for about in named] == [
            (protocol, dataset, 0),
            (protocol, dataset, 1),
        ]


def test_the_shipped_recipe_of_grew_logs_its_scores(tmp_path: Path) -> None:
    store = named_store(tmp_path / "store", GREW_ROWS, "grew")
    words = ["--recipe", "grew/scratch_smplgait", "--model.preset", "walkers", "--data.store", str(store)]
    words += ["--optim.iterations", "1", "--batch.people", "3", "--batch.sequences", "2", "--data.frames", "2"]
    assert main(["finetune", *words, "--run.evaluate_every", "1", "--out", str(tmp_path / "run")]) == 0
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    evaluations = [record["evaluation"] for record in records if "evaluation" in record]
    assert all(set(scores) == {"rank1", "rank5", "rank10", "rank20", "probes"} for scores in evaluations)


# --- what a score says of itself ----------------------------------------------------------------------------------


def test_every_score_is_named(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lonely: Names = ("00099", "02", "h9", "test", "probe")
    store, written = named_store(tmp_path / "grew", [*GREW_ROWS, lonely], "grew"), tmp_path / "scores.json"
    checkpoint = run / "checkpoints" / "step-00000002"
    screen = scored([str(checkpoint), "--data", str(store), "--json", str(written)], capsys)
    for words in (
        f"{checkpoint}, step 2 of 4, unfinished",
        f"store: {store} (grew, frames 64 x 64)",
        "protocol: grew, local check",
        "cosine distance",
        f"gaitdiff {gaitdiff.__version__}",
        "probes: 6 sequences of 6 people; gallery: 5 sequences of 5 people; 1 probe without a possible match",
    ):
        assert words in screen
    about = json.loads(written.read_text())["embeddings"]["about"]
    assert about["step"] == 2
    assert about["iterations"] == 4
    assert about["finished"] is False
    assert {about[key] for key in ("features", "metric", "protocol", "dataset", "gaitdiff")} == {
        *("embeddings", "cosine", "grew", gaitdiff.__version__)
    }
    assert about["counts"]["without_match"] == 1
    assert "step 4 of 4" in scored([str(run), "--data", str(store)], capsys)


def test_one_default_distance() -> None:
    for function, argument in (
        (evaluate, "metric"),
        (evaluate_store, "metric"),
        (distance_matrix, "metric"),
        (grew_submission, "metric"),
        (hid_submission, "metric"),
        (triplet_loss, "distance"),
    ):
        assert inspect.signature(function).parameters[argument].default == "cosine"


def test_a_checkpoint_is_compared_by_the_distance_it_learned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = make_store(tmp_path / "store")
    flags = [*TINY_SCRATCH, "--optim.iterations", "1", "--run.evaluate_every", "1", "--data.store", str(store)]
    for distance in ("euclidean", "cosine"):
        out = tmp_path / distance
        assert main(["finetune", *flags, "--loss.distance", distance, "--out", str(out)]) == 0
        screen = scored([str(out), "--data", str(store), "--json", str(tmp_path / "s.json")], capsys)
        assert f"{distance} distance" in screen
        logged = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
        told = json.loads((tmp_path / "s.json").read_text())["embeddings"]
        assert logged["about"]["metric"] == told["about"]["metric"] == distance
        assert logged["evaluation"]["mAP"] == pytest.approx(told["mAP"])


def test_where_overall_is_shown_its_name_is_said() -> None:
    """SUSTech1K's scores at the top are those of Overall alone."""
    rows = [(f"{p}", kind, view) for p in range(6) for kind in ("00-nm", "01-nm", "01-bg", "02-cl") for view in "ab"]
    labels, types, views = zip(*rows, strict=True)
    features = np.random.default_rng(0).normal(size=(len(rows), 4, 2)).astype(np.float32)
    scores = evaluate("sustech1k", features, labels, types, views)
    assert scores["missing"]
    assert scores["rank1"] == pytest.approx(scores["Overall"]["mean"]["rank1"])
    numbers = {side: {"sequences": 1, "people": 1} for side in ("probe", "gallery")}
    names = tuple(name for name in scores if isinstance(scores[name], dict) and "mean" in scores[name])
    assert {"Normal", "Overall"} <= set(names)
    what = Compared("s", "sustech1k", "", "sustech1k", None, names, {**numbers, "without_match": 0}, scores["missing"])
    assert "the scores above are those of Overall" in what.lines("cosine")
