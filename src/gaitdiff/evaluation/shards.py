"""Features computed by all processes of a run: each takes a share of the sequences, the first gets all features."""

from __future__ import annotations

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from gaitdiff.data.store import SequenceStore
from gaitdiff.evaluation.features import extract

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

    All compute with the first one's BatchNorm statistics: each process sees batches of its own while it trains.

    Args:
        network, rows: as for ``extract``, the same in all processes.

    Returns:
        (N, C, P) float32 on the CPU in the order of ``rows``, in the first process; None in the others, and of no rows.
    """
    if len(rows) == 0:
        return None
    if not (dist.is_available() and dist.is_initialized()):
        return extract(network, store, rows, device)
    for buffer in network.buffers():
        dist.broadcast(buffer, 0)
    world_size, rank = dist.get_world_size(), dist.get_rank()
    places = deal_round_robin(len(rows), world_size, world_size)[:, :, 0]
    share = extract(network, store, rows[places[rank]], device)
    whole = torch.empty(len(rows), *share.shape[1:]) if rank == 0 else None
    received = torch.empty(world_size, min(_ROWS_AT_ONCE, len(share)), *share.shape[1:], device=device)
    for first in range(0, len(share), _ROWS_AT_ONCE):
        span = slice(first, first + _ROWS_AT_ONCE)
        sent = share[span].to(device)
        parts = list(received[:, : len(sent)])
        dist.gather(sent, None if whole is None else parts)
        if whole is not None:
            for there, some in zip(places, parts, strict=True):
                whole[torch.from_numpy(there[span])] = some.cpu()  # a repeated row falls on the one it repeats
    return whole
