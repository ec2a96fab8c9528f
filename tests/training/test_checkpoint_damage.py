"""Damage never reaches a model: whatever happens to a checkpoint, a resume gives the same bits or a sentence."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gaitdiff.cli import main
from gaitdiff.errors import UserError
from gaitdiff.training.checkpoint_files import latest_checkpoint, list_checkpoints, save_checkpoint
from worlds import TINY_PRETRAIN, TINY_SCRATCH, make_store, records, without_digests

Damage = Callable[[bytes], bytes]


def flip(data: bytes, at: int) -> bytes:
    """The same with another bit at a byte."""
    return data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :]


DAMAGES: dict[str, Damage] = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "one byte short": lambda data: data[:-1],
    "zeros": lambda data: bytes(len(data)),
    "zeros at the end": lambda data: data[: -(len(data) // 4)] + bytes(len(data) // 4),
    "a bit at the end": lambda data: flip(data, len(data) - 3),
    "a bit in the middle": lambda data: flip(data, len(data) // 2),
    "a bit at the head": lambda data: flip(data, 20),
    "more": lambda data: data + b"garbage",
}
PACE = (
    *("--optim.iterations", "4", "--run.save_every", "1", "--run.evaluate_every", "0"),
    *("--run.keep", "9", "--run.log_every", "1"),
)


@pytest.fixture(scope="module", params=["pretrain", "finetune"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """The words of a run but for its folder, and the finished run."""
    folder = tmp_path_factory.mktemp(request.param)
    store = make_store(folder / "store")
    tiny = TINY_PRETRAIN if request.param == "pretrain" else TINY_SCRATCH
    words = [request.param, *tiny, *PACE, "--data.store", str(store)]
    assert main([*words, "--out", str(folder / "whole")]) == 0
    return words, folder / "whole"


def stopped(run: Path, at: Path, steps: tuple[int, ...]) -> Path:
    """A copy of a run that was stopped after the last of these steps."""
    shutil.rmtree(at, ignore_errors=True)
    at.mkdir()
    for name in ("config.yaml", "metrics.jsonl"):
        shutil.copy(run / name, at)
    for step in steps:
        shutil.copytree(run / "checkpoints" / f"step-{step:08d}", at / "checkpoints" / f"step-{step:08d}")
    return at


def weights(run: Path) -> dict[str, bytes]:
    last = run / "checkpoints" / "step-00000004"
    return {file.name: file.read_bytes() for file in last.glob("*.safetensors")}


def test_every_damage_of_every_file(
    whole: tuple[list[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, run = whole
    before, other = run / "checkpoints" / "step-00000003", run / "checkpoints" / "step-00000002"
    trials: list[tuple[str, Callable[[Path], object]]] = []
    for file in sorted(path.name for path in before.iterdir()):
        for name, damage in DAMAGES.items():
            trials.append((f"{file}: {name}", lambda at, d=damage: at.write_bytes(d(at.read_bytes()))))
        trials.append((f"{file}: missing", lambda at: at.unlink()))
        trials.append((f"{file}: of another step", lambda at: shutil.copy(other / at.name, at)))
        trials.append((f"{file}: a folder", lambda at: (at.unlink(), at.mkdir())))
    chosen = random.Random(0).sample(trials, 24)  # the same ones every time, of both stages and all kinds
    for name, damage in chosen:
        copy = stopped(run, tmp_path / "run", (3,))
        damage(copy / "checkpoints" / "step-00000003" / name.split(":")[0])
        capsys.readouterr()
        assert main([*words, "--out", str(copy)]) == 2, name
        last = capsys.readouterr().err.strip().splitlines()[-1]
        assert last.startswith("gaitdiff: "), name
        assert "no checkpoint that is whole" in last, name
        assert {path.name for path in (copy / "checkpoints").iterdir()} == {"step-00000003"}, name


def test_an_older_whole_checkpoint_is_taken(
    whole: tuple[list[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, run = whole
    copy = stopped(run, tmp_path / "run", (1, 2, 3))
    file = copy / "checkpoints" / "step-00000003" / "backbone.safetensors"
    file.write_bytes(DAMAGES["a bit in the middle"](file.read_bytes()))
    assert main(["evaluate", str(copy), "--data", words[words.index("--data.store") + 1], "--device", "cpu"]) == 0
    said = capsys.readouterr()
    assert "backbone.safetensors is not what was written" in said.err
    assert "step 2 of 4" in said.out
    assert main([*words, "--out", str(copy)]) == 0
    assert "taking step-00000002" in capsys.readouterr().err
    assert weights(copy) == weights(run)
    assert records(copy) == records(run)


def test_a_checkpoint_of_another_run_or_step_is_passed_over(
    whole: tuple[list[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whole as they are: a copied folder, a renamed one, one whose list of digests is gone."""
    words, run = whole
    other = tmp_path / "other"
    assert main([*words, "--seed", "7", "--out", str(other)]) == 0

    def exchange(last: Path, by: Path) -> None:
        shutil.rmtree(last)
        shutil.copytree(by, last)

    for reason, damage in (
        ("it is of another run", lambda last: exchange(last, other / "checkpoints" / last.name)),
        ("it is of step 1", lambda last: exchange(last, run / "checkpoints" / "step-00000001")),
        ("SHA256SUMS is not there", lambda last: (last / "SHA256SUMS").unlink()),
    ):
        copy = stopped(run, tmp_path / "run", (1, 2, 3))
        damage(copy / "checkpoints" / "step-00000003")
        capsys.readouterr()
        assert main([*words, "--out", str(copy)]) == 0
        assert f"step-00000003 cannot be used ({reason}); taking step-00000002" in capsys.readouterr().err
        assert weights(copy) == weights(run)


