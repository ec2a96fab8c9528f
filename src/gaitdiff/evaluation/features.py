"""Features of stored sequences: from a model, or the gait-energy image that any method must beat."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import overload

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from gaitdiff.data.batches import check_frames
from gaitdiff.data.clips import crop_sides
from gaitdiff.data.store import SequenceStore
from gaitdiff.errors import UserError
from gaitdiff.evaluation.ranking import Features
from gaitdiff.models import Backbone, GaitModel
from gaitdiff.utils.devices import memory_told
from gaitdiff.utils.files import atomic_file
from gaitdiff.utils.modes import evaluating
from gaitdiff.utils.progress import ProgressHandle, progress_bar
from gaitdiff.utils.scratch import remedy

#: What the scores of ``gait_energy_images`` go by, which any method must beat.
BASELINE = "gait energy image"

#: Frames that go through the network at a time.
_FRAMES_A_BATCH = 512

#: Frames of a sequence that count, its first ones; so published numbers are computed.
MAX_FRAMES = 720


@overload
def extract(
    network: nn.Module,
    store: SequenceStore,
    rows: np.ndarray,
    device: torch.device,
    *,
    max_frames: int = ...,
    height: int | None = ...,
    half: bool = ...,
) -> Tensor: ...


@overload
def extract(
    network: nn.Module,
    store: SequenceStore,
    rows: np.ndarray,
    device: torch.device,
    out: str | Path,
    *,
    max_frames: int = ...,
    height: int | None = ...,
    half: bool = ...,
) -> np.ndarray: ...


def extract(
    network: nn.Module,
    store: SequenceStore,
    rows: np.ndarray,
    device: torch.device,
    out: str | Path | None = None,
    *,
    max_frames: int = MAX_FRAMES,
    height: int | None = None,
    half: bool = False,
) -> Features:
    """Run whole sequences through a network, about five hundred frames at a time.

    Sequences of any lengths share a batch where the network packs them without their frames touching each other
    (``Backbone.packs``); for others each batch holds sequences of one length. What comes out is the same.

    Args:
        network: a gait model, for its embeddings, or a backbone, for its raw features; it computes in evaluation mode.
        rows: row numbers in the store.
        out: write the features there as they come, a ``.npy`` file, and hold none in memory.
        max_frames: of longer sequences only so many first frames count.
        height: make the frames so many pixels high first, by area where they shrink; None: as they are.
        half: compute in bfloat16, by autocast: the features come out within about 1% of their length.

    Returns:
        (N, C, P) float32 in the order of ``rows``: a tensor on the CPU, or the file as a memory-mapped array.

    Raises:
        UserError: the file cannot be written, there are no rows, or the frames are none that gait models take.
    """
    if isinstance(network, GaitModel | Backbone):
        check_frames(store, height)
    if height is None:
        check_height(getattr(network, "height", None), store, "this model")
    lengths = _lengths(store, rows, max_frames)

    def read(position: int) -> np.ndarray:
        frames = _first(store, int(rows[position]), int(lengths[position]))
        return frames if height in (None, store.height) else _resized(frames, height)

    return run_walks(network, lengths, read, device, out, half)


def run_walks(
    network: nn.Module,
    lengths: np.ndarray,
    read: Callable[[int], np.ndarray],
    device: torch.device,
    out: str | Path | None = None,
    half: bool = False,
) -> Features:
    """Run walks from anywhere through a network, as ``extract`` runs those of a store.

    Args:
        lengths: frames of each walk, (N,).
        read: gives a walk by its position: (T, H, W) as the network takes frames, uint8, or float32 in [0, 1].
    """
    packs = bool(getattr(network.backbone if isinstance(network, GaitModel) else network, "packs", False))
    batches = _packed_batches(lengths) if packs else _equal_batches(lengths)
    cast = torch.autocast(torch.device(device).type, torch.bfloat16) if half else nullcontext()
    elsewhere = "" if torch.device(device).type == "cpu" else ", or on the CPU"
    with evaluating(network), cast, memory_told("computing features", f"compute of shorter or fewer walks{elsewhere}"):
        size = _size(lengths) if packs else None
        features = (_features(network, [read(int(i)) for i in some], size, device) for some in batches)
        return _gathered(features, batches, out)


@overload
def gait_energy_images(store: SequenceStore, rows: np.ndarray) -> Tensor: ...


@overload
def gait_energy_images(store: SequenceStore, rows: np.ndarray, out: str | Path) -> np.ndarray: ...


def gait_energy_images(store: SequenceStore, rows: np.ndarray, out: str | Path | None = None) -> Features:
    """Mean frame of each sequence as a feature: (N, H·W, 1) of the cut frames, values in [0, 1].

    Into a file ``out`` as ``extract`` writes it.

    Source: Han & Bhanu 2006, "Individual Recognition Using Gait Energy Image".
    """
    rows = np.asarray(rows)
    lengths = _lengths(store, rows, MAX_FRAMES)
    batches = _packed_batches(lengths)
    return _gathered((_energy_images(store, rows[batch], lengths[batch]) for batch in batches), batches, out)


def check_height(height: int | None, store: SequenceStore, model: str, or_else: str = "") -> None:
    """Refuse frames of another height than a model was trained on, which it would take without a word.

    Args:
        height: of the model's frames, in pixels; None: not known, and nothing is refused.
        model: what to call it.
        or_else: another remedy.

    Raises:
        UserError: names both heights and the remedies.
    """
    if height is not None and height != store.height:
        raise UserError(
            f"{model} was trained on frames {height} px high, but those of {store.path} are {store.height} px: import "
            f"the data with --size {height}{or_else}"
        )


def _features(network: nn.Module, walks: list[np.ndarray], size: int | None, device: torch.device) -> Tensor:
    """(k, C, P) float32 on the CPU; empties the list.

    Args:
        walks: of one length, or with ``size`` of any, to be packed end to end. What is nearly so many frames is filled
            up: where every batch has one shape, freed memory fits the next one, and does not grow in pieces.
    """
    lengths, count = [len(walk) for walk in walks], len(walks)
    if size is not None and 0 < (missing := size - sum(lengths)) < size // 8:
        walks.append(np.zeros((missing, *walks[0].shape[1:]), walks[0].dtype))
        lengths.append(missing)
    clips = torch.from_numpy(np.stack(walks) if size is None else np.concatenate(walks)[None]).to(device)
    walks.clear()
    with torch.no_grad():
        inputs = clips.float().div_(255) if clips.dtype == torch.uint8 else clips
        if not torch.is_autocast_enabled(inputs.device.type):
            inputs = inputs.to(next((one.dtype for one in network.parameters()), inputs.dtype))
        output = network(inputs, None if size is None else lengths)
    given = output if isinstance(output, Tensor) else output.embedding
    if len(given) != len(lengths):
        what = f"a network gave {len(given)} features for {count} walks"
        raise UserError(f"{what}: have it use the lengths of packed ones, or set packs to False")
    return given[:count].float().cpu()


def _energy_images(store: SequenceStore, rows: np.ndarray, lengths: np.ndarray) -> Tensor:
    frames = (_first(store, int(row), int(length)) for row, length in zip(rows, lengths, strict=True))
    return torch.from_numpy(np.stack([some.mean(0, dtype=np.float32) for some in frames])).flatten(1).unsqueeze(2) / 255


def _gathered(features: Iterable[Tensor], batches: list[np.ndarray], out: str | Path | None) -> Features:
    """Features of batches as one, each at its batch's places."""
    count = sum(map(len, batches))
    if count == 0:
        raise UserError("there are no sequences to compute features of: give at least one row")
    with progress_bar("features", total=count) as bar:
        if out is not None:
            return _gathered_on_disk(features, batches, Path(out), bar)
        whole = torch.empty(0)
        for batch, some in zip(batches, features, strict=True):
            if len(whole) == 0:
                whole = torch.empty((count, *some.shape[1:]))
            whole[torch.from_numpy(batch)] = some
            bar.advance(len(batch))
    return whole


