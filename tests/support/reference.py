"""The rule that fills weights for golden numbers, and where the numbers lie."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: All recorded numbers, and those of the field's reference.
RECORDED = Path(__file__).parents[1] / "golden"
GOLDEN = RECORDED / "reference"


def golden_arrays(name: str) -> dict[str, np.ndarray]:
    """Arrays of ``golden/reference/<name>.npz``."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


def golden_document(name: str) -> Any:
    """``golden/reference/<name>.json``."""
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def standard(key: str, shape: list[int], salt: str) -> np.ndarray:
    """Numbers of mean 0 and variance 1 that follow from a key alone."""
    generator = np.random.RandomState(zlib.crc32(f"{salt}/{key}".encode()))
    return (2 * generator.random_sample(int(np.prod(shape))).reshape(shape) - 1) * np.sqrt(3)


def filled(key: str, shape: list[int], salt: str) -> Tensor:
    """The weights that every implementation fills in for a key before numbers are compared."""
    z, leaf = standard(key, shape, salt), key.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return torch.tensor(0)
    if key == "HPP.p":
        return torch.full((1,), 6.5)
    if leaf == "running_var":
        value = 1 + (z / np.sqrt(3) + 1)
    elif leaf == "running_mean" or (leaf == "bias" and len(shape) == 1):
        value = 0.1 * z
    elif leaf == "fc_bin":
        value = z * np.sqrt(1 / shape[1])
    elif len(shape) == 1:
        value = 1 + 0.1 * z
    else:
        value = z * np.sqrt(2 / np.prod(shape[1:]))
    return torch.from_numpy(value.astype(np.float32))


#: Arguments of ``evaluate``.
Set = dict[str, Any]


def golden_set(name: str) -> tuple[Set, Any]:
    """A recorded test set, as arguments of ``evaluate``, and what the reference made of it."""
    folder = GOLDEN / "evaluation" / name
    words = json.loads((folder / "meta.json").read_text())
    with np.load(folder / "features.npz") as file:
        walks = {"features": file["features"], **{key: words[key] for key in ("labels", "types", "views")}}
    expected = folder / "expected.json"
    return walks, json.loads(expected.read_text()) if expected.exists() else None
