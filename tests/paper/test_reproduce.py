"""An experiment as one command: planned, done once by whoever does it, stopped, gone on with, and drawn."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest

from gaitdiff.cli import main
from gaitdiff.errors import UserError
from gaitdiff.paper.cells import EXPERIMENTS, Run
from gaitdiff.paper.figures import draw
from gaitdiff.paper.grid import Job
from gaitdiff.paper.results import Result, read_result
from gaitdiff.training.run_folder import read_metrics
from worlds import make_store

STAGE1 = ("optim.iterations=4", "optim.batch=4", "optim.warmup=1", "optim.hold_backbone=0")
STAGE2 = ("optim.iterations=4", "optim.milestones=[3]")
SET = (
    *(f"pretrain:{one}" for one in STAGE1),
    *(f"finetune:{one}" for one in STAGE2),
    *("data.latent_frames=2", "data.gait_frames=2", "data.frames=2", "batch.people=3", "batch.sequences=2"),
    *("run.evaluate_every=2", "run.save_every=1", "run.log_every=1", "machine.threads=1"),
)
TWO = ("--only", "finetuned-gait3d-smplgait", "--only", "*smplgait-max")


def command(folder: Path, what: str, *words: str) -> list[str]:
    sets = [word for setting in SET for word in ("--set", setting)]
    where = ["--store", str(folder / "store"), "--out", str(folder / "out")]
    return ["reproduce", what, "--scale", "walkers", *where, *sets, "--device", "cpu", *words]


def results(folder: Path) -> dict[str, bytes]:
    return {file.stem: file.read_bytes() for file in sorted((folder / "out" / "results").glob("*.json"))}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of Table III with two seeds, and Figure 5."""
    folder = tmp_path_factory.mktemp("paper")
    make_store(folder / "store", people=7, test_people=3)
    assert main(command(folder, "table3", *TWO, "--seeds", "2")) == 0
    assert main(command(folder, "fig5", "--seeds", "2")) == 0
    return folder