def _gathered_on_disk(
    features: Iterable[Tensor], batches: list[np.ndarray], out: Path, bar: ProgressHandle
) -> np.ndarray:
    """The same in a ``.npy`` file, which appears once it is whole."""
    count, begin = sum(map(len, batches)), 0
    with atomic_file(out, remedy(out)) as draft, draft.open("wb") as file:
        for batch, some in zip(batches, features, strict=True):
            if begin == 0:
                shape = (count, *some.shape[1:])
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                begin = file.tell()
            for place, row in zip(batch.tolist(), some.numpy(), strict=True):
                file.seek(begin + place * row.nbytes)
                file.write(np.ascontiguousarray(row, "<f4").data)
            bar.advance(len(batch))
    return np.load(out, mmap_mode="r")


def _lengths(store: SequenceStore, rows: np.ndarray, max_frames: int) -> np.ndarray:
    return np.array([min(store.rows[int(row)].frames, max_frames) for row in rows], int)


def _packed_batches(lengths: np.ndarray) -> list[np.ndarray]:
    """Positions of sequences in batches, most of them full: the longest go first, each where it leaves least room."""
    size = _size(lengths)
    batches: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # that batches have left, ascending, and which they are
    for position in np.argsort(-lengths, kind="stable").tolist():
        frames = int(lengths[position])
        place = bisect_left(rooms, (frames, 0))
        if place == len(rooms):
            batches.append([])
            rooms.append((size, len(batches) - 1))
        room, number = rooms.pop(place)
        batches[number].append(position)
        if room > frames:
            insort(rooms, (room - frames, number))
    return [np.sort(batch) for batch in batches]


def _size(lengths: np.ndarray) -> int:
    """Frames of a full batch."""
    return int(max(_FRAMES_A_BATCH, lengths.max(initial=0)))


def _equal_batches(lengths: np.ndarray) -> list[np.ndarray]:
    """Positions of sequences of equal length, the shortest first."""
    batches = []
    for length in np.unique(lengths):
        group = np.flatnonzero(lengths == length)
        size = max(1, _FRAMES_A_BATCH // int(length))
        batches += [group[first : first + size] for first in range(0, len(group), size)]
    return batches


def _first(store: SequenceStore, row: int, count: int) -> np.ndarray:
    """The first frames of a sequence, cut at the sides."""
    frames = store.clip(row, np.arange(count))
    return crop_sides(frames) if store.width == store.height else frames


def _resized(frames: np.ndarray, height: int) -> np.ndarray:
    """Frames (T, H, W) at another height, their shape kept."""
    size = (frames.shape[2] * height // frames.shape[1], height)
    how = cv2.INTER_AREA if height < frames.shape[1] else cv2.INTER_LINEAR
    return np.stack([cv2.resize(frame, size, interpolation=how) for frame in frames])
