"""Features of walks that are in memory, and how alike two of them are."""

from __future__ import annotations

from collections.abc import Sequence as List
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from gaitdiff.data.clips import crop_sides
from gaitdiff.data.store import Sequence
from gaitdiff.errors import UserError
from gaitdiff.evaluation.features import MAX_FRAMES, run_walks
from gaitdiff.evaluation.metrics import as_features, distance_matrix
from gaitdiff.evaluation.scoring import DEFAULT_METRIC
from gaitdiff.models import Backbone, GaitModel
from gaitdiff.utils.frames import HEIGHTS, cut_width
from gaitdiff.utils.ranges import check_range

#: Silhouettes of one walk, (T, H, W).
Walk: TypeAlias = np.ndarray | Tensor | Sequence

#: Height and width of frames, whole and cut at the sides.
_SIZES = [(height, width) for height in HEIGHTS for width in (height, cut_width(height))]


def embed(model: GaitModel | Backbone, frames: Walk | List[Walk]) -> Tensor:
    """Embed walks as evaluation does: whole, in evaluation mode, their first 720 frames, without gradients.

    Args:
        model: from ``load_checkpoint``, also compiled, or wrapped for several devices; its backbone gives raw features
            in place of embeddings, as does a model of which no head was trained. Frames are moved to where it is.
        frames: a walk, or a list of walks of any lengths. A walk is a sequence of a store, ``store[0]``, or its frames,
            ``store[0].frames``: aligned silhouettes (T, 64, 64) or (T, 64, 44), or (T, 128, 128) or (T, 128, 88) for a
            model trained on these, uint8 or bool, or floats in [0, 1]; an array, or a tensor on any device.

    Returns:
        float32 on the CPU: (C, P) for a walk, (N, C, P) for a list. ``similarity`` compares them.

    Raises:
        UserError: no model, no walks, or one of another shape, height or kind of numbers; the sentence says which.
    """
    running, known = _unwrapped(model)
    one = isinstance(frames, Sequence) or (isinstance(frames, np.ndarray | Tensor) and frames.ndim == 3)
    given: Any = [frames] if one else frames
    if not isinstance(given, list | tuple | np.ndarray | Tensor) or len(given) == 0:
        raise UserError(f"give a walk, frames (T, 64, 64), or a list of at least one, not {frames!r:.80}")
    walks = [_checked(walk, "the walk" if one else f"walk {number}") for number, walk in enumerate(given)]
    network = known.backbone if isinstance(known, GaitModel) and not known.headed else running
    heights = {walk.shape[1] for walk in walks}
    if len(heights) > 1 or known.height not in (None, *heights):
        raise UserError(
            f"frames are {' and '.join(map(str, sorted(heights)))} px high, but a model takes those of the height it "
            f"was trained on{'' if known.height is None else f', {known.height} px'}: import the data with --size"
        )
    if len({walk.dtype for walk in walks}) > 1:
        walks = [walk.astype(np.float32) / 255 if walk.dtype == np.uint8 else walk for walk in walks]
    place = next(known.parameters()).device
    found = torch.as_tensor(run_walks(network, np.array([len(walk) for walk in walks]), walks.__getitem__, place))
    return found[0] if one else found


def similarity(
    a: Tensor | np.ndarray | List[Any], b: Tensor | np.ndarray | List[Any], metric: str = DEFAULT_METRIC
) -> Tensor:
    """How alike walks are: 1 - the distance by which every protocol ranks them (``distance_matrix``).

    Args:
        a: what ``embed`` gives, for a walk (C, P) or for several (n, C, P).
        b: the same for others.
        metric: ``"cosine"``: from -1 to 1, the mean over parts of the cosine similarity. ``"euclidean"``, by which
            OpenGait's checkpoints are compared: at most 1, without a lower bound. A walk is 1 like itself by both.

    Returns:
        float32 on the device of ``a``: of each of ``a`` with each of ``b``, (n, m); without n or m where a walk stands
        alone, so that ``float(similarity(a, b))`` of two walks is a number.

    Raises:
        UserError: see ``distance_matrix``.
    """
    one, other = (torch.as_tensor(as_features(given)) for given in (a, b))
    if one.ndim not in (2, 3) or other.ndim not in (2, 3):
        raise UserError(
            f"embeddings are (C, P) for a walk and (n, C, P) for several, not {tuple(one.shape)} and "
            f"{tuple(other.shape)}: see gaitdiff.embed"
        )
    rows, columns = (some if some.ndim == 3 else some[None] for some in (one, other))
    return (1 - distance_matrix(rows, columns, metric)).reshape((*one.shape[:-2], *other.shape[:-2]))


def _unwrapped(model: Any) -> tuple[nn.Module, GaitModel | Backbone]:
    """What to run, as it was compiled where it was, and the model in it."""
    while not isinstance(model, GaitModel | Backbone) and isinstance(getattr(model, "module", None), nn.Module):
        model = model.module  # of one for several devices, or of an average
    known = getattr(model, "_orig_mod", model)
    if not isinstance(known, GaitModel | Backbone):
        raise UserError(f"give a model, as gaitdiff.load_checkpoint(PATH) does, not {model!r:.80}")
    return model, known


def _checked(walk: Any, name: str) -> np.ndarray:
    """The first frames of a walk, cut at the sides: uint8, or float32 in [0, 1]."""
    frames = walk.frames if isinstance(walk, Sequence) else walk
    if isinstance(frames, Tensor):
        frames = frames.detach()[:MAX_FRAMES].cpu()
        frames = (frames.float() if frames.is_floating_point() else frames).numpy()
    if not isinstance(frames, np.ndarray):
        raise UserError(f"{name} must be an array or a tensor of frames, not {type(walk).__name__}")
    if frames.ndim != 3 or frames.shape[1:] not in _SIZES or len(frames) == 0:
        raise UserError(
            f"{name} must be aligned silhouettes (T, 64, 64), (T, 64, 44), (T, 128, 128) or (T, 128, 88), not "
            f"{frames.shape}: gaitdiff data import aligns any"
        )
    frames = frames[:MAX_FRAMES]
    if frames.dtype.kind in "fb":
        frames = frames.astype(np.float32)
        check_range(torch.from_numpy(frames), name)
    elif frames.dtype != np.uint8:
        raise UserError(f"{name} must be uint8, or floats from 0 to 1, not {frames.dtype}: convert it first")
    elif frames.max() == 1:
        raise UserError(f"{name} holds 0 and 1 as uint8, whose white is 255: multiply it by 255 first")
    return crop_sides(frames) if frames.shape[1] == frames.shape[2] else frames
