"""A number and its name: the protocol of a store's data set, who is compared, and what every score says of itself."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import gaitdiff
from gaitdiff.cli import main
from gaitdiff.data.store import SequenceStore, StoreWriter
from gaitdiff.errors import UserError
from gaitdiff.evaluation import distance_matrix, evaluate, grew_submission, hid_submission
from gaitdiff.evaluation.about import Compared
from gaitdiff.evaluation.features import evaluate_store, extract, held_out_rows, store_protocol
from gaitdiff.evaluation.protocols import PROTOCOLS
from gaitdiff.recognition.losses import triplet_loss
from gaitdiff.training.checkpoint import read_checkpoint_info
from worlds import TINY_PRETRAIN, TINY_SCRATCH, make_store

#: subject, condition, view, split, role
Names = tuple[str, str, str, str, str]

GREW_ROWS: list[Names] = [
    *((f"{p:05}train", "00", f"t{p}{k}", "train", "") for p in range(3) for k in range(2)),
    *((f"{p:05}", "01", f"g{p}", "test", "gallery") for p in range(5)),
    *((f"{p:05}", "02", f"h{p}", "test", "probe") for p in range(5)),
    *(("probe", "03", f"v{p}", "test", "") for p in range(5)),
]
CASIA_ROWS: list[Names] = [
    *((f"{p:03}", kind, view, "train", "") for p in range(3) for kind in ("nm-01", "nm-02") for view in ("000", "090")),
    *(
        (f"{p:03}", kind, view, "test", "gallery" if kind == "nm-01" else "probe")
        for p in range(80, 84)
        for kind in ("nm-01", "nm-05", "bg-01", "cl-01")
        for view in ("000", "018", "090")
    ),
]


def named_store(path: Path, rows: Sequence[Names], dataset: str = "", height: int = 64) -> Path:
    """A store with these names; everybody's frames are a bar of a width of their own."""
    people = sorted({row[0] for row in rows})
    with StoreWriter(path, height=height, width=height, source="test", dataset=dataset) as writer:
        for number, (subject, condition, view, split, role) in enumerate(rows):
            rng = np.random.default_rng(number)
            clip = np.zeros((4, height, height), np.uint8)
            for frame in clip:
                left = height // 2 - 4 + int(rng.integers(0, 3))
                frame[:, left : left + 3 + 2 * people.index(subject)] = 255
                frame[int(rng.integers(0, height)), : height // 2] = 255
            where = {"condition": condition, "view": view, "sequence": f"s{number}", "split": split, "role": role}
            writer.add(clip, subject=subject, **where)
    return path


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


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps of training, a checkpoint at the second and the last."""
    folder = tmp_path_factory.mktemp("run")
    store = make_store(folder / "train", test_people=0)
    flags = [*TINY_SCRATCH, "--optim.iterations", "4", "--run.save_every", "2", "--run.evaluate_every", "0"]
    assert main(["finetune", *flags, "--data.store", str(store), "--out", str(folder / "run")]) == 0
    return folder / "run"


def scored(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What ``evaluate`` prints."""
    capsys.readouterr()
    assert main(["evaluate", "--device", "cpu", *words]) == 0
    return capsys.readouterr().out


def refused(words: Sequence[str | Path], capsys: pytest.CaptureFixture[str]) -> str:
    """The sentence of a refused command."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("gaitdiff: ")
    return message


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


# --- what a checkpoint remembers ----------------------------------------------------------------------------------


def test_frames_of_another_height_are_refused_or_converted(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = GREW_ROWS[6:16]
    large = named_store(tmp_path / "large", rows, "grew", height=128)
    words = ["evaluate", run, "--data", large, "--device", "cpu"]
    sentence = refused(words, capsys)
    assert "64 px" in sentence
    assert "128 px" in sentence
    assert "--resize" in sentence
    assert main([str(word) for word in (*words, "--resize", "--save-features", tmp_path / "resized.npy")]) == 0
    halved = tmp_path / "halved"
    with StoreWriter(halved, source="test", dataset="grew") as writer:
        for sequence in SequenceStore(large):
            pooled = sequence.frames.reshape(4, 64, 2, 64, 2).astype(np.uint16).sum((2, 4))
            row = sequence.row
            where = {"condition": row.condition, "view": row.view, "sequence": row.sequence, "role": row.role}
            writer.add(((pooled + 2) // 4).astype(np.uint8), subject=row.subject, split="test", **where)
    other = [str(run), "--data", str(halved), "--save-features", str(tmp_path / "halved.npy")]
    assert main(["evaluate", "--device", "cpu", *other]) == 0
    ours, theirs = (np.load(tmp_path / name) for name in ("resized.npy", "halved.npy"))
    assert np.abs(ours - theirs).max() < 2e-2 * np.abs(theirs).max()  # a half is rounded to either side


def test_finetuning_refuses_frames_of_another_height(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[Names] = [(f"p{p}", "", f"v{k}", "train", "") for p in range(4) for k in range(2)]
    small, large = (named_store(tmp_path / f"{h}", rows, height=h) for h in (64, 128))
    once = ["--optim.iterations", "1", "--run.evaluate_every", "0"]
    assert main(["pretrain", *TINY_PRETRAIN, *once, "--data.store", str(small), "--out", str(tmp_path / "one")]) == 0
    words = ["finetune", *once, "--init", tmp_path / "one", "--out", tmp_path / "two", "--data.store", large]
    assert "--size 64" in refused([*words, "--batch.people", "2", "--batch.sequences", "2"], capsys)
    assert not (tmp_path / "two").exists()


def test_a_pretrained_checkpoint_has_features_and_no_embedding(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", test_people=0)
    flags = [*TINY_PRETRAIN, "--optim.iterations", "1", "--run.evaluate_every", "0", "--data.store", str(store)]
    assert main(["pretrain", *flags, "--out", str(tmp_path / "run")]) == 0
    clip = torch.rand(2, 3, 64, 44)
    with torch.no_grad():
        first, again = (gaitdiff.load_checkpoint(tmp_path / "run")(clip) for _ in range(2))
    assert torch.equal(first.feature, again.feature)
    assert first.logits is None
    with pytest.raises(UserError, match=r"\.feature"):
        _ = first.embedding


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


# --- checkpoints that are odd -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "changed", "sentence"),
    [
        ("state", {"step": "six"}, "its step is 'six'"),
        ("state", {"iterations": 2.5}, "its iterations is 2.5"),
        ("state", None, "state.json"),
        ("model", {"height": "tall"}, "its height is 'tall'"),
        ("model", {"height": 0}, "its height is 0"),
        ("model", {"height": 64.5}, "its height is 64.5"),
        ("model", {"distance": "manhattan"}, "its distance 'manhattan'"),
    ],
)
def test_damaged_documents_are_named(
    file: str,
    changed: dict[str, Any] | None,
    sentence: str,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    copy = shutil.copytree(run / "checkpoints" / "step-00000004", tmp_path / "copy")
    document = copy / f"{file}.json"
    content = "{" if changed is None else json.dumps({**json.loads(document.read_text()), **changed})
    document.write_text(content)
    store = named_store(tmp_path / "store", GREW_ROWS, "grew")
    message = refused(["evaluate", copy, "--data", store, "--device", "cpu"], capsys)
    assert sentence in message
    assert f"{file}.json" in message


def test_a_resized_score_says_so(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    large = named_store(tmp_path / "large", GREW_ROWS[6:16], "grew", height=128)
    written = tmp_path / "s.json"
    screen = scored([str(run), "--data", str(large), "--resize", "--json", str(written)], capsys)
    assert "frames 128 x 128, resized to a height of 64" in screen
    assert "resized" in json.loads(written.read_text())["embeddings"]["about"]["frames"]
    unknown = shutil.copytree(run / "checkpoints" / "step-00000004", tmp_path / "unknown")
    document = json.loads((unknown / "model.json").read_text())
    del document["height"]
    (unknown / "model.json").write_text(json.dumps(document))
    message = refused(["evaluate", unknown, "--data", large, "--resize", "--device", "cpu"], capsys)
    assert "--resize has no size to go to" in message


def test_a_checkpoint_is_the_one_that_its_name_says(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that goes on writes a newer checkpoint after the first look: the score stays that of the older."""
    going = shutil.copytree(run, tmp_path / "going")
    newest = going / "checkpoints" / "step-00000004"
    newest.rename(tmp_path / "later")

    def load(path: Path, *rest: Any) -> Any:
        (tmp_path / "later").rename(newest)
        return gaitdiff.load_checkpoint(path, *rest)

    monkeypatch.setattr("gaitdiff.commands.evaluate.load_checkpoint", load)
    store = str(named_store(tmp_path / "store", GREW_ROWS, "grew"))
    words = [str(going), "--data", store, "--save-features", str(tmp_path / "going.npy")]
    assert "step 2 of 4" in scored(words, capsys)
    monkeypatch.undo()
    scored(
        [str(run / "checkpoints/step-00000002"), "--data", store, "--save-features", str(tmp_path / "two.npy")], capsys
    )
    assert np.array_equal(np.load(tmp_path / "going.npy"), np.load(tmp_path / "two.npy"))


def test_nobody_learns_that_the_nameless_are_one_person(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(subject, kind, view, "train", "") for subject, kind, view, _, _ in GREW_ROWS]
    store = named_store(tmp_path / "store", rows, "grew")
    flags = [*TINY_SCRATCH, "--optim.iterations", "1", "--run.evaluate_every", "0", "--data.store", str(store)]
    assert main(["finetune", *flags, "--out", str(tmp_path / "run")]) == 0
    assert "5 sequences" in " ".join(capsys.readouterr().err.split())
    checkpoint = tmp_path / "run" / "checkpoints" / "step-00000001"
    people = {row[0] for row in rows} - {"probe"}
    assert json.loads((checkpoint / "model.json").read_text())["num_classes"] == len(people)


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


def test_a_backbone_too_refuses_frames_of_another_height(tmp_path: Path) -> None:
    """As a pretrained model's features are made; and a height that is not told is said."""
    small, large = (SequenceStore(named_store(tmp_path / f"{h}", GREW_ROWS, height=h)) for h in (64, 128))
    model = gaitdiff.create_model("smplgait", "tiny").eval()
    model.height = 128
    rows, cpu = held_out_rows(small), torch.device("cpu")
    assert len(extract(model.backbone, large, rows[:2], cpu)) == 2
    with pytest.raises(UserError, match="trained on frames 128 px high"):
        extract(model.backbone, small, rows[:2], cpu)
    assert len(extract(model.backbone, small, rows[:2], cpu, height=128)) == 2


def test_a_height_that_is_not_told_is_said(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy, store = tmp_path / "run", named_store(tmp_path / "store", GREW_ROWS)
    shutil.copytree(run, copy)
    for file in copy.glob("checkpoints/*/model.json"):
        file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "height"}))
    assert main(["evaluate", str(copy), "--data", str(store), "--device", "cpu"]) == 0
    assert "does not say on frames of which height it was trained" in " ".join(capsys.readouterr().err.split())
    flags = [*TINY_SCRATCH, "--optim.iterations", "1", "--run.evaluate_every", "0", "--data.store", str(store)]
    words = [*flags, "--mode", "finetune", "--init", str(copy), "--out", str(tmp_path / "more")]
    assert main(["finetune", *words]) == 0
    assert "does not say on frames of which height it was trained" in " ".join(capsys.readouterr().err.split())


def test_a_checkpoint_elsewhere_in_a_run_folder_is_not_the_runs(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "kept").mkdir()
    shutil.copytree(next((run / "checkpoints").iterdir()), copy / "kept" / "one")
    state = copy / "kept" / "one" / "state.json"
    state.write_text(json.dumps({"step": 2, "pending": []}))
    origin = read_checkpoint_info(copy / "kept" / "one").origin
    assert (origin.step, origin.iterations, origin.finished) == (2, None, None)
