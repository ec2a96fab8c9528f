"""Several processes of a run compute the features that one would."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gaitdiff.config.recipe import parse_config
from gaitdiff.config.schema import FinetuneConfig, PretrainConfig
from gaitdiff.data.store import SequenceStore, StoreWriter
from gaitdiff.evaluation.features import extract
from gaitdiff.evaluation.shards import deal_round_robin, extract_shared
from gaitdiff.models import GaitModel, create_model
from gaitdiff.training.finetune import FinetuneStage
from gaitdiff.training.pretrain import PretrainStage
from reference import golden_document
from worlds import TINY_PRETRAIN, TINY_SCRATCH, gaitdiff, in_two, make_run, make_store, records, torchrun

COUNTS = (1, 2, 7, 601)
STAGES = {
    "pretrain": (PretrainConfig, PretrainStage, TINY_PRETRAIN),
    "finetune": (FinetuneConfig, FinetuneStage, TINY_SCRATCH),
}


@pytest.mark.parametrize("case", golden_document("inference_sampler"))
def test_dealt_as_the_reference_deals(case: dict[str, object]) -> None:
    dealt = deal_round_robin(case["dataset_size"], case["batch_size"], case["world_size"])  # type: ignore[arg-type]
    assert dealt.tolist() == case["batches_per_rank"]


def test_everything_is_dealt_once_but_for_the_filling() -> None:
    for count in range(1, 20):
        for world in (1, 2, 3, 8):
            for batch in (world, 2 * world):
                dealt = deal_round_robin(count, batch, world)
                times = np.bincount(dealt.ravel(), minlength=count)
                assert len(times) == count
                assert times.sum() == dealt.size == -(-count // batch) * batch
                assert times.max() - times.min() <= 1
                assert (np.diff(times) <= 0).all()  # what stands twice is the beginning


def worker_model(name: str, rank: int) -> GaitModel:
    """A tiny model, with BatchNorm statistics that no other process has."""
    torch.manual_seed(0)
    model = create_model(name, "walkers", channels=(4, 4, 8) if name == "smplgait" else (4, 4, 8, 8))
    for key, buffer in model.named_buffers():
        if key.endswith("running_mean"):
            buffer.fill_(0.1 * (1 + rank))
    return model.eval()


def uneven_store(path: Path) -> SequenceStore:
    """Sequences of 1 to 3 frames of noise."""
    rng = np.random.default_rng(0)
    with StoreWriter(path, width=64, crop="full", source="test") as writer:
        for number in range(16):
            frames = rng.integers(0, 256, (1 + number % 3, 64, 64), dtype=np.uint8)
            writer.add(frames, subject=f"p{number}", condition="", view="", sequence=f"{number}", split="test", role="")
    return SequenceStore(path)


def some_rows(count: int) -> np.ndarray:
    """Row numbers in no order, again and again."""
    return np.random.default_rng(count).integers(0, 16, count)


def share(folder: Path) -> None:
    """One of the processes of the test below."""
    torch.distributed.init_process_group("gloo")
    rank, store = torch.distributed.get_rank(), SequenceStore(folder / "store")
    for name in ("smplgait", "deepgaitv2"):
        for count in COUNTS:
            features = extract_shared(worker_model(name, rank), store, some_rows(count), torch.device("cpu"))
            assert (features is None) == (rank != 0)
            if features is not None:
                np.save(folder / f"{name}-{count}.npy", features.numpy())
    torch.distributed.destroy_process_group()


def test_two_processes_extract_what_one_does(tmp_path: Path) -> None:
    """For models that pack unequal lengths and those that do not, for fewer rows than processes and for many."""
    store = uneven_store(tmp_path / "store")
    torchrun(__file__, tmp_path)
    for name in ("smplgait", "deepgaitv2"):
        model = worker_model(name, rank=0)
        for count in COUNTS:
            alone = extract(model, store, some_rows(count), torch.device("cpu"))
            together = torch.from_numpy(np.load(tmp_path / f"{name}-{count}.npy"))
            torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("command", STAGES)
def test_two_processes_log_the_scores_of_one(command: str, tmp_path: Path) -> None:
    kind, make, tiny = STAGES[command]
    store, run = make_store(tmp_path / "store", people=9, test_people=5), tmp_path / "run"
    flags = [*tiny, "--data.store", str(store), "--out", str(run), "--machine.precision", "float32"]
    flags += ["--optim.iterations", "4", "--run.evaluate_every", "2", "--run.save_every", "2", "--run.keep", "2"]
    assert "Grad strides" not in in_two(command, *flags)
    logged = {record["step"]: record["evaluation"] for record in records(run) if "evaluation" in record}
    assert list(logged) == [0, 2, 4]
    stage = make(parse_config(kind, f"gaitdiff {command}", flags), torch.device("cpu"), world_size=2)  # type: ignore[arg-type]
    assert stage.evaluate() == logged[0]
    for step in (2, 4):
        stage.load(run / "checkpoints" / f"step-{step:08d}")
        assert stage.evaluate() == logged[step]


def test_two_processes_evaluate_and_embed_as_one_does(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    store = make_store(tmp_path / "test", people=8, test_people=8, frames=9)
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        scores = ["evaluate", run, "--data", store, "--device", "cpu", "--json", folder / "scores.json"]
        scores += ["--save-features", folder / "features.npy"]
        walks = ["embed", run, store, "--device", "cpu", "--out", folder / "walks.npz"]
        for words in (scores, walks):
            if name == "two":
                in_two(*words)
            else:
                assert gaitdiff(*words).returncode == 0
    one, two = tmp_path / "one", tmp_path / "two"
    assert json.loads((one / "scores.json").read_text()) == json.loads((two / "scores.json").read_text())
    mine, theirs = (np.load(folder / "features.npy") for folder in (one, two))
    np.testing.assert_allclose(mine, theirs, atol=1e-5)
    with np.load(one / "walks.npz") as mine, np.load(two / "walks.npz") as theirs:
        assert mine.files == theirs.files
        np.testing.assert_allclose(mine["features"], theirs["features"], atol=1e-5)
        assert all((mine[name] == theirs[name]).all() for name in mine.files if name != "features")


if __name__ == "__main__":
    share(Path(sys.argv[1]))
