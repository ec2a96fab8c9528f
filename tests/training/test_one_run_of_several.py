"""Processes of one run agree on what they do, or end with a sentence that says on what they do not."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist

from gaitdiff.errors import UserError
from gaitdiff.training.together import peers_told
from worlds import TINY_PRETRAIN, TINY_SCRATCH, gaitdiff, make_store

SHORT = ("--optim.iterations", "4", "--run.evaluate_every", "0", "--run.save_every", "2", "--run.log_every", "2")


def two(*commands: list[str], cwd: tuple[Path, Path], launched: bool = True) -> list[tuple[int, str]]:
    """Codes and standard errors of two processes, started as a launcher would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = []
    for rank, words in enumerate(commands):
        one = {"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
        launch = {**one, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} if launched else {}
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **launch}
        processes.append(
            subprocess.Popen(
                [sys.executable, *words], cwd=cwd[rank], env=environment, stderr=subprocess.PIPE, text=True
            )
        )
    said = [process.communicate(timeout=300)[1] for process in processes]
    return [(process.returncode, text) for process, text in zip(processes, said, strict=True)]


def test_a_folder_that_not_all_see_is_refused(tmp_path: Path) -> None:
    """As where --out lies on each machine's own disk: one would go on, the other begin anew."""
    store, here, there = make_store(tmp_path / "store"), tmp_path / "here", tmp_path / "there"
    here.mkdir()
    words = ["finetune", *TINY_SCRATCH, *SHORT, "--data.store", str(store), "--run.change", "true"]
    assert gaitdiff(*words, "--optim.iterations", "2", "--out", here / "run").returncode == 0
    shutil.copytree(here / "run", there / "run", ignore=shutil.ignore_patterns("checkpoints", ".*"))
    command = ["-m", "gaitdiff", *words, "--out", "run"]
    for code, said in two(command, command, cwd=(here, there)):
        assert code == 2, said
        assert "process 1 begins at" in said
        assert "where process 0 goes on after step 2: --out must be one folder" in said
    assert [path.name for path in (here / "run" / "checkpoints").iterdir()] == ["step-00000002"]


def test_one_run_has_one_precision(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    code = """
import sys
from datetime import timedelta
from gaitdiff.cli import main
from gaitdiff.training import device
device.MEETING = timedelta(seconds=5)
sys.exit(main(sys.argv[1:]))
"""
    words = ["finetune", *TINY_SCRATCH, *SHORT, "--data.store", str(store), "--out", "run"]
    first, second = (["-c", code, *words, "--machine.precision", precision] for precision in ("float32", "bfloat16"))
    _, (ended, said) = two(first, second, cwd=(tmp_path, tmp_path))
    assert ended == 2, said
    assert "process 1 would compute on cpu in bfloat16, process 0 on cpu in float32: give both" in said


def test_those_who_have_met_are_patient(tmp_path: Path) -> None:
    """All have to come soon, but one that has work to do alone is waited for, whatever group asks."""
    code = """
import sys, time
from datetime import timedelta
import torch.distributed as dist
from gaitdiff.config.schema import MachineConfig
from gaitdiff.training import device, together
device.MEETING = together.MEETING = timedelta(seconds=4)
accelerator = device.make_accelerator(MachineConfig(device="cpu"))
with together.stops_together(2) as stop:
    for wait in (accelerator.wait_for_everyone, lambda: stop.told(True)):
        if accelerator.is_main_process:
            time.sleep(6)
        wait()
dist.destroy_process_group()
"""
    assert [ended for ended, _ in two(["-c", code], ["-c", code], cwd=(tmp_path, tmp_path))] == [0, 0]


def test_the_callers_own_group_is_not_ours(tmp_path: Path) -> None:
    """A run within a group that no launcher tells of would wait for processes that do something else."""
    code = f"""
import sys
import torch.distributed as dist
from gaitdiff.config.schema import MachineConfig
from gaitdiff.errors import UserError
from gaitdiff.training.device import make_accelerator
dist.init_process_group("gloo", init_method="file://{tmp_path / "meeting"}", rank=int(sys.argv[1]), world_size=2)
try:
    make_accelerator(MachineConfig(device="cpu"))
except UserError as error:
    print(error, file=sys.stderr)
dist.barrier()
dist.destroy_process_group()
"""
    for ended, said in two(["-c", code, "0"], ["-c", code, "1"], cwd=(tmp_path, tmp_path), launched=False):
        assert ended == 0, said
        assert "this process belongs to a group of 2 already, but a run here has 1" in said


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            RuntimeError("[pair.cc:534] Connection closed by peer [127.0.0.1]:123"),
            "another process of this run has ended",
        ),
        (
            dist.DistBackendError("NCCL error in: comm.cpp:27\nLast error:\nno place in /dev/shm"),
            "cannot work together (NCCL error in: comm.cpp:27 … no place in /dev/shm)",
        ),
        (
            dist.DistBackendError("NCCL error in: comm.cpp:27\nNet : Connection closed by remote peer node<50260>"),
            "another process of this run has ended",
        ),
        (dist.DistNetworkError(""), "cannot work together (DistNetworkError)"),
    ],
)
def test_what_is_wrong_between_processes_is_told(error: Exception, told: str) -> None:
    with pytest.raises(UserError) as refused, peers_told(2):
        raise error
    assert told in str(refused.value)
    with pytest.raises(type(error)), peers_told(1):
        raise error


def test_the_first_is_waited_for_while_it_measures_and_saves(tmp_path: Path) -> None:
    """Before the first step and at the end, whatever ends the run: who comes back finds the checkpoint."""
    code = """
import sys, time
from datetime import timedelta
from gaitdiff.config.recipe import parse_config
from gaitdiff.config.schema import PretrainConfig
from gaitdiff.training import loop, together
from gaitdiff.training.checkpoint_files import list_checkpoints
from gaitdiff.training.pretrain import PretrainStage, pretrain
together.MEETING = timedelta(seconds=2)
measure, save = PretrainStage.measure, loop.save_checkpoint
def slow(call):
    return lambda *arguments: (time.sleep(3), call(*arguments))[1]
PretrainStage.measure, loop.save_checkpoint = slow(measure), slow(save)
run = pretrain(parse_config(PretrainConfig, "pretrain", sys.argv[1:]))
print([checkpoint.name for checkpoint in list_checkpoints(run)], file=sys.stderr)
"""
    store = make_store(tmp_path / "store", test_people=0)
    words = [*TINY_PRETRAIN, "--objective", "contrastive", "--optim.lr", "1e-18", "--optim.weight_decay", "0"]
    words += ["--model.overrides.batch_norm", "false", "--run.best", "ap_an", "--run.patience", "1"]
    words += ["--optim.iterations", "5", "--run.evaluate_every", "1", "--run.save_every", "5"]
    words += ["--data.store", str(store), "--out", "run"]
    for ended, said in two(["-c", code, *words], ["-c", code, *words], cwd=(tmp_path, tmp_path)):
        assert ended == 0, said
        assert "['step-00000002']" in said
