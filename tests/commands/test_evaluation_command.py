"""``gaitdiff evaluate`` with the protocols that go by types and views."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from gaitdiff.cli import main
from gaitdiff.commands import evaluate as scores
from gaitdiff.data.store import SequenceStore, StoreWriter
from gaitdiff.evaluation import evaluate
from gaitdiff.evaluation.held_out import to_score
from gaitdiff.evaluation.stored import names_of
from reference import golden_set
from worlds import TINY_SCRATCH, make_run, make_store


def typed_store(path: Path, types: list[str], subjects: list[str]) -> Path:
    """Test sequences of every type, subject and two views."""
    rng = np.random.default_rng(0)
    with StoreWriter(path, width=64, crop="full", source="test") as writer:
        for subject in subjects:
            for kind in types:
                for view in ("000", "090"):
                    clip = (255 * (rng.random((4, 64, 64)) < 0.4)).astype(np.uint8)
                    where = {"view": view, "sequence": f"{subject}{kind}", "split": "test", "role": ""}
                    writer.add(clip, subject=subject, condition=kind, **where)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run"))


CASIA = ["nm-01", "nm-05", "bg-01", "cl-01", "nm-02", "bg-02", "cl-02"]


@pytest.mark.parametrize(("setting", "keys"), [("single-view", ("mean", "matrix")), ("cross-view", ("rank1", "mAP"))])
def test_table_json_and_features(
    run: Path, tmp_path: Path, setting: str, keys: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    store = typed_store(tmp_path / "store", CASIA, ["001", "002", "003"])
    written_to, features = tmp_path / "scores.json", tmp_path / "features.npy"
    words = ["evaluate", str(run), "--data", str(store), "--device", "cpu", "--protocol", "casia-b"]
    words += ["--setting", setting, "--json", str(written_to), "--save-features", str(features)]
    assert main(words) == 0
    table = capsys.readouterr().out
    for word in ("casia-b", setting, "NM", "BG", "CL", "gait energy image", "embeddings"):
        assert word in table
    written = json.loads(written_to.read_text())
    assert set(written["embeddings"]["NM"]) >= set(keys)
    opened = SequenceStore(store)
    names = names_of(opened, np.arange(len(opened)))
    again = evaluate("casia-b", np.load(features), *names, "cosine", setting=setting)
    named = written["embeddings"].pop("about")
    assert written["embeddings"] == again
    assert named["counts"] == again["counts"]
    first = written_to.read_bytes(), features.read_bytes()
    assert main(words) == 0  # what it wrote itself it writes anew
    assert (written_to.read_bytes(), features.read_bytes()) == first


ROWS = {
    "sustech1k": ["Normal", "Bag", "Clothing", "Carrying", "Umberalla", "Uniform", "Occlusion", "Night"],
    "ccpg": ["CL", "UP", "DN", "BG"],
    "casia_b": ["NM", "BG", "CL"],
    "oumvlp": [],
    "grew": [],
}


@pytest.mark.parametrize("name", ROWS)
def test_tables_have_a_line_a_row_at_80_columns(name: str) -> None:
    result = evaluate(name, **golden_set(name)[0])
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(scores.score_table(name, {"gait energy image": result, "embeddings": result}))
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in console.export_text().splitlines()]
    rows = [cells for cells in lines if cells]
    assert [cells[0] for cells in rows] == ["gait energy image", *ROWS[name], "embeddings", *ROWS[name]]
    first = rows[0]
    assert first[1] == f"{result['rank1']:.1f}"
    assert first[-1] == f"{result['probes']}"
    for cells in rows[1 : len(ROWS[name]) + 1]:
        assert cells[-1] == f"{result[cells[0]]['probes']}"
        assert all(cells[1:])


@pytest.mark.parametrize(("protocol", "types", "subjects", "header"), [
    ("grew", ["01", "02", "03"], [f"{i:05d}" for i in range(6)], "videoId"),
    ("hid", ["0"], ["001", "002", "probe"], "videoID"),
])  # fmt: skip
def test_submission(
    run: Path, tmp_path: Path, protocol: str, types: list[str], subjects: list[str], header: str
) -> None:
    store, file = typed_store(tmp_path / "store", types, subjects), tmp_path / "submission.csv"
    words = ["evaluate", str(run), "--data", str(store), "--device", "cpu", "--protocol", protocol]
    assert main([*words, "--submission", str(file)]) == 0
    lines = list(csv.reader(file.open()))
    assert lines[0][0] == header
    assert len(lines) == 1 + (12 if protocol == "grew" else 2)
    known = {str(int(one)) if protocol == "grew" else one for one in subjects if one != "probe"}
    assert all(set(line[1:]) <= known for line in lines[1:])
    first = file.read_bytes()
    assert main([*words, "--submission", str(file)]) == 0
    assert file.read_bytes() == first


@pytest.mark.parametrize(("types", "subjects", "sentence"), [
    (["01", "02"], [f"{i:05d}" for i in range(6)], "finds no probes for the submission"),
    (["01", "02", "03"], ["00001", "00002"], "20 nearest gallery rows, but"),
    (["01", "02", "03"], ["00001"], "holds one person alone"),
    (["01", "02", "03"], ["00001", "x7", "3", "4", "5", "6"], "has 'x7'"),
])  # fmt: skip
def test_a_store_that_gives_no_submission_is_refused_at_the_start(
    run: Path,
    tmp_path: Path,
    types: list[str],
    subjects: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scores, "load_checkpoint", None)
    store = typed_store(tmp_path / "store", types, subjects)
    words = ["evaluate", str(run), "--data", str(store), "--device", "cpu", "--protocol", "grew"]
    assert main([*words, "--submission", str(tmp_path / "x.csv")]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--protocol", "casia-b"), "finds no gallery for NM"),
        (("--protocol", "casia-b", "--setting", "side-view"), "has no setting 'side-view'"),
        (("--protocol", "ccpg", "--setting", "cross-view"), "protocol 'ccpg' has no setting 'cross-view'"),
        (("--protocol", "gait3d", "--setting", "cross-view"), "has no setting 'cross-view'"),
        (("--protocol", "gait3d", "--submission", "x.csv"), "has no file to submit"),
        (("--protocol", "oumvlp", "--save-features", "no/where/x.npy"), "its folder does not exist"),
        ((), "has the role 'probe', by which protocol 'gait3d' goes"),
        (("--protocol", "hid", "--json", "x.json"), "probes carry the label 'probe', but all 2 rows have other labels"),
        (("--protocol", "hid"), "give --submission or --json a file"),
        (("--protocol", "hid", "--save-features", "x.npy"), "give --submission or --json a file"),
        (("--protocol", "oumvlp", "--json", "."), "exists already: choose another --json"),
        (("--protocol", "oumvlp", "--save-features", "mine"), "call it mine.npy"),
        (("--protocol", "oumvlp", "--save-features", "mine.npy"), "exists already: choose another --save-features"),
        (
            ("--protocol", "oumvlp", "--json", "x.npy", "--save-features", "./x.npy"),
            "--json and --save-features are the same",
        ),
        (("--protocol", "grew", "--json", "x", "--submission", "./x"), "--json and --submission are the same file"),
        (("--protocol", "oumvlp", "--json", "mine.json"), "exists already: choose another --json"),
        (("--protocol", "grew", "--submission", "mine"), "exists already: choose another --submission"),
        (("--protocol", "casia"), "did you mean 'casia-b'"),
    ],
)
def test_mistakes_are_one_sentence(
    run: Path,
    tmp_path: Path,
    flags: tuple[str, ...],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All before any work: neither a checkpoint is loaded nor a feature computed; no file is written over."""
    monkeypatch.chdir(tmp_path)
    Path("mine").write_text("mine")
    Path("mine.json").write_text('{"mine": {"all": 1}}')
    np.save("mine.npy", np.zeros((4, 5, 6), np.float32))  # of other walks
    for work in ("load_checkpoint", "gait_energy_images", "extract_shared_to"):
        monkeypatch.setattr(scores, work, None)
    store = typed_store(tmp_path / "store", ["nm-05"], ["001"])
    assert main(["evaluate", str(run), "--data", str(store), "--device", "cpu", *flags]) == 2
    message = capsys.readouterr().err.strip()
    assert sentence in message
    assert "\n" not in message
    assert Path("mine").read_text() == "mine"
    assert "all" in Path("mine.json").read_text()
    assert np.load("mine.npy").shape == (4, 5, 6)