def test_a_plan_of_thirteen_rows_needs_no_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    assert main(["reproduce", "table3", "--scale", "walkers", "--dry-run", "--out", out, "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "13 cells, 2 more to compare with" in printed
    assert "30 of 30 runs to do: about" in printed
    commands = [line for line in printed.splitlines() if line.startswith("gaitdiff ")]
    assert len(commands) == 30
    assert "--diffusion.pooling max" in "".join(commands)
    assert not (tmp_path / "out").exists()


def test_a_row_has_both_numbers(made: Path) -> None:
    """Ours is what the runs' own last evaluations say, and its difference that of the two rows."""
    document = json.loads((made / "out" / "table3.json").read_text())
    first, pooled = (document["cells"][f"finetuned-gait3d-smplgait{name}"] for name in ("", "-max"))
    for cell, name in ((first, ""), (pooled, "-max")):
        runs = [made / "out" / "runs" / f"finetuned-gait3d-smplgait{name}-{seed}" for seed in (0, 1)]
        last = [[r["evaluation"] for r in read_metrics(run) if "evaluation" in r][-1] for run in runs]
        assert cell["rank1"] == pytest.approx([scores["rank1"] for scores in last], abs=0.01)
        assert cell["mAP"] == pytest.approx([scores["mAP"] for scores in last], abs=0.01)
        assert cell["iterations"] == [4, 4]
    assert (first["printed"], pooled["printed"]) == (49.1, 47.8)
    assert pooled["beside"] == "finetuned-gait3d-smplgait-mean"
    mean = [
        [r["evaluation"]["mAP"] for r in read_metrics(run) if "evaluation" in r][-1]
        for run in sorted((made / "out" / "runs").glob("finetuned-gait3d-smplgait-mean-?"))
    ]
    assert pooled["gain"]["mAP"] == pytest.approx(np.mean(pooled["mAP"]) - np.mean(mean), abs=0.02)
    low, high = pooled["interval"]["mAP"]
    assert low <= pooled["gain"]["mAP"] <= high
    text = (made / "out" / "table3.md").read_text()
    assert "47.8" in text
    assert "| pooling max |" in text
    assert "not to be compared" in text


def test_pretraining_is_kept_person_by_person(made: Path) -> None:
    """Before and after it, raw features score what the run's own evaluations say."""
    kept = json.loads(results(made)["pretrain-gait3d-smplgait-0"])
    told = [r["evaluation"] for r in read_metrics(made / "out" / "runs" / kept["name"]) if "evaluation" in r]
    for key, scores in (("before", told[0]), ("outcome", told[-1])):
        hits, probes = (sum(kept[key][name]) for name in ("hits", "probes"))
        assert 100 * hits / probes == pytest.approx(scores["rank1_cosine"], abs=0.01)
        assert 100 * sum(kept[key]["precision"]) / probes == pytest.approx(scores["mAP_cosine"], abs=0.01)
    assert [pair["step"] for pair in kept["pairs"]] == [1, 2, 3, 4]


def test_a_run_is_shared_by_tables_and_figures(made: Path) -> None:
    names = set(results(made))
    assert "pretrain-gait3d-smplgait-same-clip-1" in names
    assert len(names) == 2 * (3 * 2 + 1)  # three rows of both stages, and one more pretraining
    assert cv2.imread(str(made / "out" / "fig5.png")).std() > 1
    assert (made / "out" / "fig5.svg").read_text().startswith("<?xml")


def test_what_is_finished_is_not_done_again(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = results(made)
    shutil.rmtree(made / "out" / "runs")
    assert main(command(made, "table3", *TWO, "--seeds", "2")) == 0
    assert "0 of 12 runs to do" in capsys.readouterr().out
    assert results(made) == before
    assert not (made / "out" / "runs").exists()


@pytest.mark.parametrize("what", ["fig1", "fig2", "fig3", "fig4"])
def test_other_figures(made: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    some = {"fig1": (), "fig2": (), "fig3": ("--only", "*-gait3d-gaitset"), "fig4": ("--only", "*-gaitset")}[what]
    words = command(made, what, *some)
    if what == "fig1":
        words = ["reproduce", "fig1", "--store", f"gait3d={made / 'store'}", "--out", str(made / "out")]
    assert main(words) == 0
    assert (made / "out" / f"{what}.svg").read_text().startswith("<?xml")
    assert cv2.imread(str(made / "out" / f"{what}.png")).std() > 1
    assert f"{what}.png" in capsys.readouterr().out.replace("\n", "")


def test_killed_and_shared_by_two_no_run_is_done_twice(made: Path, tmp_path: Path) -> None:
    """Killed in the midst, then gone on with by two processes at once: the same results, each made once."""
    shutil.copytree(made / "store", tmp_path / "store")
    words = [sys.executable, "-m", "gaitdiff", *command(tmp_path, "table3", *TWO)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (tmp_path / "log").open("wb") as log:
        first = subprocess.Popen(words, stdout=log, stderr=log, env=environment)
        while len(list((tmp_path / "out" / "results").glob("*.json"))) < 2:
            assert first.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.02)
        first.send_signal(signal.SIGKILL)
        first.wait()
        stamps = {file: file.stat().st_mtime_ns for file in (tmp_path / "out" / "results").glob("*.json")}
        both = [
            subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
            for _ in range(2)
        ]
        said = [process.communicate(timeout=300)[1].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert all(file.stat().st_mtime_ns == stamp for file, stamp in stamps.items())
    whole = results(made)
    rows = ("", "-max", "-mean")
    assert set(results(tmp_path)) == {
        f"{kind}-gait3d-smplgait{row}-0" for kind in ("pretrain", "finetuned") for row in rows
    }
    for name, content in results(tmp_path).items():
        one, other = json.loads(content), json.loads(whole[name])
        assert (one["outcome"], one["evaluations"]) == (other["outcome"], other["evaluations"])
        begun = f"{name}: {'pretrain' if name.startswith('pretrain') else 'finetune'}"
        times = sum(words.count(begun) for words in said)
        assert times == (0 if tmp_path / "out" / "results" / f"{name}.json" in stamps else 1), name


def test_another_working_directory_goes_on(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the same folder by another path, and after a pretraining whose fine-tuning is not there yet."""
    shutil.copytree(made / "store", tmp_path / "store")
    (tmp_path / "sub").mkdir()
    first = command(tmp_path, "table3", "--only", "finetuned-gait3d-smplgait", "--set", "run.keep=0")
    monkeypatch.chdir(tmp_path)
    first[first.index("--out") + 1], first[first.index("--store") + 1] = "out", "store"
    assert main(first) == 0
    whole = results(tmp_path)
    tuned = "finetuned-gait3d-smplgait-0"
    (tmp_path / "out" / "results" / f"{tuned}.json").unlink()
    shutil.rmtree(tmp_path / "out" / "runs" / tuned / "checkpoints" / "step-00000004")
    monkeypatch.chdir(tmp_path / "sub")
    first[first.index("out")], first[first.index("store")] = "../out", "../store"
    assert main(first) == 0
    one, other = (json.loads(found[tuned]) for found in (whole, results(tmp_path)))
    assert (one["outcome"], one["settings"]) == (other["outcome"], other["settings"])
    capsys.readouterr()
    (tmp_path / "out" / "results" / f"{tuned}.json").unlink()
    shutil.rmtree(tmp_path / "out" / "runs")
    assert main(first) == 2
    assert "is gone, which it starts from: remove" in capsys.readouterr().err


def test_a_run_that_ends_early_is_kept_as_such(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "store", tmp_path / "store")
    words = [word.replace("pretrain:optim.iterations=4", "pretrain:optim.iterations=30") for word in SET]
    words = [word for setting in (*words, "run.best=ap_an", "run.patience=1") for word in ("--set", setting)]
    where = ["--store", str(tmp_path / "store"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main(["reproduce", "fig5", "--scale", "walkers", *where, *words]) == 0
    for content in results(tmp_path).values():
        one = json.loads(content)
        assert one["iterations"] == one["evaluations"][-1]["step"] == one["pairs"][-1]["step"]


def test_seeds_of_unequal_lengths_are_drawn(tmp_path: Path) -> None:
    """As far as all of them go."""

    class Finished:
        def result(self, job: Job) -> Result:
            steps = range(0, 3 + job.seed)
            scores = [{"step": s, "rank1_cosine": 10.0 * s, "rank1": 5.0 * s, "rank1_euclidean": 3.0} for s in steps]
            pairs = [{"step": s, "ap": 0.1, "an": 0.2} for s in steps]
            return Result(job.name, {}, "", len(steps) - 1, 1.0, scores, pairs, None, None, {})

        def finished(self, run: Run, seeds: Iterable[int]) -> dict[int, Result]:
            return {seed: self.result(Job(run, seed)) for seed in seeds}

    for what in ("fig2", "fig3", "fig4", "fig5"):
        draw(what, Finished(), EXPERIMENTS[what]("walkers"), 2, tmp_path / what)  # type: ignore[arg-type]
        assert cv2.imread(str(tmp_path / f"{what}.png")).std() > 1


def test_stores_without_scores_are_refused_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_store(tmp_path / "store", people=4, test_people=0)
    assert main(command(tmp_path, "table3", *TWO)) == 2
    assert "nothing can be scored" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_failed_run_does_not_stop_the_others(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(made / "store", tmp_path / "store")
    bad = tmp_path / "out" / "runs" / "pretrain-gait3d-smplgait-max-0"
    bad.mkdir(parents=True)
    (bad / "mine").touch()
    assert main(command(tmp_path, "table3", *TWO)) == 2
    sentence = capsys.readouterr().err.splitlines()[-1]
    assert "2 of 6 runs failed" in sentence
    assert "is no run folder" in sentence
    assert "which it starts from, failed" in sentence
    assert "Traceback" not in sentence
    assert len(results(tmp_path)) == 4
    assert (tmp_path / "out" / "failed" / "pretrain-gait3d-smplgait-max-0.txt").read_text()
    assert "not done" in (tmp_path / "out" / "table3.md").read_text()
    shutil.rmtree(bad)
    assert main(command(tmp_path, "table3", *TWO)) == 0
    assert list((tmp_path / "out" / "failed").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("--only", "nobody"), "--only nobody names no cell"),
        (("--seeds", "0"), "--seeds is 0"),
        (("--set", "optim.bacth=3"), "no stage has such a setting"),
        (("--set", "seed=3"), "is not free"),
        (("--store", "casia-b=x"), "are gait3d and grew"),
        (("--set", "data.frames=3"), "given twice"),
        (("--set", "data.min_frames=1"), "is of both stages"),
        (("--set", "pretrain:data.min_frames=1"), "with other settings (data.min_frames = 2, not 1)"),
        (("--set", "pretrain:batch.people=3"), "no stage has such a setting"),
        (("--set", "train:batch.people=3"), "no stage has such a setting"),
        (("--set", "diffusion.pooling=mean"), "differs from other runs by it"),
        (("--set", "augment.flip=0"), "differs from other runs by it"),
        (("--set", "model.overrides={}"), "is not free"),
        (("--only", ""), "--only is empty"),
        (("--seeds", "1001"), "from 1 to 1000"),
        (("--store", "x"), "x"),
    ],
)
def test_mistakes_are_one_sentence(
    made: Path, words: tuple[str, ...], key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = results(made)
    if words == ("--set", "augment.flip=0"):
        words = ("--set", "pretrain:augment.flip=0", "--only", "*not-augmented")
    given = ["reproduce", "table3", "--scale", "walkers", "--out", str(made / "out"), "--device", "cpu", *TWO, *words]
    if "--store" not in words:
        given = [*command(made, "table3", *TWO), *words]
    assert main(given) == 2
    error = capsys.readouterr().err
    assert key in error
    assert "Traceback" not in error
    assert results(made) == before


def test_paper_scale_asks_for_a_store(tmp_path: Path, made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    walkers = ["--store", str(made / "store"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main(["reproduce", "fig1", "--out", str(tmp_path / "out")]) == 2
    assert "add --store PATH" in capsys.readouterr().err
    assert main(["reproduce", "fig1", *walkers, "--only", "x"]) == 2
    assert "leave out --only" in capsys.readouterr().err
    assert main(["reproduce", "table3", "--scale", "walkers", *walkers, "--store", str(made / "store")]) == 2
    assert "two stores are given for Gait3D" in capsys.readouterr().err
    assert main(["reproduce", "table3", "--scale", "walkers", "--store", f"grew={made / 'store'}"]) == 2
    assert "no store of Gait3D is given" in capsys.readouterr().err
    assert main(["reproduce", "table3", *walkers]) == 2
    assert "say which of the paper's it stands for" in capsys.readouterr().err


DAMAGE: dict[str, object] = {
    "name": None,
    "settings": "nonsense",
    "manifest_sha256": 7,
    "iterations": "4",
    "seconds": "abc",
    "evaluations": "oops",
    "pairs": [1],
    "outcome": {"probes": 3},
    "before": [],
    "made": [],
}


def test_a_part_of_a_table_keeps_the_rest(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    document = (tmp_path / "out" / "table3.json").read_bytes()
    assert main(command(tmp_path, "table3", "--only", "finetuned-gait3d-smplgait", "--seeds", "2")) == 0
    after = (tmp_path / "out" / "table3.json").read_bytes()
    assert len(json.loads(document)["cells"]) > 1
    assert json.loads(after)["cells"].keys() == json.loads(document)["cells"].keys()


@pytest.mark.parametrize("key", DAMAGE)
def test_a_damaged_result_is_refused_by_name(key: str, made: Path, tmp_path: Path) -> None:
    file = next((made / "out" / "results").glob("*.json"))
    content = json.loads(file.read_text())
    assert content.keys() == DAMAGE.keys()
    assert read_result(file) is not None
    (damaged := tmp_path / "one.json").write_text(json.dumps(content | {key: DAMAGE[key]}))
    with pytest.raises(UserError, match=re.escape(f"{damaged} is damaged")):
        read_result(damaged)
