"""A compiled run computes what another one does, keeps its weights' names, and goes on where compiling fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.backends.debugging import aot_eager

from gaitdiff.cli import main
from gaitdiff.models.layers.parts import HorizontalPooling
from gaitdiff.training.compiled import compile_each
from gaitdiff.walkers import generate
from refusals import refused
from worlds import TINY_PRETRAIN, TINY_SCRATCH, records

PACE = ("--optim.iterations", "3", "--run.log_every", "1", "--run.evaluate_every", "3", "--run.save_every", "3")
NAMES = ("usual", "compiled")
STAGES = {"pretrain": TINY_PRETRAIN, "finetune": TINY_SCRATCH}


def run(stage: str, store: Path, out: Path, *more: str) -> None:
    words = [*STAGES[stage], *PACE, "--machine.precision", "float32", "--data.store", str(store), "--out", str(out)]
    assert main([stage, *words, *more]) == 0


def through(monkeypatch: pytest.MonkeyPatch, backend: Callable[..., Any]) -> None:
    """Have graphs compiled by ``backend``, which needs no C++ compiler."""
    real = torch.compile
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", lambda function, **more: real(function, backend=backend, **more))


@pytest.mark.parametrize("stage", STAGES)
def test_a_compiled_run(stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "walks"
    generate(store, people=6, sequences=3, frames=8, test_people=2, workers=1)  # bars are too much alike
    run(stage, store, tmp_path / "usual")
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(graph)
        return aot_eager(graph, inputs)

    through(monkeypatch, backend)
    run(stage, store, tmp_path / "compiled", "--machine.compile", "true")
    assert len(graphs) == (3 if stage == "pretrain" else 2)  # one of each network, whole: scoring compiled none
    # BatchNorm's statistics are torch's in what is compiled, and add up to fewer digits.
    for usual, compiled in zip(*(records(tmp_path / name) for name in NAMES), strict=True):
        assert compiled.get("loss", 0) == pytest.approx(usual.get("loss", 0), rel=1e-3)
        assert compiled.keys() == usual.keys()
    mine, theirs = (load_file(next(tmp_path.glob(f"{name}/checkpoints/*/backbone.safetensors"))) for name in NAMES)
    assert mine.keys() == theirs.keys()


def no_compiler(*_: Any) -> Any:
    raise OSError("no compiler here")


def none_for_gradients(graph: torch.fx.GraphModule, inputs: Any) -> Any:
    return aot_autograd(fw_compiler=lambda forward, _: forward, bw_compiler=no_compiler)(graph, inputs)


@pytest.mark.parametrize("broken", [no_compiler, none_for_gradients])
def test_where_it_fails_the_run_goes_on(
    broken: Callable[..., Any],
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run("pretrain", store, tmp_path / "usual")
    through(monkeypatch, broken)
    capsys.readouterr()
    run("pretrain", store, tmp_path / "run", "--machine.compile", "true")
    said = " ".join(capsys.readouterr().err.split())
    for name in ("PlainBackbone", "Denoiser", *(["Sequential"] if broken is no_compiler else [])):
        assert said.count(f"{name} is not compiled") == 1
    assert "no compiler here" in said
    assert records(tmp_path / "run") == records(tmp_path / "usual")


def test_clips_of_many_lengths_are_refused(store: Path, tmp_path: Path) -> None:
    flags = ["--machine.compile", "true", "--data.frames_max", "5", "--out", str(tmp_path / "run")]
    assert "one length" in refused("finetune", *TINY_SCRATCH, "--data.store", str(store), *flags)


def test_maxima_in_bfloat16_have_gradients() -> None:
    """Where a compiler is there: a maximum below zero, rounded, once equalled none of what it is the maximum of."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.LeakyReLU(), HorizontalPooling([2]))
    nn.init.constant_(layers[0].bias, -3.0)
    torch._dynamo.reset()
    compile_each([layers], layers)
    with torch.autocast("cpu", torch.bfloat16):
        layers(torch.rand(2, 1, 8, 6)).float().square().sum().backward()
    assert all(bool(torch.isfinite(weight.grad).all()) for weight in layers.parameters())
