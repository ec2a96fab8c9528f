"""Whatever happens to a file, a command succeeds or says one sentence, within memory and time, and loses nothing else.

Some seconds of it run always; ``--attacks N`` damages N times as much.
"""

from __future__ import annotations

import json
import pickle
import random
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from damages import copied, damage
from forked import Ended, Forks
from gaitdiff.cli import main
from masks import encode, person
from opengait_files import small_file, weights
from worlds import TINY_PRETRAIN, TINY_SCRATCH, make_store, without_digests

TRIALS = 8
#: Bytes that a command may take more than when nothing is damaged.
MEMORY = 1 << 30
#: OpenGait's model, narrow.
NARROWED = ("--preset", "gait3d", "--override", "channels=[4,4,8]", "--override", "embedding=8")
PACE = ("--optim.iterations", "3", "--run.save_every", "1", "--run.evaluate_every", "0", "--run.keep", "2")


@dataclass
class World:
    """A folder with a store, a run of each stage, and their checkpoints."""

    root: Path

    def run(self, stage: str, out: Path) -> list[str | Path]:
        tiny = TINY_PRETRAIN if stage == "pretrain" else TINY_SCRATCH
        return [stage, *tiny, *PACE, "--data.store", self.root / "store", "--out", out]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    found = World(tmp_path_factory.mktemp("whole"))
    make_store(found.root / "store", frames=3)
    for stage in ("pretrain", "finetune"):
        assert main([str(word) for word in found.run(stage, found.root / stage)]) == 0
    return found


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with Forks(tmp_path_factory.mktemp("forks")) as found:
        yield found


def checkpoint(world: World, at: Path) -> Path:
    """A checkpoint without digests, as older ones are."""
    copied(world.root / "finetune" / "checkpoints" / "step-00000003", at)
    return without_digests(at)


def stopped(stage: str) -> Callable[[World, Path], Path]:
    def make(world: World, at: Path) -> Path:
        copied(world.root / stage, at)
        copied(at / "checkpoints" / "step-00000002", at / "checkpoints" / "step-00000001")
        without_digests(at / "checkpoints" / "step-00000001")
        for file in (at / "checkpoints" / "step-00000003").iterdir():
            file.unlink()
        (at / "checkpoints" / "step-00000003").rmdir()
        return at

    return make


def pickles(world: World, at: Path) -> Path:
    for number, protocol in enumerate((2, 4, 5)):
        folder = at / f"000{number}" / "nm-01" / "000"
        folder.mkdir(parents=True)
        frames = np.stack([np.asarray(person(number + t)) for t in range(3)])
        (folder / "000.pkl").write_bytes(pickle.dumps(frames, protocol=protocol))
    return at


def images(world: World, at: Path) -> Path:
    for number, suffix in enumerate((".png", ".jpg", ".bmp")):
        folder = at / f"000{number}" / "nm-01" / "000"
        folder.mkdir(parents=True)
        for t in range(3):
            (folder / f"{t}{suffix}").write_bytes(encode(person(t), suffix))
    return at


