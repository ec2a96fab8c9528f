"""A compiled run computes what another one does, keeps its weights' names, and goes on where compiling fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from gaitdiff.cli import main
from gaitdiff.walkers import generate
from worlds import TINY_PRETRAIN, TINY_SCRATCH, records

PACE = ("--optim.iterations", "3", "--run.log_every", "1", "--run.evaluate_every", "3", "--run.save_every", "3")
NAMES = ("usual", "compiled")
STAGES = {"pretrain": TINY_PRETRAIN, "finetune": TINY_SCRATCH}


def run(stage: str, store: Path, out: Path, *more: str) -> None:
    words = [*STAGES[stage], *PACE, "--machine.precision", "float32", "--data.store", str(store), "--out", str(out)]
    assert main([stage, *words, *more]) == 0


def through(monkeypatch: pytest.MonkeyPatch, backend: Any) -> list[str]:
    """Have graphs compiled by ``backend``, which needs no C++ compiler; names of what was called compiled."""
    real, called = torch.compile, []

    def compile_(function: Callable[..., Any], **settings: Any) -> Callable[..., Any]:
        compiled = real(function, backend=backend, **settings)

        def call(*inputs: Any, **named: Any) -> Any:
            called.append(type(function.__self__).__name__)  # type: ignore[attr-defined]
            return compiled(*inputs, **named)

        return call

    monkeypatch.setattr(torch, "compile", compile_)
    return called


@pytest.mark.parametrize("stage", STAGES)
def test_a_compiled_run(stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "walks"
    generate(store, people=6, sequences=3, frames=8, test_people=2, workers=1)  # bars are too much alike
    run(stage, store, tmp_path / "usual")
    called = through(monkeypatch, "aot_eager")
    run(stage, store, tmp_path / "compiled", "--machine.compile", "true")
    wanted = {"PlainBackbone", "Denoiser", "Sequential"} if stage == "pretrain" else {"PlainBackbone", "BNNeckHead"}
    assert set(called) == wanted
    # BatchNorm's statistics are torch's in what is compiled, and add up to fewer digits.
    for usual, compiled in zip(*(records(tmp_path / name) for name in NAMES), strict=True):
        assert compiled.get("loss", 0) == pytest.approx(usual.get("loss", 0), rel=1e-3)
        assert compiled.keys() == usual.keys()
    mine, theirs = (load_file(next(tmp_path.glob(f"{name}/checkpoints/*/backbone.safetensors"))) for name in NAMES)
    assert mine.keys() == theirs.keys()


def test_where_it_fails_the_run_goes_on(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any) -> Any:
        raise OSError("no compiler here")

    run("pretrain", store, tmp_path / "usual")
    through(monkeypatch, broken)
    capsys.readouterr()
    run("pretrain", store, tmp_path / "run", "--machine.compile", "true")
    said = " ".join(capsys.readouterr().err.split())
    for name in ("PlainBackbone", "Denoiser", "Sequential"):
        assert said.count(f"{name} is not compiled") == 1
    assert "no compiler here" in said
    assert records(tmp_path / "run") == records(tmp_path / "usual")
