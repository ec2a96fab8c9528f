"""The small world that tests of the report look at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from gaitdiff.config.schema import (
    DiffusionConfig,
    FinetuneConfig,
    FinetuneData,
    FinetuneOptim,
    ModelConfig,
    PretrainConfig,
    PretrainData,
)
from gaitdiff.report import examples
from gaitdiff.report.page import BASELINE, Report
from report_world import load_pool, make_run, make_store, pretrain_records, scored, supervised_records


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "load_autoencoder", load_pool)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("world")
    store = make_store(folder / "store")
    model = ModelConfig("smplgait", "walkers")
    stage1 = PretrainConfig(
        str(folder / "pre"),
        PretrainData(str(store), latent_frames=4, gait_frames=4),
        model,
        DiffusionConfig(denoiser="walkers"),
    )
    stage2 = FinetuneConfig(
        str(folder / "fine"),
        FinetuneData(str(store)),
        "finetune",
        str(folder / "pre"),
        optim=FinetuneOptim(iterations=10),
    )
    scratch = replace(stage2, out=str(folder / "scratch"), mode="scratch", init="", model=model)
    return Report(
        title="Test <of> the report",
        store=store,
        pretraining=make_run(folder / "pre", "pretrain", stage1, pretrain_records(), 0),
        supervised={
            "fine-tuned": make_run(folder / "fine", "finetune", stage2, supervised_records((12.5, 37.5, 62.5)), 1),
            "from scratch": make_run(folder / "scratch", "finetune", scratch, supervised_records((0.0, 25.0, 50.0)), 2),
        },
        scores={BASELINE: scored(37.5), "from scratch": scored(50.0), "fine-tuned": scored(62.5)},
        verdict="Fine-tuned & scratch: too few probes to tell.",
        facts={"people": "10", "machine <cores>": "2"},
    )
