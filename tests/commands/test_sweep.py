"""Runs in numbers: swept by one command, compared by another."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from gaitdiff.cli import main
from gaitdiff.commands.sweep import split_values
from gaitdiff.paper import plan
from gaitdiff.training.environment import note_start, read_starts
from gaitdiff.training.run_folder import read_config, read_metrics
from named_stores import CASIA_ROWS, named_store
from worlds import TINY_PRETRAIN, TINY_SCRATCH, make_store


def recipe(path: Path, words: tuple[str, ...]) -> str:
    """Flags as a recipe, without what each run has its own of."""
    pairs = [
        (flag[2:], value) for flag, value in zip(words[::2], words[1::2], strict=True) if flag != "--machine.device"
    ]
    path.write_text("".join(f"{key}: {value}\n" for key, value in pairs))
    return str(path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two widths by two rates by two seeds of training from scratch."""
    folder = tmp_path_factory.mktemp("sweep")
    make_store(folder / "store", people=7, test_people=3)
    scratch = (*TINY_SCRATCH, "--optim.iterations", "2", "--run.evaluate_every", "2", "--optim.milestones", "[1]")
    recipe(folder / "scratch.yaml", scratch)
    pretrain = (*TINY_PRETRAIN, "--optim.iterations", "2", "--run.evaluate_every", "2")
    recipe(folder / "pretrain.yaml", pretrain)
    assert main(command(folder)) == 0
    return folder


def command(folder: Path, *words: str) -> list[str]:
    sets = ["--set", "optim.lr=0.001,0.1", "--set", "batch.people=2,3", "--set", "run.protocol=leave-one-out"]
    where = ["--data", str(folder / "store"), "--out", str(folder / "out"), "--device", "cpu"]
    return ["sweep", str(folder / "scratch.yaml"), *where, "--seeds", "2", *sets, *words]


def test_every_combination_has_its_runs(made: Path) -> None:
    document = json.loads((made / "out" / "sweep.json").read_text())
    names = [f"optim.lr={lr} batch.people={people}" for lr in ("0.001", "0.1") for people in (2, 3)]
    assert list(document["settings"]) == names
    for name, found in document["settings"].items():
        folders = [made / "out" / "runs" / f"finetune-{name.replace(' ', '_')}-{seed}" for seed in (0, 1)]
        configs = [read_config(folder) for folder in folders]
        assert {(c["optim"]["lr"], c["batch"]["people"]) for c in configs} == {
            (float(name.split("=")[1].split()[0]), int(name[-1]))
        }
        assert [c["seed"] for c in configs] == [0, 1]
        last = [[r["evaluation"]["rank1"] for r in read_metrics(f) if "evaluation" in r][-1] for f in folders]
        assert found["scores"]["rank-1"] == pytest.approx(last)
    first, other = (np.mean(document["settings"][name]["scores"]["mAP"]) for name in (names[0], names[3]))
    assert document["settings"][names[3]]["gain"]["mAP"] == pytest.approx(other - first, abs=0.02)


def test_the_same_again_trains_nothing(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(made)) == 0
    assert "4 settings, 2 seeds: 0 of 8 runs to do" in capsys.readouterr().out


def test_another_sweep_into_the_same_folder_keeps_the_first_one(made: Path, tmp_path: Path) -> None:
    made = shutil.copytree(made, tmp_path / "made")
    before = (made / "out" / "sweep.json").read_bytes()
    words = [word.replace("optim.lr=0.001,0.1", "optim.lr=0.1") for word in command(made)]
    assert main(words) == 0
    assert (made / "out" / "sweep.json").read_bytes() == before
    (other,) = (made / "out").glob("sweep-*.json")
    assert set(json.loads(other.read_text())["settings"]) == {"batch.people=2", "batch.people=3"}
    assert main(words) == 0
    assert [*(made / "out").glob("sweep-*.json")] == [other]