def test_a_protocol_without_probes_is_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = make_store(tmp_path / "store")
    words = ["finetune", *TINY_SCRATCH, "--data.store", str(store), "--out", str(tmp_path / "run")]
    assert main([*words, "--run.protocol", "casia-b"]) == 2
    assert "finds no probes for NM: it looks for the types 'nm-05', 'nm-06'" in capsys.readouterr().err
    assert main([*words, "--run.protocol", "hid"]) == 2
    assert "gives no scores" in capsys.readouterr().err
    assert len(to_score(SequenceStore(store), "gait3d").rows) == 6


def test_a_run_scored_by_views_keeps_the_headline_alone(tmp_path: Path) -> None:
    store = tmp_path / "store"
    rng = np.random.default_rng(0)
    with StoreWriter(store, width=64, crop="full", source="test") as writer:
        for split, subjects in (("train", ("001", "002", "003")), ("test", ("004", "005"))):
            for subject in subjects:
                for kind in ("00", "01"):
                    for view in ("000", "090"):
                        clip = (255 * (rng.random((4, 64, 64)) < 0.4)).astype(np.uint8)
                        where = {"view": view, "sequence": "0", "split": split, "role": ""}
                        writer.add(clip, subject=subject, condition=kind, **where)
    flags = [*TINY_SCRATCH, "--optim.iterations", "1", "--run.evaluate_every", "1", "--run.protocol", "oumvlp"]
    assert main(["finetune", *flags, "--data.store", str(store), "--out", str(tmp_path / "run")]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    evaluations = [line["evaluation"] for line in lines if "evaluation" in line]
    assert len(evaluations) == 2
    assert all(set(scores) == {"rank1", "rank5", "mAP", "probes"} for scores in evaluations)
    assert all(scores["probes"] == 4 for scores in evaluations)
