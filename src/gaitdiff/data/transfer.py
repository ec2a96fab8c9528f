"""Arrays of a batch to the device, all of them in one transfer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gaitdiff.utils.nested import leaves, replaced

#: Where an array may begin in the block that is sent, in bytes: its elements are aligned, whatever they are.
_ALIGNMENT = 16


def send(values: Any, device: torch.device) -> Any:
    """Tensors on a device in place of the arrays within nested tuples; what else is in there stays as it is.

    To an accelerator they go as one block, to a GPU from pinned memory, so that nobody waits. On the CPU a tensor
    shares the memory of its array.
    """
    return replaced(values, np.ndarray, torch.from_numpy) if device.type == "cpu" else as_block(values, device)


def as_block(values: Any, device: torch.device) -> Any:
    """The same as views of one block of bytes, which any device may hold."""
    arrays = [np.ascontiguousarray(array) for array in leaves(values, np.ndarray)]
    starts, size = [], 0
    for array in arrays:
        starts.append(size)
        size += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
    pinned = torch.empty(size, dtype=torch.uint8, pin_memory=True) if device.type == "cuda" else None
    raw = np.empty(size, np.uint8) if pinned is None else pinned.numpy()
    for array, start in zip(arrays, starts, strict=True):
        raw[start : start + array.nbytes] = array.reshape(-1).view(np.uint8)
    there = (torch.from_numpy(raw) if pinned is None else pinned).to(device, non_blocking=pinned is not None)
    places = iter(zip(arrays, starts, strict=True))

    def view(_: np.ndarray) -> Tensor:
        array, start = next(places)
        kind = torch.from_numpy(array[:0]).dtype
        return there[start : start + array.nbytes].view(kind).view(array.shape)

    return replaced(values, np.ndarray, view)