def test_a_run_whose_checkpoints_are_gone_does_not_begin_anew(
    whole: tuple[list[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where the disk that held them is not mounted."""
    words, run = whole
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    metrics = (copy / "metrics.jsonl").read_bytes()
    for empty in (True, False):
        shutil.rmtree(copy / "checkpoints", ignore_errors=True)
        if empty:
            (copy / "checkpoints").mkdir()
        assert main([*words, "--out", str(copy)]) == 2
        assert "bring checkpoints back, or choose another --out" in capsys.readouterr().err
        assert (copy / "metrics.jsonl").read_bytes() == metrics


def test_what_may_not_be_read_is_no_damage(
    whole: tuple[list[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither an older checkpoint is taken, nor is it advised to remove anything."""
    words, run = whole
    copy, read, listed = stopped(run, tmp_path / "run", (2, 3)), Path.read_bytes, os.listdir
    denied = PermissionError(13, "Permission denied", "there")

    def refuse(path: Path) -> bytes:
        if path.match("step-00000003/backbone.safetensors"):
            raise denied
        return read(path)

    def refuse_folder(path: Path) -> list[str]:
        if Path(path).name == "step-00000003":
            raise denied
        return listed(path)

    for name, where, by in (("read_bytes", Path, refuse), ("listdir", os, refuse_folder)):
        with monkeypatch.context() as patched:
            patched.setattr(where, name, by)
            capsys.readouterr()
            assert main([*words, "--out", str(copy)]) == 2
        said = capsys.readouterr().err
        assert "there cannot be read (Permission denied): mend that" in said
        assert "remove" not in said
    (copy / "metrics.jsonl").unlink()
    os.mkfifo(copy / "metrics.jsonl")
    assert main([*words, "--out", str(copy)]) == 2
    said = capsys.readouterr().err
    assert "metrics.jsonl cannot be read (is no regular file)" in said
    assert "remove" not in said


def test_lines_of_metrics_that_are_lost_are_said(
    whole: tuple[list[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, run = whole
    copy = stopped(run, tmp_path / "run", (3,))
    lines = (copy / "metrics.jsonl").read_text().splitlines(keepends=True)
    (copy / "metrics.jsonl").write_text("".join(lines[:1]))
    assert main([*words, "--out", str(copy)]) == 0
    assert "lacks 2 of the 3 lines up to step 3" in capsys.readouterr().err
    assert weights(copy) == weights(run)


def test_what_was_just_saved_stays(tmp_path: Path) -> None:
    """A newer one is there because it is damaged, and was passed over."""
    for step in (5, 10, 20, 15):
        save_checkpoint(tmp_path, step, {}, {"model": {}}, keep=1 if step == 15 else 9)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000015", "step-00000020"]


def test_checkpoints_are_folders_called_as_such(tmp_path: Path) -> None:
    """What others put beside them is neither taken nor cleared away."""
    run = tmp_path / "run"
    for step in (10, 20):
        save_checkpoint(run, step, {}, {"model": {}}, keep=9)
    folder = run / "checkpoints"
    (folder / "step-00000020.bak").mkdir()
    (folder / "step-old").mkdir()
    (folder / "step-00000099").write_text("a note")
    save_checkpoint(run, 100_000_000, {}, {"model": {}}, keep=1)
    assert {path.name for path in folder.iterdir()} == {
        "step-00000020.bak",
        "step-old",
        "step-00000099",
        "step-100000000",
    }
    assert [path.name for path in list_checkpoints(run)] == ["step-100000000"]


def test_checkpoints_that_cannot_be_listed_are_no_new_start(
    whole: tuple[list[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, run = whole
    for kind in ("dangling link", "file"):
        copy = stopped(run, tmp_path / kind, (3,))
        metrics = (copy / "metrics.jsonl").read_bytes()
        shutil.rmtree(copy / "checkpoints")
        if kind == "file":
            (copy / "checkpoints").write_text("")
        else:
            (copy / "checkpoints").symlink_to(tmp_path / "gone")
        assert main([*words, "--out", str(copy)]) == 2
        assert "cannot be listed" in capsys.readouterr().err
        assert (copy / "metrics.jsonl").read_bytes() == metrics
        with pytest.raises(UserError, match="cannot be listed"):
            latest_checkpoint(copy)


def test_files_have_the_mode_that_the_user_wants(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        made = save_checkpoint(tmp_path, 1, {"backbone": {}}, {"model": {}}, keep=1)
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in made.iterdir()} == {0o640}


def test_state_of_an_older_version_is_looked_at(
    whole: tuple[list[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without digests, what a state says must at least be possible."""
    words, run = whole
    good = json.loads((run / "checkpoints" / "step-00000003" / "state.json").read_text())
    changes: list[dict[str, Any]] = [
        *({"step": step} for step in ("3", -5, 10**6, 3.0, True, None)),
        *({"pending": pending} for pending in (None, ["a"], [[1]], {"a": 1})),
        {"lines": -1},
    ]
    for change in changes:
        copy = stopped(run, tmp_path / "run", (3,))
        last = copy / "checkpoints" / "step-00000003"
        (last / "state.json").write_text(json.dumps(good | change))
        without_digests(last)
        assert main([*words, "--out", str(copy)]) == 2, change
        said = capsys.readouterr().err
        assert "state.json is damaged" in said or "step-00000003 cannot be used (it is of step" in said, change
