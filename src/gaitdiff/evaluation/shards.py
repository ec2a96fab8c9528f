"""Features computed by all processes of a run: each takes a share of the sequences, the first gets all features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from gaitdiff.data.store import SequenceStore
from gaitdiff.evaluation.features import extract
from gaitdiff.evaluation.ranking import Features
from gaitdiff.utils.files import atomic_file
from gaitdiff.utils.scratch import remedy, scratch_folder
from gaitdiff.utils.shares import processes

#: Rows of features that each process sends at a time.
_ROWS_AT_ONCE = 256


def deal_round_robin(count: int, batch: int, world_size: int) -> np.ndarray:
    """Deal a list to processes, as much to each: the order of the field's reference.

    The list is filled up to a multiple of ``batch`` by repeating its beginning, cut in pieces of
    ``batch / world_size``, and these are dealt in turn.

    Args:
        count: length of the list.
        batch: a multiple of ``world_size``.

    Returns:
        (world_size, batches, batch / world_size), positions in the list.
    """
    filled = -(-count // batch) * batch
    return (np.arange(filled) % count).reshape(-1, world_size, batch // world_size).swapaxes(0, 1)


def extract_shared(network: nn.Module, store: SequenceStore, rows: np.ndarray, device: torch.device) -> Tensor | None:
    """``extract``, its work shared by all processes of a run, which must all call it; alone it is ``extract``.

    Args:
        network, rows: as for ``extract``, the same in all processes.

    Returns:
        (N, C, P) float32 on the CPU in the order of ``rows``, in the first process; None in the others, and of no rows.
    """
    if len(rows) == 0:
        return None
    if processes() == 1:
        return extract(network, store, rows, device)
    for buffer in network.buffers():  # BatchNorm's statistics are the same but for rounding
        dist.broadcast(buffer, 0)
    places = _dealt(len(rows))
    share = extract(network, store, rows[places[dist.get_rank()]], device)
    whole = torch.empty(len(rows), *share.shape[1:]) if dist.get_rank() == 0 else None
    _gather(share, whole, places, device)
    return whole


def extract_shared_to(
    out: Path,
    network: nn.Module,
    store: SequenceStore,
    rows: np.ndarray,
    device: torch.device,
    height: int | None = None,
    half: bool = False,
) -> np.ndarray | None:
    """The same into a ``.npy`` file of the first process, none of them holding features in memory.

    Raises:
        UserError: the file cannot be written.
    """
    if processes() == 1:
        return extract(network, store, rows, device, out, height=height, half=half)
    places = _dealt(len(rows))
    with scratch_folder() as folder:
        mine = rows[places[dist.get_rank()]]
        share = extract(network, store, mine, device, folder / "share.npy", height=height, half=half)
        if dist.get_rank() != 0:
            _gather(share, None, places, device)
            return None
        with atomic_file(out, remedy(out)) as draft:
            whole = np.lib.format.open_memmap(draft, "w+", np.float32, (len(rows), *share.shape[1:]))
            _gather(share, torch.from_numpy(whole), places, device)
            whole.flush()
    return np.load(out, mmap_mode="r")


def _dealt(count: int) -> np.ndarray:
    """(world_size, n) positions of each process."""
    return deal_round_robin(count, dist.get_world_size(), dist.get_world_size())[:, :, 0]


def _gather(share: Features, whole: Tensor | None, places: np.ndarray, device: torch.device) -> None:
    """Write all processes' shares to their places in ``whole``, the first process's."""
    received = torch.empty(len(places), min(_ROWS_AT_ONCE, len(share)), *share.shape[1:], device=device)
    for first in range(0, len(share), _ROWS_AT_ONCE):
        span = slice(first, first + _ROWS_AT_ONCE)
        sent = torch.as_tensor(np.array(share[span])).to(device)
        parts = list(received[:, : len(sent)])
        dist.gather(sent, None if whole is None else parts)
        if whole is not None:
            for there, some in zip(places, parts, strict=True):
                whole[torch.from_numpy(there[span])] = some.cpu()  # a repeated row falls on the one it repeats
