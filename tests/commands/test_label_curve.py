"""Fine-tuned against from scratch by the number of labels, as one command that can be stopped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from gaitdiff.cli import main
from gaitdiff.commands.label_curve import named_checkpoints
from gaitdiff.errors import UserError
from gaitdiff.training.run_folder import read_config
from gaitdiff.utils import locks
from gaitdiff.utils.locks import FolderLock
from worlds import TINY_PRETRAIN, make_store

SET = ("optim.iterations=2", "batch.people=3", "batch.sequences=2", "data.frames=2", "run.protocol=leave-one-out")


def command(folder: Path, *words: str, checkpoints: tuple[str, ...] = ("one", "named=two")) -> list[str]:
    sets = [word for setting in SET for word in ("--set", setting)]
    starts = [name.replace("=", f"={folder}/") if "=" in name else str(folder / name) for name in checkpoints]
    where = [*starts, "--data", str(folder / "store"), "--out", str(folder / "curve")]
    return ["label-curve", *where, "--people", "2,all", "--seeds", "2", *sets, "--device", "cpu", *words]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pretrained backbones, and the curves from them."""
    folder = tmp_path_factory.mktemp("curve")
    store = make_store(folder / "store", people=7, test_people=3)
    for seed, name in enumerate(("one", "two")):
        flags = ["--data.store", str(store), "--out", str(folder / name), "--optim.iterations", "1"]
        assert main(["pretrain", *TINY_PRETRAIN, *flags, "--run.evaluate_every", "0", "--seed", str(seed)]) == 0
    assert main(command(folder)) == 0
    return folder


def test_a_row_for_each_number_of_people(made: Path) -> None:
    document = json.loads((made / "curve" / "label_curve.json").read_text())
    assert [row["people"] for row in document["table"]] == [2, 4]
    assert len(document["runs"]) == 2 * 2 * 3
    for row in document["table"]:
        for score in ("rank1", "mAP"):
            scratch = np.array(row[score]["scratch"]["scores"])
            for arm in ("one", "named"):
                found = row[score][arm]
                assert found["difference"] == pytest.approx(np.mean(found["scores"]) - scratch.mean(), abs=0.02)
                low, high = found["interval"]
                assert low <= found["difference"] <= high
    for score in ("rank1", "mAP"):
        assert cv2.imread(str(made / "curve" / f"label_curve_{score}.png")).std() > 1
        assert (made / "curve" / f"label_curve_{score}.svg").read_text().startswith("<?xml")


def test_scores_are_those_of_evaluate(made: Path) -> None:
    """Counted person by person, they are what the runs' checkpoints score as a whole."""
    table = json.loads((made / "curve" / "label_curve.json").read_text())["table"]
    for arm in ("scratch", "one", "named"):
        file = made / f"{arm}.json"
        run = made / "curve" / "runs" / f"{arm}-all-1"
        words = ["evaluate", str(run), "--data", str(made / "store"), "--protocol", "leave-one-out", "--device", "cpu"]
        assert main([*words, "--json", str(file)]) == 0
        scores = json.loads(file.read_text())["embeddings"]
        for score in ("rank1", "mAP"):
            assert table[1][score][arm]["scores"][1] == pytest.approx(scores[score], abs=0.01)


def test_both_arms_differ_in_where_the_backbone_starts_alone(made: Path) -> None:
    runs = made / "curve" / "runs"
    one, other = (read_config(runs / f"{arm}-2-0") for arm in ("scratch", "one"))
    assert (one["mode"], one["init"], one["model"]["name"]) == ("scratch", "", "smplgait")
    assert (other["mode"], other["model"]["name"]) == ("finetune", "")
    assert Path(other["init"]).is_dir()
    aside = ("mode", "init", "model", "out", "identity")
    assert {k: v for k, v in one.items() if k not in aside} == {k: v for k, v in other.items() if k not in aside}
    assert one["batch"]["people"] == 2  # as many as there are


def test_what_is_there_is_not_made_again(made: Path, tmp_path: Path) -> None:
    """A stopped comparison goes on: a run that is lost is trained again, to the same numbers; the others stay."""
    folder = tmp_path / "again"
    shutil.copytree(made, folder)
    file = folder / "curve" / "label_curve.json"
    before = json.loads(file.read_text())
    half = {**before, "runs": {name: run for name, run in before["runs"].items() if name != "scratch-2-1"}}
    file.write_text(json.dumps(half))
    for run in (folder / "curve" / "runs").iterdir():
        shutil.rmtree(run)
    assert main(command(folder)) == 0
    after = json.loads(file.read_text())
    assert after["runs"] == before["runs"]
    assert after["table"] == before["table"]
    assert [run.name for run in (folder / "curve" / "runs").iterdir()] == ["scratch-2-1"]


