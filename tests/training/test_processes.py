"""Several processes: those of one run find each other, two runs do not write the same folder."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gaitdiff.config.schema import MachineConfig
from gaitdiff.errors import UserError
from gaitdiff.training.device import make_accelerator
from gaitdiff.training.environment import read_starts
from gaitdiff.utils import locks
from gaitdiff.utils.locks import FolderLock
from worlds import TINY_PRETRAIN, TINY_SCRATCH, gaitdiff, in_two, make_store, one_sentence, records, torchrun

PACE = ("--run.log_every", "2", "--run.evaluate_every", "4", "--run.save_every", "4", "--optim.iterations", "8")
STAGES = {"pretrain": (*TINY_PRETRAIN, *PACE), "finetune": (*TINY_SCRATCH, *PACE)}


def without_device(flags: tuple[str, ...]) -> list[str]:
    """Flags of a run whose device is the default, auto."""
    place = flags.index("--machine.device")
    return [*flags[:place], *flags[place + 2 :]]


def test_a_process_of_torchrun_has_the_threads_that_were_asked_for(tmp_path: Path) -> None:
    """Where nothing in the environment says so, accelerate would give it as many as the processor has cores."""
    words = [*STAGES["pretrain"], "--data.store", str(make_store(tmp_path / "store")), "--out", str(tmp_path / "run")]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1", "-m", "gaitdiff"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OMP_")}
    command = [*launch, "pretrain", *words, "--machine.threads", "3"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert [start["threads"] for start in read_starts(tmp_path / "run")] == [3]


@pytest.mark.parametrize("stage", STAGES)
def test_torchrun_needs_no_device_flag(stage: str, tmp_path: Path) -> None:
    """The default device on a machine without GPU is a group of CPU processes, and writes what that of cpu does."""
    data = ["--data.store", str(make_store(tmp_path / "store"))]
    assert "Grad strides" not in torchrun(
        "-m", "gaitdiff", stage, *without_device(STAGES[stage]), *data, "--out", tmp_path / "auto"
    )
    assert "Grad strides" not in in_two(stage, *STAGES[stage], *data, "--out", tmp_path / "cpu")
    assert records(tmp_path / "auto") == records(tmp_path / "cpu")
    steps = [record["step"] for record in records(tmp_path / "auto") if "loss" in record]
    assert steps == [2, 4, 6, 8]  # each line once
    assert [path.name for path in (tmp_path / "auto" / "checkpoints").iterdir()] == ["step-00000004", "step-00000008"]


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"WORLD_SIZE": "2"}, "RANK"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "torchrun"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0'"),
        ({"WORLD_SIZE": "-1"}, "WORLD_SIZE is '-1'"),
        ({"WORLD_SIZE": "2", "RANK": "5", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}, "RANK is 5, but"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "unset OMPI_COMM_WORLD_SIZE"),
        ({"RANK": "1"}, "RANK is 1, but no variable tells of more than one process"),
        ({"WORLD_SIZE": "1", "RANK": "3"}, "RANK is 3, but WORLD_SIZE is 1"),
        ({"WORLD_SIZE": "1", "LOCAL_RANK": "0"}, "that WORLD_SIZE, LOCAL_RANK in the environment speak of"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "abc"}, "MASTER_PORT is 'abc'"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "99999"}, "MASTER_PORT is 99999"),
        ({"WORLD_SIZE": "2", "RANK": "x"}, "RANK is 'x'"),
        ({"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "zero"}, "LOCAL_RANK is 'zero'"),
        ({"WORLD_SIZE": "2", "RANK": "1", "LOCAL_WORLD_SIZE": "abc"}, "LOCAL_WORLD_SIZE is 'abc'"),
        ({"WORLD_SIZE": "2", "RANK": "1"}, "MASTER_ADDR and MASTER_PORT"),
    ],
)
def test_half_a_launch_is_refused(environment: dict[str, str], sentence: str, tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    words = ["finetune", *without_device(STAGES["finetune"]), "--data.store", store, "--out", tmp_path / "run"]
    assert sentence in one_sentence(gaitdiff(*words, environment=environment))
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    several = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}
    for words in (["quickstart", "--out", tmp_path / "q"], ["submit", tmp_path, "--data", tmp_path]):
        sentence = one_sentence(gaitdiff(*words, environment=several))
        assert "without torchrun" in sentence
        assert "in 2" in sentence
    assert not (tmp_path / "q").exists()


def test_one_process_of_a_launcher_is_one(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    words = ["finetune", *without_device(STAGES["finetune"]), "--data.store", store, "--out", tmp_path / "run"]
    assert gaitdiff(*words, environment={"WORLD_SIZE": "1", "RANK": "0"}).returncode == 0


def started(words: list[str], run: Path) -> subprocess.Popen[str]:
    """A process that has begun to write its run, and has enough to do to be met there."""
    command, environment = [sys.executable, "-m", "gaitdiff", *words], {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, text=True, env=environment)
    deadline = time.monotonic() + 600
    while process.poll() is None and time.monotonic() < deadline:
        holder, metrics = run / ".writer.json", run / "metrics.jsonl"
        begun = holder.is_file() and metrics.is_file() and metrics.read_text().count("\n") >= 2
        if begun and json.loads(holder.read_text())["process"] == process.pid:
            return process
        time.sleep(0.01)
    process.kill()
    raise AssertionError(f"the run ended with {process.poll()} before it could be met")


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_has_one_writer(stage: str, tmp_path: Path) -> None:
    """The second start of the same command says who is there, and changes nothing; a kill gives the folder free."""
    store, run = make_store(tmp_path / "store"), tmp_path / "run"
    flags = [*STAGES[stage][: -len(PACE)], "--run.log_every", "2", "--run.evaluate_every", "0"]
    words = [stage, *flags, "--data.store", str(store), "--out", str(run), "--run.save_every", "1000"]
    long = [*words, "--optim.iterations", "100000"]
    first = started(long, run)
    try:
        config = (run / "config.yaml").read_bytes()
        assert locks.PATIENCE == 10
        impatient = {"gaitdiff.utils.locks.PATIENCE": 0.1}
        sentence = one_sentence(gaitdiff(*long, "--machine.threads", "2", constants=impatient))
        assert f"process {first.pid} on {socket.gethostname()}" in sentence
        assert str(run) in sentence
        assert "--out" in sentence
        assert (run / "config.yaml").read_bytes() == config
        assert first.poll() is None
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
    again = started(long, run)  # the killed one's lock is gone with it
    try:
        again.send_signal(signal.SIGINT)
        again.wait(timeout=300)
    finally:
        again.kill()
    assert not (run / ".writer.json").exists()


def test_who_starts_while_another_ends_waits(tmp_path: Path) -> None:
    """A scheduler starts a job anew before the old one's process is gone."""
    store, run = make_store(tmp_path / "store"), tmp_path / "run"
    run.mkdir()
    lock = FolderLock(run)
    lock.acquire()
    words = ["finetune", *STAGES["finetune"], "--data.store", str(store), "--out", str(run)]
    command = [sys.executable, "-m", "gaitdiff", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        said = iter(process.stderr or ())
        assert any("is being written by process" in line and "waiting" in line for line in said)
        assert not (run / "config.yaml").exists()
        lock.release()
        rest = list(said)
    assert process.returncode == 0, rest
    assert [record["step"] for record in records(run) if "loss" in record] == [2, 4, 6, 8]


def test_two_starts_at_once_write_one_run(tmp_path: Path) -> None:
    """Whoever comes second is refused, or finds the run complete; the metrics hold each step once."""
    store, run = make_store(tmp_path / "store"), tmp_path / "run"
    words = ["finetune", *STAGES["finetune"], "--data.store", str(store), "--out", str(run)]
    command = [sys.executable, "-m", "gaitdiff", *words]
    environment, pipe = {**os.environ, "OMP_NUM_THREADS": "1"}, subprocess.PIPE
    both = [subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment) for _ in range(2)]
    ends = [(process.communicate(timeout=600)[1], process.returncode) for process in both]
    assert 0 in [code for _, code in ends]
    for said, code in ends:
        assert code == 0 or (code == 2 and "is being written by" in said), (code, said)
    assert [record["step"] for record in records(run) if "loss" in record] == [2, 4, 6, 8]