def test_runs_that_were_never_evaluated_have_scores_all_the_same(made: Path, tmp_path: Path) -> None:
    words = ["sweep", str(made / "scratch.yaml"), "--data", str(made / "store"), "--out", str(tmp_path / "out")]
    words += ["--set", "run.evaluate_every=0", "--set", "run.protocol=leave-one-out", "--seeds", "1", "--device", "cpu"]
    assert main(words) == 0
    (found,) = json.loads((tmp_path / "out" / "sweep.json").read_text())["settings"].values()
    assert found["scores"].keys() == {"rank-1", "mAP"}


@pytest.mark.parametrize("sequences", [2, 8])
def test_a_plan_of_whole_batches(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], sequences: int
) -> None:
    """As a GPU measures it: there are more sequences of each in a batch than of those that it is measured on."""
    monkeypatch.setattr(plan, "_FRAMES_A_STEP", 10**6)
    words = ["sweep", str(made / "scratch.yaml"), "--data", str(made / "store"), "--out", str(tmp_path / "plan")]
    words += ["--set", f"batch.sequences={sequences}", "--set", "batch.people=2,40", "--device", "cpu", "--dry-run"]
    assert main(words) == 0
    assert "6 of 6 runs to do: about" in capsys.readouterr().out


def test_pretraining_is_judged_by_what_follows(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tuned = made / "tuned.yaml"
    tuned.write_text("mode: finetune\ndata.frames: 2\nbatch: {people: 2, sequences: 2}\noptim: {iterations: 2}\n")
    words = ["sweep", str(made / "pretrain.yaml"), "--data", str(made / "store"), "--out", str(made / "then")]
    words += ["--set", "diffusion.p_uncond=0,0.5", "--seeds", "1", "--then", str(tuned), "--device", "cpu"]
    words += ["--set", "run.protocol=leave-one-out"]
    assert main([*words, "--dry-run"]) == 0
    assert "4 of 4 runs to do" in capsys.readouterr().out
    assert main(words) == 0
    document = json.loads((made / "then" / "sweep.json").read_text())
    runs = made / "then" / "runs"
    assert set(document["settings"]) == {"diffusion.p_uncond=0", "diffusion.p_uncond=0.5"}
    assert read_config(runs / "pretrain-diffusion.p_uncond=0.5-0")["diffusion"]["p_uncond"] == 0.5
    config = read_config(runs / "finetune-diffusion.p_uncond=0.5-0")
    assert Path(config["init"]).name == "pretrain-diffusion.p_uncond=0.5-0"
    assert config["run"]["protocol"] == "leave-one-out"


def test_values_in_brackets_are_one() -> None:
    assert split_values("[1,2],[3]") == ["[1,2]", "[3]"]
    assert split_values("{a: 1, b: 2}") == ["{a: 1, b: 2}"]
    assert split_values("1,2") == ["1", "2"]


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("--set", "optim.bacth=3"), "has no such setting"),
        (("--set", "data.frames=2,"), "has an empty value"),
        (("--set", "optim.weight_decay=0.1,0.10"), "are the same settings"),
        (("--set", "diffusion.p_uncond=0"), "has no such setting"),
        (("--set", "optim.lr=3"), "given twice"),
        (("--set", "seed=1,2"), "is not free"),
        (("--set", "optim.clip_grad"), "takes KEY=VALUE"),
        (("--seeds", "0"), "--seeds is 0"),
        (("--then", "walkers/finetune"), "after a sweep of pretraining"),
        (("--set", "data.frames=3"), "with other settings"),
        (("--set", "optim.momentum=0", "--set", "run.protocol=gait3d,leave-one-out"), "run.protocol"),
    ],
)
def test_mistakes(made: Path, words: tuple[str, ...], key: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = (made / "out" / "sweep.json").read_bytes()
    assert main(command(made, *words)) == 2
    assert key in capsys.readouterr().err
    assert (made / "out" / "sweep.json").read_bytes() == before


def test_runs_are_compared_on_the_same_people(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is told are the runs' own last scores, and the settings that differ."""
    runs = [made / "out" / "runs" / f"finetune-optim.lr={lr}_batch.people=2-0" for lr in ("0.001", "0.1")]
    file = made / "compared.json"
    assert main(["compare", *map(str, runs), "--json", str(file), "--device", "cpu"]) == 0
    document = json.loads(file.read_text())
    for run, told in zip(runs, document["runs"].values(), strict=True):
        last = [r["evaluation"] for r in read_metrics(run) if "evaluation" in r][-1]
        assert told["rank1"] == pytest.approx(last["rank1"], abs=0.01)
        assert told["mAP"] == pytest.approx(last["mAP"], abs=0.01)
    first, second = document["runs"].values()
    assert second["mAP_difference"] == pytest.approx(second["mAP"] - first["mAP"], abs=0.02)
    assert document["settings"] == {"optim.lr": {str(runs[0]): 0.001, str(runs[1]): 0.1}}
    assert "optim.lr" in capsys.readouterr().out
    assert main(["compare", *map(str, runs), "--json", str(runs[0] / "config.yaml")]) == 2
    assert main(["compare", str(runs[0])]) == 2
    assert "name two or more" in capsys.readouterr().err
    assert main(["compare", str(runs[0]), str(runs[0])]) == 2
    assert "given twice" in capsys.readouterr().err
    assert main(["compare", str(runs[0]), f"{runs[0].parent}/../runs/{runs[0].name}"]) == 2
    assert "given twice" in capsys.readouterr().err


def test_data_that_changed_are_not_compared_on(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The store of both runs lies where it did, and holds something else."""
    runs = [tmp_path / "runs" / name for name in ("one", "two")]
    for run, people in zip(runs, (6, 7), strict=True):
        shutil.rmtree(tmp_path / "store", ignore_errors=True)
        make_store(tmp_path / "store", people=people, test_people=3)
        words = ["finetune", *TINY_SCRATCH, "--data", str(tmp_path / "store"), "--out", str(run)]
        assert main([*words, "--optim.iterations", "1", "--run.evaluate_every", "0"]) == 0
    assert main(["compare", *map(str, runs), "--device", "cpu"]) == 2
    assert "of other data each" in capsys.readouterr().err
    assert main(["compare", *map(str, runs), "--device", "cpu", "--data", str(tmp_path / "store")]) == 0


def test_an_edited_recipe_is_another_run(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is finished counts as long as its settings are those of today, by whatever recipe."""
    file = made / "scratch.yaml"
    text = file.read_text()
    file.write_text(text.replace("batch.sequences: 2", "batch.sequences: 3"))
    try:
        assert main(command(made)) == 2
        assert "batch.sequences = 2, not 3" in capsys.readouterr().err
    finally:
        file.write_text(text)


def test_another_start_at_the_same_path_is_another_run(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start, tuned = tmp_path / "start", tmp_path / "tuned.yaml"
    tuned.write_text(
        "base: walkers/finetune\noptim: {iterations: 1}\nbatch: {people: 2, sequences: 2}\ndata: {frames: 2}\n"
    )
    words = ["sweep", str(tuned), "--data", str(made / "store"), "--init", str(start), "--device", "cpu"]
    words += ["--out", str(tmp_path / "out"), "--set", "run.protocol=leave-one-out"]
    flags = [*TINY_PRETRAIN, "--data.store", str(made / "store"), "--optim.iterations", "1"]
    for seed, says in (("0", ""), ("1", "init_sha256")):
        shutil.rmtree(start, ignore_errors=True)
        assert main(["pretrain", *flags, "--out", str(start), "--run.evaluate_every", "0", "--seed", seed]) == 0
        assert main([*words, "--seeds", str(int(seed) + 1)]) == (2 if says else 0)
        assert says in capsys.readouterr().err


def test_a_protocol_of_several_scores_is_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = make_store(tmp_path / "store", people=7, test_people=3)
    scratch = recipe(tmp_path / "scratch.yaml", (*TINY_SCRATCH, "--optim.iterations", "1"))
    words = ["--data", str(store), "--out", str(tmp_path / "out"), "--device", "cpu", "--set", "run.protocol=ccpg"]
    assert main(["sweep", scratch, *words, "--seeds", "1"]) == 2
    assert "protocol" in capsys.readouterr().err
    assert not (tmp_path / "out" / "runs").exists()
    casia = named_store(tmp_path / "casia", CASIA_ROWS, "casia-b")
    words = ["--data", str(casia), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main(["sweep", scratch, *words, "--seeds", "1"]) == 2
    assert "'casia-b' scores each probe in several ways" in capsys.readouterr().err
    assert not (tmp_path / "out" / "runs").exists()


def test_a_run_without_its_metrics_is_trained_anew(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "again"
    shutil.copytree(made, folder)
    (name, *_) = sorted(file.stem for file in (folder / "out" / "results").iterdir())
    (folder / "out" / "results" / f"{name}.json").unlink()
    run = folder / "out" / "runs" / name
    (run / "metrics.jsonl").unlink()
    (run / "environment.jsonl").write_bytes(b'5\n{"a": 1}\n{"step": "x"}\n\xff\n')
    assert read_starts(run) == []
    assert main(command(folder)) == 2
    assert "remove" in capsys.readouterr().err
    shutil.rmtree(run)
    assert main(command(folder)) == 0


def test_folders_of_odd_values(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Values that are no names of folders have one each."""
    words = ["sweep", str(made / "pretrain.yaml"), "--data", str(made / "store"), "--out", str(made / "odd")]
    words += ["--set", "diffusion.log_snr=[0.0,1.5],[0.0, 1.0],null", "--seeds", "1", "--dry-run", "--device", "cpu"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    folders = {word for line in printed.splitlines() for word in line.split() if "/odd/runs/" in word}
    assert len(folders) == 3
    assert not (made / "odd").exists()


def test_a_dry_run_writes_nothing(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb, words in (("pretrain", TINY_PRETRAIN), ("finetune", TINY_SCRATCH)):
        where = ["--data", str(made / "store"), "--out", str(tmp_path / "run")]
        assert main([verb, *words, *where, "--optim.iterations", "70", "--dry-run"]) == 0
        printed = capsys.readouterr().out
        assert f"gaitdiff {verb}" in printed
        assert "learns from 12 sequences of 4 people" in printed
        assert "is scored on 9 test sequences" in printed
        assert "70 iterations" in printed
    run = made / "out" / "runs" / "finetune-optim.lr=0.1_batch.people=2-0"
    assert main(["finetune", "--recipe", str(run / "config.yaml"), "--out", str(run), "--dry-run"]) == 0
    assert "0 iterations after 2 that are done" in capsys.readouterr().out
    again = ["finetune", "--recipe", str(run / "config.yaml"), "--out", str(run), "--optim.lr", "0.5", "--dry-run"]
    assert main(again) == 2
    assert "holds a run with optim.lr" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_keeps_what_it_was_started_with(made: Path) -> None:
    run = made / "out" / "runs" / "finetune-optim.lr=0.1_batch.people=2-0"
    lines = [json.loads(line) for line in (run / "environment.jsonl").read_text().splitlines()]
    assert len(lines) == 1
    assert lines[0]["step"] == 0
    assert lines[0]["packages"]["torch"]
    assert lines[0]["command"]


def test_a_line_that_a_kill_has_torn(made: Path, tmp_path: Path) -> None:
    """It spoils neither the next one nor what reads them."""
    note_start(tmp_path, 0)
    whole = (tmp_path / "environment.jsonl").read_bytes()
    (tmp_path / "environment.jsonl").write_bytes(whole + whole[:40])
    note_start(tmp_path, 7)
    note_start(tmp_path, 9)
    assert [start["step"] for start in read_starts(tmp_path)] == [0, 7, 9]
    assert (tmp_path / "environment.jsonl").read_bytes().startswith(whole)
