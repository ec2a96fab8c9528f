"""Gait models for other runtimes: ``torch.export`` programs and ONNX files, for any number of clips and frames."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as fx_config

from gaitdiff.errors import UserError
from gaitdiff.models.base import GaitModel, NeckModel
from gaitdiff.models.registry import model_entry
from gaitdiff.training.checkpoint import load_checkpoint, pick_features, read_checkpoint_info
from gaitdiff.utils.files import atomic_file, require_new
from gaitdiff.utils.frames import cut_width
from gaitdiff.utils.modes import evaluating
from gaitdiff.version import __version__

#: What an exported model gives: the backbone's feature, the head's embedding, or the feature behind its BN neck.
Features = Literal["raw", "embedding", "neck"]

#: The lowest version of ONNX's operators that newer exporters write; every runtime since 2023 reads it.
_OPSET = 18
#: What writes and checks it.
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
#: Largest difference between ONNX and PyTorch, as a share of the root mean square of what PyTorch gives.
_TOLERANCE = 1e-4

#: What the features of a checkpoint are called, and an exported model's.
_KINDS: dict[str, Features] = {"raw features": "raw", "embeddings": "embedding", "neck features": "neck"}


class _Exported(nn.Module):
    """One tensor in, one tensor out."""

    def __init__(self, model: GaitModel, features: Features) -> None:
        super().__init__()
        self.model, self.features = model, features
        self.neck = NeckModel(model) if features == "neck" else None

    def forward(self, clip: Tensor) -> Tensor:
        """(B, T, 64, 44) → (B, C, P)."""
        if self.neck is not None:
            return cast(Tensor, self.neck(clip))
        if self.features == "raw":
            return cast(Tensor, self.model.backbone(clip))
        return cast(Tensor, self.model(clip).embedding)


def minimum_frames(model: GaitModel) -> int:
    """The fewest frames of a clip that an exported model takes: 3 for GaitGL, 1 for all others.

    GaitGL repeats shorter clips in PyTorch. An exported graph has no such branch: repeat the frames before.
    """
    return model_entry(model.name).min_frames


def frame_size(model: GaitModel) -> tuple[int, int]:
    """Height and width of the frames that a model was trained on; (64, 44) where that is not known."""
    height = model.height or 64
    return height, cut_width(height)


def export_program(model: GaitModel, features: Features = "embedding") -> ExportedProgram:
    """Capture a model, in evaluation mode, as a ``torch.export`` program.

    Args:
        features: ``"embedding"``, what the head gives, ``"raw"``, what the backbone gives, or ``"neck"``, what lies
            behind the head's BN neck.

    Returns:
        A program from one float32 clip (B, T, 64, 44), or (B, T, 128, 88) for a model trained on that, with values in
        [0, 1] to (B, C, P), for every B >= 1 and every T >= ``minimum_frames(model)``. It shares the model's weights.

    Raises:
        UserError: embeddings asked of a model without a trained head, or a neck of one that has none.
    """
    example = torch.zeros(2, 7, *frame_size(model), device=next(model.parameters()).device)
    # Three frames of GaitGL become one within, which tracing would take for a special case to leave out.
    any_length = fx_config.patch(backed_size_oblivious=minimum_frames(model) > 1)  # type: ignore[attr-defined]
    with evaluating(model), torch.no_grad(), any_length:
        return torch.export.export(_Exported(model, features), (example,), dynamic_shapes=_dynamic(model), strict=False)


def export_onnx(
    model: GaitModel, path: str | Path, features: Features = "embedding", metadata: Mapping[str, str] | None = None
) -> None:
    """Write a model as one ONNX file, weights and all, once onnxruntime has given the same numbers as PyTorch.

    Input ``clip``, float32 (B, T, 64, 44) or (B, T, 128, 88), as the model was trained, in [0, 1]; output ``feature``,
    ``embedding`` or ``neck``, float32 (B, C, P). B and T
    are free, T from ``minimum_frames(model)`` on. The file's metadata names the model, its settings and the layout.

    Args:
        features: see ``export_program``.
        metadata: more of it.

    Raises:
        UserError: a package is missing, the file exists or cannot be written, or onnxruntime's numbers differ from
            PyTorch's by more than 1e-4 of their root mean square.
    """
    _require_packages()
    path = Path(path)
    require_new(path)
    output = "feature" if features == "raw" else features
    program = export_program(model, features)
    with _quiet():
        found = torch.onnx.export(
            program,
            (),
            input_names=["clip"],
            output_names=[output],
            dynamic_shapes=_dynamic(model),
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
    assert found is not None
    found.model.metadata_props.update({**_metadata(model, output), **(metadata or {})})
    with atomic_file(path) as draft:
        found.save(str(draft), external_data=False)
        _check(model, features, draft)


def export_checkpoint(checkpoint: Path, out: Path, features: str = "auto") -> Path:
    """Write a checkpoint as one ONNX file, see ``export_onnx``.

    Args:
        features: see ``gaitdiff.training.checkpoint.pick_features``.

    Raises:
        UserError: no checkpoint, embeddings asked of one without a trained head, or see ``export_onnx``.
    """
    if out.suffix.lower() != ".onnx":
        raise UserError(f"--out is {out}, but what is written is ONNX: call it {out.stem or 'model'}.onnx")
    info = read_checkpoint_info(checkpoint)
    info.require_features(features)
    model = load_checkpoint(info.folder)
    export_onnx(model, out, _KINDS[pick_features(model, features)[1]], {"preset": info.preset})
    return out


def _dynamic(model: GaitModel) -> dict[str, dict[int, Any]]:
    return {"clip": {0: Dim("batch", min=1), 1: Dim("frames", min=minimum_frames(model))}}


def _metadata(model: GaitModel, output: str) -> dict[str, str]:
    height, width = frame_size(model)
    return {
        "gaitdiff": __version__,
        "model": model.name,
        "config": json.dumps(asdict(model.config)),
        "input": f"clip: float32 (batch, frames, {height}, {width}), aligned silhouettes with values in [0, 1]",
        "output": f"{output}: float32 (batch, channels, parts)",
        "distance": model.metric,
        "minimum_frames": str(minimum_frames(model)),
    }


def _check(model: GaitModel, features: Features, path: Path) -> None:
    """Compare onnxruntime with PyTorch on clips of two shapes, neither of them the traced one."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    device = next(model.parameters()).device
    for batch, frames in ((1, minimum_frames(model)), (3, 10)):
        clip = torch.rand(batch, frames, *frame_size(model), generator=generator)
        with evaluating(model), torch.no_grad():
            want = _Exported(model, features)(clip.to(device)).cpu()
        got = torch.from_numpy(session.run(None, {"clip": clip.numpy()})[0])
        if got.shape != want.shape:
            raise UserError(
                f"{model.name} was not exported: onnxruntime gives {tuple(got.shape)} for clips {tuple(clip.shape)} "
                f"where PyTorch gives {tuple(want.shape)}; try other versions of torch, onnx and onnxruntime"
            )
        error, size = float((got - want).abs().max()), float(want.square().mean().sqrt())
        if not error <= _TOLERANCE * size:  # nor is NaN
            raise UserError(
                f"{model.name} was not exported: for clips {tuple(clip.shape)} onnxruntime is off by {error:.1e} where "
                f"PyTorch gives numbers around {size:.1e}; are its weights finite?"
            )


def _require_packages() -> None:
    for name in _PACKAGES:
        _require_package(name)


def _require_package(name: str) -> None:
    try:
        import_module(name)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == name
        reason = "is not installed" if missing else f"cannot be imported ({' '.join(str(error).split())})"
        raise UserError(
            f"writing ONNX needs the package {name}, which {reason}: pip install {' '.join(_PACKAGES)}"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages that gait models do not use."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
