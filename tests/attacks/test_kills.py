"""kill -9 at any time, of any verb that writes: the same command, given again, leaves what it would have left at once.

Some kills of each always happen; ``--attacks N`` makes N times as many, from 4 on of the quick start, too.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from forked import Ended, Forks, kill_when, start_in_two
from gaitdiff.cli import main
from masks import encode, person
from opengait_files import small_file
from worlds import TINY_PRETRAIN, TINY_SCRATCH, make_store

#: Kills of one command, before it is left to end, at each dose.
KILLS = 2
PACE = (
    *("--optim.iterations", "12", "--run.save_every", "2", "--run.evaluate_every", "4", "--run.log_every", "1"),
    *("--run.keep", "2"),
)
_PRETRAIN, _FINETUNE = " ".join((*TINY_PRETRAIN, *PACE)), " ".join((*TINY_SCRATCH, *PACE))
_SETTINGS = "optim.iterations=3 optim.milestones=[2] data.frames=2 batch.people=2 batch.sequences=2"
_LABELS = "--people 2,all --seeds 1 --set " + _SETTINGS.replace(" ", " --set ")
_NARROW = "--model smplgait --preset gait3d --override channels=[4,4,8] --override embedding=8"

#: Files of locks, and of what each start of a run was made with.
_CLOCK = (".lock", "writer.lock", "environment.jsonl")
#: Verb → its words; W is where there is something to work on, O a folder that is free for what it makes.
VERBS = {
    "pretrain": f"pretrain {_PRETRAIN} --data.store W/store --out O/run",
    "finetune": f"finetune {_FINETUNE} --data.store W/store --out O/run",
    "pretrain in two": f"pretrain {_PRETRAIN} --data.store W/store --out O/run",
    "finetune in two": f"finetune {_FINETUNE} --data.store W/store --out O/run",
    "data walkers": "data walkers --people 4 --sequences 2 --frames 9 --workers 1 --out O/s",
    "data import": "data import W/tree --out O/s --workers 1",
    "data import by two": "data import W/tree --out O/s --workers 2",
    "data split": "data split W/store --val-people 2 --out O/s",
    "data export": "data export W/store --out O/tree",
    "evaluate": "evaluate W/run --data W/store --device cpu --json O/a.json --save-features O/a.npy",
    "embed": "embed W/run W/store --device cpu --out O/a.npz",
    "generate": "generate W/pre --like W/store --count 40 --steps 2 --device cpu --out O/s",
    "generate a picture": "generate W/pre --like W/store --count 40 --steps 2 --device cpu --out O/a.gif",
    "report": "report W/run --device cpu --out O/page",
    "label-curve": f"label-curve mine=W/run --data W/store {_LABELS} --device cpu --out O/curve",
    "export": "export W/run --out O/a.onnx",
    "import-opengait": f"import-opengait W/a.pt {_NARROW} --out O/c",
    "export-opengait": "export-opengait W/c --out O/a.pt",
    "quickstart": "quickstart --small --device cpu --out O/q",
}
#: The least dose of what takes minutes.
_FROM = {"quickstart": 4}


def words_of(verb: str, world: Path, out: Path) -> list[str]:
    return re.sub(r"\bO/", f"{out}/", re.sub(r"\bW/", f"{world}/", VERBS[verb].replace("[4, 4, 8]", "[4,4,8]"))).split()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    make_store(root / "store", frames=4)
    words = ["finetune", *TINY_SCRATCH, "--optim.iterations", "2", "--run.evaluate_every", "1"]
    assert main([*words, "--data.store", str(root / "store"), "--out", str(root / "run")]) == 0
    words = ["pretrain", *TINY_PRETRAIN, "--optim.iterations", "1", "--run.evaluate_every", "0"]
    assert main([*words, "--data.store", str(root / "store"), "--out", str(root / "pre")]) == 0
    for number in range(12):
        folder = root / "tree" / f"{number:04}" / "nm-01" / "000"
        folder.mkdir(parents=True)
        for t in range(5):
            (folder / f"{t}.png").write_bytes(encode(person(number + t)))
    small_file(root / "a.pt")
    assert main(words_of("import-opengait", root, root)) == 0
    return root


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Forks, Forks]]:
    with ExitStack() as stack:
        one, two = (stack.enter_context(Forks(tmp_path_factory.mktemp("forks"))) for _ in range(2))
        yield one, two


def made(folder: Path, drafts: bool = True) -> dict[str, str]:
    """Every file under a folder with its digest, without what the clock decides and what a lock leaves.

    Args:
        drafts: whether those count that a kill has left, which go when the next command writes there.
    """
    found = {}
    files = (path for path in folder.rglob("*") if not path.is_dir() and path.name not in _CLOCK)
    for file in sorted(path for path in files if drafts or ".partial/" not in str(path)):
        data = file.read_bytes()
        if file.name == "metrics.jsonl":
            records = [json.loads(line) for line in data.splitlines()]
            data = json.dumps([{**record, "seconds_per_step": 0} for record in records]).encode()
        if file.name == "index.html":
            data = re.sub(rb"[0-9.]+ in this call", b"", data)
        found[str(file.relative_to(folder))] = hashlib.sha256(data).hexdigest()
    return found


def moment(out: Path, lasts: float, rng: random.Random) -> Callable[[], bool]:
    """Whether to kill now: at a time that chance has chosen, or just after what is written has changed for so long."""
    begun, at, changes = time.monotonic(), rng.uniform(0, lasts), rng.randrange(1, 12)
    seen: set[str] = set()
    if rng.random() < 0.5:
        return lambda: time.monotonic() - begun >= at

    def changed() -> bool:
        seen.update(f"{folder}/{name}" for folder, folders, files in os.walk(out) for name in (*folders, *files))
        return len(seen) >= changes

    return changed


def run(
    verb: str, words: list[str], forks: tuple[Forks, Forks], killed: Callable[[], bool] | None, victim: int
) -> Ended:
    """Run a command in one process, or in two of which one is killed; how the first or the killed one ended."""
    if not verb.endswith("in two"):
        return forks[0].run(*words, killed=killed)
    processes = start_in_two(forks, *words)
    if killed is not None:
        kill_when(killed, processes[victim])
        until = time.monotonic() + 30  # one that waits for the other to come is ended as a launcher does it
        kill_when(lambda: time.monotonic() > until, processes[1 - victim])
    both = [fork.end() for fork in forks]
    if both[victim].code == -9:
        other = both[1 - victim]
        assert other.code in (0, 2, -9), other.said
        assert "Traceback" not in other.said
    return both[victim]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    dose = metafunc.config.getoption("--attacks")
    metafunc.parametrize("verb", [verb for verb in VERBS if dose >= _FROM.get(verb, 1)])


def test_a_kill_loses_nothing(
    verb: str, world: Path, forks: tuple[Forks, Forks], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    words = words_of(verb, world, out)
    begun = time.monotonic()
    assert run(verb, words, forks, None, 0).code == 0
    lasts, whole = time.monotonic() - begun, made(out)
    assert whole
    kills = 0
    for chain in range(request.config.getoption("--attacks") // _FROM.get(verb, 1)):
        rng = random.Random(f"{verb} {chain}")
        shutil.rmtree(out)
        out.mkdir()
        for _ in range(KILLS):
            ended = run(verb, words, forks, moment(out, lasts, rng), rng.randrange(2))
            assert "Traceback" not in ended.said, ended.said
            kills += ended.code == -9
            if made(out, drafts=False) == whole:
                break
            assert ended.code == -9, (ended.said, sorted(made(out).items() ^ whole.items()))
        else:
            ended = run(verb, words, forks, None, 0)
            assert ended.code == 0, ended.said
            assert made(out) == whole
    print(f"{verb}: {kills} kills")
