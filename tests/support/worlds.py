"""Tiny stores and commands that several tests share."""

from __future__ import annotations

import atexit
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from forked import Forks, kill_when, start_in_two
from gaitdiff.cli import main
from gaitdiff.data.store import StoreWriter

#: A pretraining run of a second or two.
TINY_PRETRAIN = (
    *("--model.name", "smplgait", "--model.preset", "walkers", "--model.overrides.channels", "[4, 4, 8]"),
    *("--diffusion.denoiser", "walkers", "--diffusion.pooling", "mean"),
    *("--data.latent_frames", "2", "--data.gait_frames", "2", "--optim.batch", "4", "--optim.warmup", "2"),
    *("--machine.device", "cpu", "--machine.threads", "1"),
)
#: A supervised run alike.
TINY_SCRATCH = (
    *("--mode", "scratch", "--model.name", "smplgait", "--model.preset", "walkers"),
    *("--model.overrides.channels", "[4, 4, 8]", "--data.frames", "2"),
    *("--batch.people", "3", "--batch.sequences", "2", "--optim.optimizer", "adamw", "--optim.lr", "0.001"),
    *("--machine.device", "cpu", "--machine.threads", "1"),
)


def make_store(
    path: Path, people: int = 6, sequences: int = 3, frames: int = 6, test_people: int = 2, width: int = 64
) -> Path:
    """A store of moving bars, each person's of another width."""
    rng = np.random.default_rng(0)
    with StoreWriter(path, width=width, crop="full" if width == 64 else "cut", source="test") as writer:
        for person in range(people):
            test = person >= people - test_people
            for number in range(sequences):
                clip = np.zeros((frames, 64, width), np.uint8)
                for t in range(frames):
                    left = width // 2 - 4 + int(rng.integers(-3, 4))
                    clip[t, :, left : left + 4 + 2 * person] = 255
                    clip[t, 20 + person, left - 4 : left] = 255
                writer.add(
                    clip,
                    subject=f"p{person}",
                    condition="nm",
                    view=f"cam{number}",
                    sequence="s0",
                    split="test" if test else "train",
                    role=("probe" if number == 0 else "gallery") if test else "",
                )
    return path


def make_run(folder: Path) -> Path:
    """A checkpoint of one step of training, and the store it was trained on."""
    store = make_store(folder / "train", test_people=0)
    flags = (*TINY_SCRATCH, "--optim.iterations", "1", "--run.evaluate_every", "0")
    assert main(["finetune", *flags, "--data.store", str(store), "--out", str(folder / "run")]) == 0
    return folder / "run"


def gaitdiff(
    *words: str | Path,
    timeout: float = 300,
    environment: Mapping[str, str] | None = None,
    constants: Mapping[str, float] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a forked process of its own, with one thread: quick whatever else the machine does."""
    if sys.platform != "linux":  # which forks cannot be waited for in the same way
        command = [sys.executable, "-m", "gaitdiff", *map(str, words)]
        everything = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=everything, check=False)
    ended = _fork(0).run(*words, environment=environment, seconds=timeout, constants=constants)
    return subprocess.CompletedProcess([*map(str, words)], ended.code, ended.printed, ended.said)


@cache
def _fork(rank: int) -> Forks:
    folder = TemporaryDirectory()
    forks = Forks(Path(folder.name), room=None)
    atexit.register(lambda: (forks.__exit__(None, None, None), folder.cleanup()))
    return forks


def in_two(*words: str | Path, killed: Callable[[], bool] | None = None) -> str:
    """Run a command as two processes with one thread each, as under torchrun, for tests of which that is no subject.

    Args:
        killed: whether to end them by SIGTERM to the first, asked all the time.

    Returns:
        What both wrote to their standard error.
    """
    both = _fork(0), _fork(1)
    first, _ = start_in_two(both, *words)
    if killed is not None:
        kill_when(killed, first, signal.SIGTERM)
    ended = [fork.end() for fork in both]
    assert all(one.code == 0 for one in ended) or killed is not None, ended
    return "".join(one.said for one in ended)


def kill_after(words: list[str], metrics: Path, lines: int) -> None:
    """Start a run and kill it without warning once its metrics have ``lines`` lines."""
    _fork(0).run(*words, killed=lambda: metrics.is_file() and metrics.read_text().count("\n") >= lines)


def one_sentence(result: subprocess.CompletedProcess[str]) -> str:
    """The message of a refused command: exit code 2, one line after those of progress, no stack trace."""
    assert result.returncode == 2, (result.returncode, result.stdout, result.stderr)
    progress = r"[\w ]+: (step )?\d+[:/]|[\w ]+ goes on after step|.* is being written by .*: waiting 1?0 s"
    progress += r"|--[\w.]+ is given 2 times"  # of words that a test adds to those of others
    lines = [line for line in result.stderr.strip().splitlines() if not re.match(progress, line)]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("gaitdiff: ")
    return lines[0]


def without_digests(checkpoint: Path) -> Path:
    """Make a checkpoint one of a version that wrote no digests, and did not say of which run it was."""
    (checkpoint / "SHA256SUMS").unlink()
    state = checkpoint / "state.json"
    with suppress(ValueError):
        known = json.loads(state.read_text()).items()
        state.write_text(json.dumps({key: value for key, value in known if key != "run"}))
    return checkpoint


def records(run: Path) -> list[dict[str, object]]:
    """Metrics without what depends on the clock, and on where the run lies."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for record in found:
        record.pop("seconds_per_step", None)
        if "about" in record:
            assert record["about"].pop("run") == str(run)
    return found


def torchrun(*words: str | Path) -> str:
    """Run two processes with one thread each; what they wrote to their standard error."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    places = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": places}
    done = subprocess.run(
        [*launch, *map(str, words)], capture_output=True, text=True, env=environment, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stderr