def test_a_foreign_folder_gets_no_lock(tmp_path: Path) -> None:
    store, folder = make_store(tmp_path / "store"), tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    words = ["finetune", *STAGES["finetune"], "--data.store", store, "--out", folder]
    assert "no run folder" in one_sentence(gaitdiff(*words))
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_said(
    error: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr("fcntl.flock", flock)
    lock = FolderLock(tmp_path)
    lock.acquire()
    lock.release()
    assert "without locks" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("stage", STAGES)
def test_a_call_from_python_leaves_the_process_as_it_was(stage: str, tmp_path: Path) -> None:
    """Threads, torch's random numbers and the allocator are the caller's: the command line alone sets them."""
    code = f"""
import sys, torch
from gaitdiff.config.recipe import parse_config
from gaitdiff.config.schema import PretrainConfig, FinetuneConfig
from gaitdiff.training import device
from gaitdiff.training.finetune import finetune
from gaitdiff.training.pretrain import pretrain
device.keep_freed_memory = lambda: sys.exit("the allocator was set")
torch.set_num_threads(2)
torch.manual_seed(77)
before = torch.random.get_rng_state()
kind, run = ((PretrainConfig, pretrain), (FinetuneConfig, finetune))[{stage == "finetune"}]
run(parse_config(kind, "here", sys.argv[1:]))
assert torch.get_num_threads() == 2
assert torch.equal(torch.random.get_rng_state(), before)
"""
    flags = [*STAGES[stage], "--data.store", str(make_store(tmp_path / "store")), "--out", str(tmp_path / "run")]
    done = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_each_run_of_a_process_has_its_own_precision() -> None:
    for precision, expected in (("float32", "no"), ("bfloat16", "bf16"), ("float32", "no")):
        accelerator = make_accelerator(MachineConfig(device="cpu", precision=precision))
        assert accelerator.mixed_precision == expected


def test_a_precision_that_there_is_not_is_refused() -> None:
    with pytest.raises(UserError, match="is 'bf16', but can be auto, float32 or bfloat16"):
        make_accelerator(MachineConfig(device="cpu", precision="bf16"))  # type: ignore[arg-type]


def test_what_a_caller_set_up_with_accelerate_stays() -> None:
    code = """
from accelerate import Accelerator
from gaitdiff.config.schema import MachineConfig
from gaitdiff.errors import UserError
from gaitdiff.training.device import make_accelerator
mine = Accelerator(cpu=True, mixed_precision="bf16")
for precision in ("bfloat16", "float32"):
    try:
        print(make_accelerator(MachineConfig(device="cpu", precision=precision)).mixed_precision)
    except UserError as error:
        print("refused", precision in str(error))
    assert mine.mixed_precision == "bf16"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["bf16", "refused", "True"]
