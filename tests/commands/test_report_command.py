"""``gaitdiff report``: a page on any run, and what belongs on no page together."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gaitdiff.cli import main
from gaitdiff.data.store import SequenceStore
from named_stores import named_store
from worlds import TINY_PRETRAIN, TINY_SCRATCH, make_store


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    store = make_store(folder / "store", people=7, test_people=3)
    pace = ("--optim.iterations", "2", "--run.log_every", "1", "--run.evaluate_every", "1")
    for name, words in (
        ("pre", ["pretrain", *TINY_PRETRAIN]),
        ("other", ["pretrain", *TINY_PRETRAIN, "--seed", "1"]),
        ("one", ["finetune", *TINY_SCRATCH]),
        ("two", ["finetune", *TINY_SCRATCH, "--seed", "1"]),
    ):
        assert main([*words, *pace, "--data.store", str(store), "--out", str(folder / name)]) == 0
    return folder


def sections(page: Path) -> set[str]:
    return set(re.findall(r'<section id="(\w+)"', page.read_text()))


def test_a_run_of_each_kind_has_its_page(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(runs / "pre"), "--device", "cpu"]) == 0
    page = runs / "pre" / "report" / "index.html"
    assert capsys.readouterr().out.strip() == str(page)
    assert sections(page) == {"pretraining", "augmentations", "latents", "settings"}
    last = [json.loads(line) for line in (runs / "pre" / "metrics.jsonl").read_text().splitlines()][-1]
    for kind, called in (("cosine", "cosine"), ("whitened", "whitened")):
        row = next(line for line in page.read_text().splitlines() if f"pre, raw features, {called}" in line)
        assert f"{last['evaluation'][f'rank1_{kind}']:.1f}" in row
    assert main(["report", str(runs / "one"), "--out", str(runs / "alone"), "--device", "cpu"]) == 0
    page = runs / "alone" / "index.html"
    assert sections(page) == {"transfer", "neighbours", "settings"}
    assert "step 2 of 2" in page.read_text()


def test_several_runs_are_compared(runs: Path) -> None:
    words = ["report", *(str(runs / name) for name in ("pre", "one", "two")), "--out", str(runs / "all")]
    assert main([*words, "--device", "cpu"]) == 0
    text = (runs / "all" / "index.html").read_text()
    assert sections(runs / "all" / "index.html") >= {"transfer", "pretraining", "neighbours", "settings"}
    assert 'data-model="one"' in text
    assert 'data-model="two"' in text
    assert "Besides where the backbone starts, one and two differ in: seed: 0, 1." in text
    assert len(re.findall(r'\bid="([^"]+)"', text)) == len(set(re.findall(r'\bid="([^"]+)"', text)))


def test_neighbours_are_of_the_people_whose_scores_are_told(tmp_path: Path) -> None:
    """Where validation people are set aside, test people stay unseen."""
    make_store(tmp_path / "all", people=8, test_people=2)
    data, run = tmp_path / "data", tmp_path / "run"
    assert main(["data", "split", str(tmp_path / "all"), "--val-people", "3", "--out", str(data)]) == 0
    words = ["finetune", *TINY_SCRATCH, "--optim.iterations", "2", "--run.evaluate_every", "1"]
    assert main([*words, "--data.store", str(data), "--out", str(run)]) == 0
    assert main(["report", str(run), "--device", "cpu"]) == 0
    page = (run / "report" / "index.html").read_text()
    shown = [int(row) for row in re.findall(r'data-(?:probe|row)="(\d+)"', page)]
    assert {SequenceStore(data).rows[row].split for row in shown} == {"val"}
    assert "Of 3 probes of validation people" in page


def test_probes_without_names_have_no_neighbours(tmp_path: Path) -> None:
    """HID tells nobody who its probes are."""
    rows = [(f"{p:03}", str(k), "v", "train", "") for p in range(3) for k in range(2)]
    rows += [(f"{p:03}", "0", "v", "test", "") for p in range(3, 6)]
    rows += [("probe", "0", f"{p:03}", "test", "") for p in range(3, 6)]
    data, run = named_store(tmp_path / "data", rows, "hid"), tmp_path / "run"
    words = ["finetune", *TINY_SCRATCH, "--optim.iterations", "2", "--data.store", str(data), "--out", str(run)]
    assert main(words) == 0
    assert main(["report", str(run), "--device", "cpu"]) == 0
    page = (run / "report" / "index.html").read_text()
    assert "Protocol &#x27;hid&#x27; gives no scores, its probes have no names" in page


def test_a_setting_of_a_later_version_is_named(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A denoiser is not built without it."""
    shutil.copytree(runs / "pre", tmp_path / "pre")
    config = tmp_path / "pre" / "config.yaml"
    config.write_text(config.read_text().replace("\ndiffusion:", "\ndiffusion:\n  listens: twice"))
    words = ["generate", str(tmp_path / "pre"), "--unconditional", "--device", "cpu", "--out", str(tmp_path / "made")]
    assert main(words) == 2
    assert "diffusion has 'listens', which this version does not know" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "pre"), "--device", "cpu"]) == 0
    assert "listens" in (tmp_path / "pre" / "report" / "index.html").read_text()


def test_data_that_changed_under_a_run_are_on_no_page(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "runs"
    shutil.copytree(runs, folder)
    config = folder / "one" / "config.yaml"
    config.write_text(config.read_text().replace(str(runs), str(folder)))
    words = ["report", str(folder / "one"), "--out", str(tmp_path / "page"), "--device", "cpu"]
    shutil.rmtree(folder / "store")
    make_store(folder / "store", people=9, test_people=4)
    assert main(words) == 2
    assert "holds other data" in capsys.readouterr().err
    assert not (tmp_path / "page").exists()
    shutil.rmtree(folder / "store")
    assert main(words) == 0


def test_what_a_kill_left_of_a_page_is_no_obstacle(runs: Path, tmp_path: Path) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, str(tmp_path / "page" / "index.html")], check=False, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [path.suffix for path in (tmp_path / "page").iterdir()] == [".partial"]
    assert main(["report", str(runs / "one"), "--out", str(tmp_path / "page"), "--device", "cpu"]) == 0
    assert [path.name for path in (tmp_path / "page").iterdir()] == ["index.html"]


_KILLED = """
import os, sys
from pathlib import Path
from gaitdiff.utils.files import atomic_file
path = Path(sys.argv[1])
path.parent.mkdir()
with atomic_file(path) as draft:
    draft.write_text("half")
    os.kill(os.getpid(), 9)
"""


def test_mistakes(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = make_store(tmp_path / "store", people=5, test_people=2)
    words = ["finetune", *TINY_SCRATCH, "--optim.iterations", "1", "--data.store", str(elsewhere)]
    assert main([*words, "--out", str(tmp_path / "else")]) == 0
    for given, says in (
        ([runs / "pre", runs / "other"], "report them apart"),
        ([runs / "one", tmp_path / "else"], "of other data"),
        ([runs / "one", runs / "one"], "given twice"),
        ([runs / "one", runs / "one" / ".." / "one"], "given twice"),
        ([runs / "store"], "is no run folder"),
        ([runs / "nowhere"], "does not exist"),
    ):
        capsys.readouterr()
        assert main(["report", *map(str, given), "--device", "cpu"]) == 2
        assert says in capsys.readouterr().err
