"""Several processes stop after the same step, which is saved, whoever of them is told; and none outlives the others."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gaitdiff.training.checkpoint_files import list_checkpoints
from gaitdiff.training.run_folder import read_metrics
from worlds import TINY_PRETRAIN, TINY_SCRATCH, in_two, make_store, one_sentence, records

STAGES = {"pretrain": TINY_PRETRAIN, "finetune": TINY_SCRATCH}
PACE = ("--run.evaluate_every", "0", "--run.save_every", "100000", "--run.keep", "9")


class Launched:
    """Two processes under torchrun that have begun a run, in a terminal of their own."""

    def __init__(self, stage: str, store: Path, run: Path) -> None:
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        words = [*STAGES[stage], *PACE, "--optim.iterations", "100000", "--run.log_every", "1"]
        self.run, environment = run, {**os.environ, "OMP_NUM_THREADS": "1"}
        self.agent = subprocess.Popen(
            [*launch, "-m", "gaitdiff", stage, *words, "--data.store", str(store), "--out", str(run)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )

    def met(self) -> Launched:
        """The same, once it has trained a few steps."""
        deadline = time.monotonic() + 300
        while self.agent.poll() is None and time.monotonic() < deadline:
            if (self.run / "metrics.jsonl").is_file() and len(read_metrics(self.run)) >= 3:
                children = Path(f"/proc/{self.agent.pid}/task/{self.agent.pid}/children").read_text()
                self.ranks = [int(process) for process in children.split()]
                assert len(self.ranks) == 2
                return self
            time.sleep(0.02)
        raise AssertionError(self.ended())

    def ended(self) -> str:
        """What was said, once all processes are gone."""
        said: str = self.agent.communicate(timeout=120)[1]  # ends when the last of them closes its standard error
        return said


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("world") / "store")


@pytest.mark.parametrize("told", ["launcher", "terminal", "one process", "launcher killed"])
def test_a_stop_is_saved_by_all(store: Path, told: str, tmp_path: Path) -> None:
    launched = Launched("pretrain", store, tmp_path / "run").met()
    if told == "launcher":
        launched.agent.terminate()
    elif told == "terminal":  # Ctrl-C comes to all, and once more from torchrun
        os.killpg(launched.agent.pid, signal.SIGINT)
    elif told == "one process":
        os.kill(launched.ranks[1], signal.SIGTERM)
    else:
        launched.agent.kill()
    said = launched.ended()
    [saved] = list_checkpoints(tmp_path / "run")
    step = int(saved.name.removeprefix("step-"))
    assert said.count(f"gaitdiff: stopped after step {step} of 100000, which is saved") == 2
    assert "Stopped" not in said
    assert [record["step"] for record in read_metrics(tmp_path / "run")] == list(range(1, step + 1))
    assert not (tmp_path / "run" / ".writer.json").exists()


@pytest.mark.parametrize("rank", [0, 1])
def test_one_that_dies_ends_the_other_with_a_sentence(store: Path, rank: int, tmp_path: Path) -> None:
    launched = Launched("finetune", store, tmp_path / "run").met()
    os.kill(launched.ranks[rank], signal.SIGKILL)
    said = launched.ended()
    ours = [line for line in said.splitlines() if line.startswith("gaitdiff: ") and "stopping after" not in line]
    # torchrun may end the other one before it notices, and has a traceback of its own
    assert len(ours) <= 1
    assert all("another process of this run has ended" in line for line in ours)
    assert said.count("Traceback") == 1
    assert "gaitdiff/training" not in said


@pytest.mark.parametrize("stage", STAGES)
def test_a_stop_changes_no_number(store: Path, stage: str, tmp_path: Path) -> None:
    words = [stage, *STAGES[stage], *PACE, "--optim.iterations", "40", "--run.log_every", "1"]
    words += ["--data.store", str(store), "--out"]
    in_two(*words, tmp_path / "whole")
    run = tmp_path / "stopped"
    said = in_two(*words, run, killed=lambda: (run / "metrics.jsonl").is_file() and len(read_metrics(run)) > 2)
    [first] = list_checkpoints(run)
    assert first.name != "step-00000040"
    assert said.count("gaitdiff: stopped after step") == 2
    in_two(*words, run)
    assert records(tmp_path / "stopped") == records(tmp_path / "whole")
    for file in list_checkpoints(tmp_path / "whole")[-1].iterdir():
        assert (list_checkpoints(tmp_path / "stopped")[-1] / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("rank", ["0", "1"])
def test_one_that_never_comes_is_not_waited_for_long(store: Path, rank: str, tmp_path: Path) -> None:
    """A process that dies before all have met, without a launcher that would end the others."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launch = {"WORLD_SIZE": "2", "RANK": rank, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    hasty = """
import sys
from datetime import timedelta
from gaitdiff.cli import main
from gaitdiff.training import device
device.MEETING = timedelta(seconds=3)
sys.exit(main(sys.argv[1:]))
"""
    words = ["pretrain", *TINY_PRETRAIN, "--data.store", str(store), "--out", str(tmp_path / "run")]
    environment = {**os.environ, **launch, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "FATAL"}
    ended = subprocess.run(
        [sys.executable, "-c", hasty, *words], capture_output=True, text=True, env=environment, timeout=120
    )
    assert "cannot be joined" in one_sentence(ended)
    assert not (tmp_path / "run").exists()