def archives(world: World, at: Path) -> Path:
    at.mkdir()
    tree = images(world, at.parent / f"{at.name}-tree")
    files = [(file, str(file.relative_to(tree))) for file in sorted(tree.rglob("*.*"))]
    with zipfile.ZipFile(at / "a.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for file, name in files:
            packed.write(file, name)
    with tarfile.open(at / "a.tar", "w") as tar:
        for file, name in files:
            tar.add(file, name)
    return at


def partition(world: World, at: Path) -> Path:
    images(world, at)
    names = {"TRAIN_SET": ["0000"], "TEST_SET": ["0001", "0002"]}
    (at.parent / f"{at.name}.json").write_text(json.dumps(names))
    return at


def opengait(world: World, at: Path) -> Path:
    at.mkdir()
    small_file(at / "new.pt", {"model": weights(), "iteration": 5})
    small_file(at / "old.pt", {"model": weights(), "iteration": 5}, _use_new_zipfile_serialization=False)
    return at


def recipe(world: World, at: Path) -> Path:
    at.mkdir()
    (at / "mine.yaml").write_text(
        "base: walkers/pretrain\nmodel: {name: smplgait, preset: walkers, overrides: {channels: [4, 4, 8]}}\n"
        "data: {latent_frames: 2, gait_frames: 2, min_frames: 1}\noptim: {iterations: 1, batch: 4, lr: 0.001}\n"
        "run: {evaluate_every: 0}\nmachine: {device: cpu, threads: 1}\n"
    )
    return at


#: What is damaged → how its whole copy is made, and the commands that meet it.
KINDS: dict[str, tuple[Callable[[World, Path], Path], Callable[[World, Path, Path], list[list[str | Path]]]]] = {
    "checkpoint": (
        checkpoint,
        lambda world, at, out: [
            ["embed", at, world.root / "store", "--out", out / "a.npz", "--device", "cpu"],
            [
                "finetune",
                *TINY_SCRATCH[2:],
                *PACE,
                "--init",
                at,
                "--data.store",
                world.root / "store",
                "--out",
                out / "r",
            ],
        ],
    ),
    "pretraining run": (
        stopped("pretrain"),
        lambda world, at, out: [["report", at, "--out", out / "page"], world.run("pretrain", at)],
    ),
    "fine-tuning run": (
        stopped("finetune"),
        lambda world, at, out: [["report", at, "--out", out / "page"], world.run("finetune", at)],
    ),
    "store": (
        lambda world, at: copied(world.root / "store", at),
        lambda world, at, out: [
            ["data", "inspect", at],
            ["data", "split", at, "--val-people", "2", "--out", out / "split"],
            ["data", "export", at, "--out", out / "tree"],
            ["evaluate", world.root / "finetune", "--data", at, "--device", "cpu"],
        ],
    ),
    "pickles": (pickles, lambda world, at, out: [["data", "import", at, "--out", out / "s", "--workers", "1"]]),
    "images": (images, lambda world, at, out: [["data", "import", at, "--out", out / "s", "--workers", "1"]]),
    "archives": (
        archives,
        lambda world, at, out: [
            ["data", "import", at / name, "--out", out / name, "--workers", "1"] for name in ("a.zip", "a.tar")
        ],
    ),
    "partition": (
        partition,
        lambda world, at, out: [
            ["data", "import", at, "--out", out / "s", "--workers", "1", "--partition", f"{at}.json"],
        ],
    ),
    "file of OpenGait": (
        opengait,
        lambda world, at, out: [
            ["import-opengait", at / name, "--model", "smplgait", *NARROWED, "--out", out / name]
            for name in ("new.pt", "old.pt")
        ],
    ),
    "recipe": (
        recipe,
        lambda world, at, out: [
            ["pretrain", "--recipe", at / "mine.yaml", "--data.store", world.root / "store", "--out", out / "r"]
        ],
    ),
}


def wrong(ended: Ended) -> str:
    """What is not as it should be with a command's end."""
    code, said = ended.code, ended.said
    last = [line for line in said.strip().splitlines() if line.startswith("gaitdiff: ")]
    if code not in (0, 2):
        return f"it ended with {code}"
    if "Traceback" in said:
        return "a traceback"
    if code == 2 and (len(last) != 1 or not said.rstrip().endswith(last[0])):
        return "not one sentence"
    return "" if ended.memory < MEMORY else f"it took {ended.memory:,} bytes"


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_read_or_refused(
    kind: str, world: World, forks: Forks, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    make, commands = KINDS[kind]
    whole = make(world, tmp_path / "whole")
    partner = Path(f"{whole}.json")
    found, trials = [], TRIALS * request.config.getoption("--attacks")
    for number in range(-1, trials):
        rng = random.Random(f"{kind} {number}")
        at = copied(whole, tmp_path / "damaged")
        if partner.exists():
            copied(partner, tmp_path / "damaged.json")
        files = sorted(path for path in at.rglob("*") if path.is_file())
        told = "nothing"
        if number >= 0:
            victim = tmp_path / "damaged.json" if partner.exists() else rng.choice(files)
            told = damage(victim, files, rng)
        out = tmp_path / f"out{number}"
        out.mkdir()
        for words in commands(world, at, out):
            ended = forks.run(*words)
            mistake = wrong(ended)
            if number < 0 and ended.code != 0:
                mistake = mistake or "it was refused"
            if mistake:
                found.append(f"{number}: {told}: {' '.join(map(str, words[:2]))}: {mistake}: {ended.said[-1500:]}")
    assert not found, f"{len(found)} of {trials}\n" + "\n\n".join(found)
