"""Exported models: onnxruntime and ``torch.export`` programs against the model itself, at shapes never traced."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from gaitdiff import __version__
from gaitdiff.cli import main
from gaitdiff.errors import UserError
from gaitdiff.exchange.onnx import export_onnx, export_program, minimum_frames
from gaitdiff.models import Backbone, GaitModel, create_model, list_models
from gaitdiff.models.base import NeckModel
from gaitdiff.training.checkpoint import model_document
from gaitdiff.training.checkpoint_files import save_checkpoint


def trained(name: str, seed: int = 0) -> GaitModel:
    """A narrow model whose BatchNorm statistics are not those of a fresh one."""
    torch.manual_seed(seed)
    model = create_model(name, "walkers", num_classes=3)
    for key, buffer in model.named_buffers():
        if key.endswith("running_mean"):
            buffer.normal_(std=0.1)
        elif key.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return model.eval()


def run_onnx(path: Path, clip: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"clip": clip.numpy()})[0])


def off(got: Tensor, want: Tensor) -> float:
    """Largest difference as a share of the root mean square."""
    assert got.shape == want.shape
    return float((got - want).abs().max() / want.square().mean().sqrt())


@pytest.mark.parametrize("name", list_models())
def test_onnx_gives_the_models_embeddings(name: str, tmp_path: Path) -> None:
    model = trained(name)
    path = tmp_path / "model.onnx"
    export_onnx(model, path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]  # weights are inside
    for batch, frames in ((1, minimum_frames(model)), (2, 5), (1, 31)):
        clip = torch.rand(batch, frames, 64, 44)
        with torch.no_grad():
            want = model(clip).embedding
        assert off(run_onnx(path, clip), want) < 1e-4
    graph = onnx.load(path)
    onnx.checker.check_model(graph)
    told = {entry.key: entry.value for entry in graph.metadata_props}
    assert (told["gaitdiff"], told["model"], told["minimum_frames"]) == (__version__, name, str(minimum_frames(model)))
    assert json.loads(told["config"]) == json.loads(json.dumps(asdict(model.config)))
    shape = graph.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in shape] == ["batch", "frames", 64, 44]


@pytest.mark.parametrize("name", ["gaitgl", "smplgait"])
def test_programs_give_the_models_raw_features(name: str) -> None:
    model = trained(name).train()
    program = export_program(model, "raw").module()
    assert model.training
    clip = torch.rand(3, 8, 64, 44)
    with torch.no_grad():
        assert off(program(clip), model.eval().backbone(clip)) < 1e-5


class _Forgetful(Backbone):
    """Depends on what no graph holds: how often it was called."""

    channels, parts = 4, 16

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.calls = 0

    def forward(self, clip: Tensor, lengths: object = None) -> Tensor:
        self.calls += 1
        strips = clip.mean((1, 3)).unflatten(1, (16, -1)).mean(-1)
        return self.calls * self.weight[:, None] * strips[:, None]


def test_a_graph_that_differs_is_never_put_in_place(tmp_path: Path) -> None:
    model = trained("smplgait")
    model.backbone = _Forgetful()
    with pytest.raises(UserError, match="was not exported"):
        export_onnx(model, tmp_path / "model.onnx", "raw")
    assert not list(tmp_path.iterdir())


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    model = trained("smplgait")
    with torch.no_grad():
        model.head.fc.weight[0, 0, 0] = float("nan")
    with pytest.raises(UserError, match="are its weights finite"):
        export_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_files_in_the_way(tmp_path: Path) -> None:
    there = tmp_path / "model.onnx"
    there.write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        export_onnx(trained("smplgait"), there)
    assert there.read_text() == "mine"
    with pytest.raises(UserError, match="cannot be written"):
        export_onnx(trained("smplgait"), tmp_path / "nowhere" / "model.onnx")


def checkpoint(run: Path, model: GaitModel, stems: tuple[str, ...]) -> Path:
    run.mkdir()
    tensors = {stem: getattr(model, stem).state_dict() for stem in stems}
    return save_checkpoint(run, 7, tensors, {"model": model_document(model.name, "walkers", 3, {})}, keep=0)


def test_the_verb_exports_what_was_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = trained("smplgait")
    run = checkpoint(tmp_path / "run", model, ("backbone",)).parents[1]
    out = tmp_path / "model.onnx"
    assert main(["export", str(run), "--out", str(out), "--features", "embedding"]) == 2
    assert "without a trained head" in capsys.readouterr().err
    assert main(["export", str(run), "--out", str(out)]) == 0
    assert capsys.readouterr() == (f"{out}\n", "")
    clip = torch.rand(2, 4, 64, 44)
    with torch.no_grad():
        assert off(run_onnx(out, clip), model.backbone(clip)) < 1e-4
    assert "walkers" in {entry.value for entry in onnx.load(out).metadata_props if entry.key == "preset"}
    both = checkpoint(tmp_path / "other", model, ("backbone", "head"))
    assert main(["export", str(both), "--out", str(tmp_path / "whole.onnx")]) == 0
    with torch.no_grad():
        assert off(run_onnx(tmp_path / "whole.onnx", clip), model(clip).embedding) < 1e-4


def test_missing_packages_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = checkpoint(tmp_path / "run", trained("smplgait"), ("backbone", "head"))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["export", str(run), "--out", str(tmp_path / "model.onnx")]) == 2
    sentence = capsys.readouterr().err
    assert "needs the package onnxruntime, which is not installed" in sentence
    assert "pip install onnx onnxscript onnxruntime" in sentence  # from a checkout there is no package gaitdiff


def test_packages_that_cannot_be_imported_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by a library that is missing, of which the error names no package."""
    (tmp_path / "onnxscript.py").write_text("raise ImportError('libprotobuf.so:\\ncannot open')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "onnxscript"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(UserError, match=r"onnxscript, which cannot be imported \(libprotobuf.so: cannot open\)"):
        export_onnx(trained("smplgait"), tmp_path / "model.onnx")


@pytest.mark.parametrize("features", ["raw", "embedding", "neck"])
def test_the_models_own_frame_size_is_exported(features: str, tmp_path: Path) -> None:
    """A model that has learned from frames 128 px high takes such frames; by a checkpoint that remembers them."""
    torch.manual_seed(0)
    model = create_model("gaitbase", "walkers", 3)
    model(torch.rand(2, 3, 128, 88))  # its neck has seen something
    tensors = {"backbone": model.backbone.state_dict(), "head": model.head.state_dict()}
    document = model_document("gaitbase", "walkers", 3, {}, height=128)
    (tmp_path / "run").mkdir()
    saved = save_checkpoint(tmp_path / "run", 7, tensors, {"model": document}, keep=0)
    file = tmp_path / "model.onnx"
    assert main(["export", str(saved), "--out", str(file), "--features", features]) == 0
    clip = torch.rand(2, 5, 128, 88)
    with torch.no_grad():
        output = model.eval()(clip)
        want = {"raw": output.feature, "embedding": output.embedding, "neck": NeckModel(model)(clip)}[features]
    assert off(run_onnx(file, clip), want) < 1e-4
    told = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    assert "(batch, frames, 128, 88)" in told["input"]
