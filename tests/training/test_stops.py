"""Signals: what is running is saved, said, and goes on to the same bits."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from gaitdiff.cli import main
from gaitdiff.config.recipe import parse_config
from gaitdiff.config.schema import FinetuneConfig, PretrainConfig
from gaitdiff.errors import UserError
from gaitdiff.training import loop
from gaitdiff.training.finetune import finetune
from gaitdiff.training.pretrain import pretrain
from gaitdiff.training.together import SharedStop, stops_together
from gaitdiff.utils.signals import Stopped, deferred_stops, stops
from worlds import TINY_PRETRAIN, TINY_SCRATCH, make_store, records

LONG = (
    "--optim.iterations",
    "100000",
    "--run.log_every",
    "1",
    "--run.evaluate_every",
    "0",
    "--run.save_every",
    "100000",
)


def begin(words: list[str], ignored: int | None = None) -> subprocess.Popen[str]:
    """Start a run and wait until it has logged three steps."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}

    def before() -> None:  # whatever the tests themselves were started with
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN if number == ignored else signal.SIG_DFL)

    process = subprocess.Popen(
        [sys.executable, "-m", "gaitdiff", *words],
        env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=before,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if re.match(r"run: 3/", line):
            return process
    raise AssertionError("it ended before its third step")


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, error = process.communicate(timeout=120)
    return process.returncode, error


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_saves_first(number: int, code: int, tmp_path: Path) -> None:
    store, run = make_store(tmp_path / "store"), tmp_path / "run"
    words = ["finetune", *TINY_SCRATCH, *LONG, "--data.store", str(store), "--out", str(run)]
    process = begin(words)
    process.send_signal(number)
    got, error = end(process)
    assert got == code, error
    assert "Traceback" not in error
    (step,) = re.findall(r"gaitdiff: stopped after step (\d+) of 100000, which is saved", error)
    assert [path.name for path in (run / "checkpoints").iterdir()] == [f"step-{int(step):08d}"]
    assert len(records(run)) == int(step)
    # It goes on from there.
    process = subprocess.Popen(
        [sys.executable, "-m", "gaitdiff", *words], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    assert process.stderr is not None
    first = next(line for line in process.stderr if line.startswith("run: "))
    process.kill()
    process.communicate()
    assert first.startswith(f"run: {int(step) + 1:,}/100,000")


def test_a_second_signal_is_clean(tmp_path: Path) -> None:
    store, run = make_store(tmp_path / "store"), tmp_path / "run"
    process = begin(["finetune", *TINY_SCRATCH, *LONG, "--data.store", str(store), "--out", str(run)])
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    code, error = end(process)
    assert code == 130
    assert "Traceback" not in error
    last = error.strip().splitlines()[-1]
    assert re.fullmatch(
        r"gaitdiff: stopped after step \d+(, before the first checkpoint; the same command begins anew"
        "| of 100000, which is saved; the same command continues it)",
        last,
    ), error


@pytest.mark.parametrize(
    ("saved", "said"),
    [
        (0, "after step 7, before the first checkpoint; the same command begins anew"),
        (4, "after step 7, the newest checkpoint is of step 4; the same command continues it"),
    ],
)
def test_a_second_signal_says_what_is_left(saved: int, said: str) -> None:

    def twice() -> None:
        with stops(), deferred_stops() as request:
            stop = SharedStop(request, 1)
            stop.at(7, saved)
            signal.raise_signal(signal.SIGTERM)
            assert stop.agreed() == signal.SIGTERM
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Stopped) as end:
        twice()
    assert (end.value.signal, end.value.note) == (signal.SIGTERM, said)


def test_a_signal_while_the_last_step_is_scored_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is finished, and whoever began it, such as a grid of runs, begins no other."""
    store, run = make_store(tmp_path / "store"), tmp_path / "run"
    score = loop._evaluate

    def scored(stage: Any, folder: Any, step: int, main: bool) -> dict[str, Any]:
        if step == 3:
            signal.raise_signal(signal.SIGTERM)
        return score(stage, folder, step, main)

    monkeypatch.setattr(loop, "_evaluate", scored)
    words = [*TINY_SCRATCH, "--optim.iterations", "3", "--run.evaluate_every", "3"]
    config = parse_config(FinetuneConfig, "finetune", [*words, "--data.store", str(store), "--out", str(run)])
    with pytest.raises(Stopped, match="the run is finished") as end, stops():
        finetune(config)
    assert end.value.signal == signal.SIGTERM
    assert [record["step"] for record in records(run) if "evaluation" in record] == [0, 3]
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000003"]


@pytest.mark.parametrize("at", [2, 4])
def test_what_a_stop_left_unscored_is_scored_later(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A step is saved before it is scored, in the middle of a run and at its end."""
    store = make_store(tmp_path / "store")

    def run(name: str) -> list[dict[str, Any]]:
        words = [*TINY_SCRATCH, "--optim.iterations", "4", "--run.evaluate_every", "2", "--run.save_every", "4"]
        words += ["--data.store", str(store), "--out", str(tmp_path / name)]
        with stops():
            finetune(parse_config(FinetuneConfig, "finetune", words))
        return [record for record in records(tmp_path / name) if "evaluation" in record]

    whole = run("whole")
    rates, score = loop._set_rates, loop._evaluate
    steps = 0

    def stopped(*arguments: Any) -> None:  # in the step before the middle
        nonlocal steps
        steps += 1
        if steps == at:
            signal.raise_signal(signal.SIGTERM)
        rates(*arguments)

    def killed(stage: Any, folder: Any, step: int, main: bool) -> dict[str, Any]:  # as the end is scored
        if step == at:
            raise Stopped(signal.SIGKILL)
        return score(stage, folder, step, main)

    monkeypatch.setattr(loop, *(("_set_rates", stopped) if at == 2 else ("_evaluate", killed)))
    with pytest.raises(Stopped):
        run("stopped")
    assert [record["step"] for record in records(tmp_path / "stopped") if "evaluation" in record] == [0, 2][: at // 2]
    monkeypatch.undo()
    assert [(one["step"], one["evaluation"]) for one in run("stopped")] == [
        (one["step"], one["evaluation"]) for one in whole
    ]
    capsys.readouterr()
    run("stopped")
    assert "is complete after 4 iterations" in capsys.readouterr().err


def test_what_a_kill_left_unmeasured_is_measured_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nobody can be scored, and the best is chosen without labels."""
    store = make_store(tmp_path / "store", test_people=0)
    words = [*TINY_PRETRAIN, "--optim.iterations", "4", "--run.evaluate_every", "2", "--run.save_every", "2"]
    words += ["--run.best", "ap_an", "--data.store", str(store), "--out", str(tmp_path / "run")]
    config, score = parse_config(PretrainConfig, "pretrain", words), loop._evaluate

    def killed(stage: Any, folder: Any, step: int, main: bool) -> dict[str, Any]:
        if step == 4:
            raise Stopped(signal.SIGKILL)
        return score(stage, folder, step, main)

    monkeypatch.setattr(loop, "_evaluate", killed)
    with pytest.raises(Stopped):
        pretrain(config)
    monkeypatch.undo()
    for _ in range(2):
        pretrain(config)
        assert [record["step"] for record in records(tmp_path / "run") if "pairs" in record] == [0, 2, 4]


def test_a_finished_run_that_is_not_scored_takes_no_other_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["finetune", *TINY_SCRATCH, "--optim.iterations", "2", "--data.store", str(make_store(tmp_path / "store"))]
    words += ["--out", str(tmp_path / "run")]
    assert main([*words, "--run.evaluate_every", "0"]) == 0
    before = (tmp_path / "run" / "config.yaml").read_bytes()
    other = ("--optim.lr", "0.5", "--run.change", "true", "--run.evaluate_every", "2")
    assert main([*words, *other]) == 2
    assert "has taken 2 steps already, so that optim.lr changes nothing" in capsys.readouterr().err
    assert (tmp_path / "run" / "config.yaml").read_bytes() == before
    assert main([*words, "--run.evaluate_every", "2"]) == 0
    assert [record["step"] for record in records(tmp_path / "run") if "evaluation" in record] == [2]


def test_an_error_does_not_make_a_signal_forgotten() -> None:

    def fails() -> None:
        with stops(), stops_together(1):
            signal.raise_signal(signal.SIGTERM)
            raise UserError("the disk is full")

    with pytest.raises(Stopped, match="at an error: the disk is full") as end:
        fails()
    assert end.value.signal == signal.SIGTERM


def test_nohup_stays_in_force(tmp_path: Path) -> None:
    """Where a hang-up is ignored from the start, it is ignored."""
    store, run = make_store(tmp_path / "store"), tmp_path / "run"
    words = ["finetune", *TINY_SCRATCH, *LONG, "--data.store", str(store), "--out", str(run)]
    process = begin(words, ignored=signal.SIGHUP)
    process.send_signal(signal.SIGHUP)
    assert process.stderr is not None
    later = [process.stderr.readline() for _ in range(3)]
    assert all(line.startswith("run: ") for line in later)
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 143


class Dying:
    """A signal comes while it goes, where Python drops what is raised."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        signal.raise_signal(self.number)
        time.sleep(0)  # here the handler runs


def interrupted_in_passing(number: int, deferred: bool) -> None:
    """Work that gets a signal where nothing can be raised, and would go on for a minute."""
    deadline = time.monotonic() + 60
    with stops(), deferred_stops() if deferred else nullcontext() as request:
        if request is not None:  # one has come before
            request.signal, request.note = number, "where it stood"
        Dying(number)
        while time.monotonic() < deadline:
            time.sleep(0.01)


@pytest.mark.parametrize("deferred", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_not_lost_where_python_drops_errors(
    number: int, deferred: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    endings, usual = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP), sys.unraisablehook
    before = [signal.signal(one, signal.default_int_handler) for one in endings]
    try:
        with pytest.raises(Stopped) as stopped:
            interrupted_in_passing(number, deferred)
    finally:
        for one, handler in zip(endings, before, strict=True):
            signal.signal(one, handler)
    assert (stopped.value.signal, stopped.value.note) == (number, "where it stood" if deferred else "")
    assert sys.unraisablehook is usual
    assert "ignored" not in capsys.readouterr().err
