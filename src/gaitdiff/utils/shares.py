"""The samples of a whole batch, of which each process of a run has its share: the same numbers as in one process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from gaitdiff.errors import UserError

#: How long processes wait until all have come, and how long then for one of them that has work to do alone.
MEETING, _PATIENCE = timedelta(minutes=5), timedelta(hours=12)

_alone: ContextVar[bool] = ContextVar("alone", default=False)


def be_patient(group: dist.ProcessGroup | None = None) -> None:
    """Let processes that have met, all of them or those of a group, wait long for one that has work to do alone."""
    dist.distributed_c10d._set_pg_timeout(_PATIENCE, group)


def is_joined() -> bool:
    """Whether this process belongs to a group of them; a torch built without ``torch.distributed`` has none."""
    return dist.is_available() and dist.is_initialized()


def processes() -> int:
    """How many processes share a batch; 1 within ``alone``."""
    return dist.get_world_size() if is_joined() and not _alone.get() else 1


@contextmanager
def alone() -> Iterator[None]:
    """Within the block, whole batches are this process's, and nothing waits for the others."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def share(count: int, rank: int | None, world_size: int) -> slice:
    """Which of ``count`` samples a process has; None has all."""
    if rank is None:
        return slice(None)
    each = count // world_size
    return slice(rank * each, (rank + 1) * each)


def require_shares(count: int, setting: str, world_size: int) -> None:
    """Refuse a batch that processes cannot share evenly.

    Raises:
        UserError: names the setting.
    """
    if count % world_size:
        raise UserError(
            f"a step has {count} sequences ({setting}), which {world_size} processes cannot share evenly: choose a "
            f"multiple of {world_size}, or another number of processes"
        )


def gathered(values: Tensor) -> Tensor:
    """A whole batch of which ``values`` (n, …) are this process's share, the first process's first: (N, …).

    All processes must ask. The gradient that reaches a share is the sum of what all processes' losses want of it, so
    that gradients averaged over processes are those of the mean of their losses. Half precision becomes single.
    """
    if processes() == 1:
        return values
    wide = values.to(torch.promote_types(values.dtype, torch.float32)) if values.is_floating_point() else values
    return _Gathered.apply(wide)


def own(whole: Tensor) -> Tensor:
    """This process's share of a whole batch (N, …)."""
    return whole if processes() == 1 else whole[share(len(whole), dist.get_rank(), processes())]


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        values = values.contiguous()
        ctx.place = share(len(values) * processes(), dist.get_rank(), processes())
        parts = [torch.empty_like(values) for _ in range(processes())]
        dist.all_gather(parts, values)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        return grad[ctx.place]