def test_one_more_checkpoint_adds_to_what_is_there(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "more"
    shutil.copytree(made, folder)
    shutil.rmtree(folder / "curve")
    assert main(command(folder, "--seeds", "1", checkpoints=("one",))) == 0
    file = folder / "curve" / "label_curve.json"
    first = json.loads(file.read_text())
    runs = folder / "curve" / "runs"
    shutil.rmtree(runs)
    assert main(command(folder)) == 0
    document, whole = json.loads(file.read_text()), json.loads((made / "curve" / "label_curve.json").read_text())
    assert document["table"] == whole["table"]
    assert set(document["about"]["checkpoints"]) == {"one", "named"}
    assert not {run.name for run in runs.iterdir()} & set(first["runs"])
    # What is called as before must be what it was.
    assert main(command(folder, checkpoints=("one=two",))) == 2
    assert main(command(folder, checkpoints=("named=two",))) == 0
    assert json.loads(file.read_text())["runs"] == document["runs"]


def test_an_edited_recipe_and_damaged_outcomes_are_refused(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "edited"
    shutil.copytree(made, folder)
    shutil.rmtree(folder / "curve")
    recipe = folder / "tuned.yaml"
    words = [*command(folder, "--recipe", str(recipe), checkpoints=("one",)), "--people", "all", "--seeds", "1"]
    recipe.write_text("base: walkers/finetune\n")
    assert main(words) == 0
    file = folder / "curve" / "label_curve.json"
    kept = file.read_bytes()
    recipe.write_text("base: walkers/finetune\noptim: {lr: 0.5}\n")
    assert main(words) == 2
    assert "optim.lr (0.001, not 0.5)" in capsys.readouterr().err
    recipe.write_text("base: walkers/finetune\n")
    document = json.loads(kept)
    for damage in ({"hits": "x"}, {"hits": [1]}, {"probes": []}, {"precision": None}):
        runs = {name: {**one, **damage} for name, one in document["runs"].items()}
        file.write_text(json.dumps({**document, "runs": runs}))
        assert main(words) == 2
        assert "is damaged" in capsys.readouterr().err
    file.write_text(json.dumps({**document, "runs": []}))
    assert main(words) == 2
    file.write_bytes(kept)
    assert main([*words, "--people", "4,all"]) == 0  # all are four: one row
    assert len(json.loads(file.read_text())["table"]) == 1


@pytest.mark.filterwarnings("error")
def test_names_of_any_letters_are_drawn_and_all_people_of_a_small_store_taken(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    shutil.copytree(made, folder)
    shutil.rmtree(folder / "curve")
    (folder / "one").rename(folder / "$w^$走")
    assert (
        main(command(folder, "--people", "", "--seeds", "1", "--set", "batch.people=8", checkpoints=("$w^$走",))) == 0
    )
    table = json.loads((folder / "curve" / "label_curve.json").read_text())["table"]
    assert [row["people"] for row in table] == [4]
    assert (folder / "curve" / "label_curve_rank1.png").stat().st_size > 1000


def test_one_process_writes_a_comparison(
    made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    lock = FolderLock(made / "curve")
    lock.acquire()
    try:
        assert main(command(made)) == 2
        assert "is being written by process" in capsys.readouterr().err
        assert main(["quickstart", "--small", "--out", str(made / "curve")]) == 2
        assert "is being written by process" in capsys.readouterr().err
    finally:
        lock.release()
    assert main(command(made)) == 0


def test_mistakes(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="two arms would be called 'one'"):
        named_checkpoints(["a/one", "b/one"])
    for name in ("a/new\nline", f"a/{'x' * 200}"):
        with pytest.raises(UserError, match="name this one, as in other="):
            named_checkpoints([name])
    for words, says in (
        (["--people", "two"], "--people"),
        (["--people", "0"], "--people names 0"),
        (["--seeds", "1000000000"], "--seeds"),
        (["--people", "1,2"], "at least 2"),
        (["--people", "9"], "--people names 9, but"),
        (["--seeds", "0"], "--seeds"),
        (["--set", "optim.lr"], "KEY=VALUE"),
        (["--set", "optim.lr=0.5"], "other settings"),
        (["--set", "optim.speed=0.5"], "unknown setting --set optim.speed"),
        (["--set", "optim.lr=fast"], "--set optim.lr cannot be 'fast'"),
        (["--set", "batch.sequences=4", "--out", str(made / "fresh")], "give --set batch.sequences=3 or less"),
        (["--set", "out=elsewhere"], "--set out is not free"),
        (["--set", "data.people=3"], "--set data.people is not free"),
    ):
        kept = (made / "curve" / "label_curve.json").read_bytes()
        capsys.readouterr()
        assert main(command(made, *words)) == 2
        assert says in capsys.readouterr().err
        assert (made / "curve" / "label_curve.json").read_bytes() == kept
