"""Pipes and devices in place of files are refused at once, wherever a file of the user's is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forked import Forks
from worlds import TINY_PRETRAIN, make_run, without_digests

PLACES: dict[str, Callable[[Path], tuple[Path, list[str]]]] = {
    "a run's settings": lambda w: (w / "run/config.yaml", ["report", f"{w}/run", "--out", f"{w}/page"]),
    "a run's metrics": lambda w: (w / "run/metrics.jsonl", ["report", f"{w}/run", "--out", f"{w}/page"]),
    "digests": lambda w: (w / "c/SHA256SUMS", ["embed", f"{w}/c", f"{w}/train", "--out", f"{w}/a.npz"]),
    "weights": lambda w: (w / "c/backbone.safetensors", ["embed", f"{w}/c", f"{w}/train", "--out", f"{w}/a.npz"]),
    "a head": lambda w: (w / "c/head.safetensors", ["embed", f"{w}/c", f"{w}/train", "--out", f"{w}/a.npz"]),
    "a model": lambda w: (w / "c/model.json", ["embed", f"{w}/c", f"{w}/train", "--out", f"{w}/a.npz"]),
    "a store's header": lambda w: (w / "train/store.json", ["data", "inspect", f"{w}/train"]),
    "a store's frames": lambda w: (w / "train/frames.bin", ["data", "inspect", f"{w}/train"]),
    "an archive": lambda w: (w / "a.tar", ["data", "import", f"{w}/a.tar", "--out", f"{w}/s"]),
    "a recipe": lambda w: (w / "r.yaml", ["pretrain", "--recipe", f"{w}/r.yaml", "--data", f"{w}/train", "--out", "o"]),
    "an autoencoder": lambda w: (
        w / "taesd/taesd_encoder.safetensors",
        ["pretrain", *TINY_PRETRAIN, f"--diffusion.autoencoder={w}/taesd", f"--data.store={w}/train", f"--out={w}/o"],
    ),
}


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with Forks(tmp_path_factory.mktemp("forks")) as found:
        yield found


@pytest.mark.parametrize("digests", [True, False])
@pytest.mark.parametrize("place", PLACES)
def test_a_pipe_is_no_file(place: str, digests: bool, forks: Forks, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (run / "checkpoints" / "step-00000001").rename(tmp_path / "c")
    (tmp_path / "taesd").mkdir()
    for name in ("taesd_encoder", "taesd_decoder"):
        (tmp_path / "taesd" / f"{name}.safetensors").touch()
    file, words = PLACES[place](tmp_path)
    if not digests and place != "digests":
        without_digests(tmp_path / "c")
    file.unlink(missing_ok=True)
    os.mkfifo(file)
    ended = forks.run(*words, seconds=60)
    assert ended.code == 2, (ended.code, ended.said)
    assert ended.said.startswith("gaitdiff: ")
    assert ended.said.count("\n") == 1
    assert place in ("a model", "a recipe") or file.name in ended.said  # of these two it says that there is none


@pytest.mark.parametrize(
    "place",
    ["a run's settings", "a run's metrics", "a model", "a state", "a store's header", "a recipe", "a comparison"],
)
def test_what_is_nested_without_end_is_one_sentence(place: str, forks: Forks, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    checkpoint = without_digests(run / "checkpoints" / "step-00000001")
    curve = [*("label-curve", f"one={run}", "--data", f"{tmp_path}/train", "--people", "2"), "--out", f"{tmp_path}/l"]
    (tmp_path / "l").mkdir()
    texts = {
        "a model": (checkpoint / "model.json", ["embed", f"{run}", f"{tmp_path}/train", "--out", f"{tmp_path}/a.npz"]),
        "a state": (checkpoint / "state.json", ["embed", f"{run}", f"{tmp_path}/train", "--out", f"{tmp_path}/a.npz"]),
        "a comparison": (tmp_path / "l" / "label_curve.json", curve),
    }
    file, words = texts[place] if place in texts else PLACES[place](tmp_path)
    file.write_text("[" * 60_000 + "\n")
    ended = forks.run(*words, seconds=60)
    assert ended.code == 2, (ended.code, ended.said)
    assert ended.said.startswith("gaitdiff: ")
    assert ended.said.count("\n") == 1
    assert file.name in ended.said
