"""Devices by their names, and their memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from gaitdiff.errors import UserError


def require_device(device: str | torch.device) -> torch.device:
    """The device of this name.

    Raises:
        UserError: torch knows none, or it is not here.
    """
    try:
        place = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise UserError(f"there is no device {device!r}: choose cpu, cuda or mps") from error
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise UserError(f"the device is {place}, but torch finds {_found_cuda()}: choose cpu")
    if place.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("the device is mps, but torch finds none: choose cpu")
    return place


@contextmanager
def memory_told(what: str, remedy: str) -> Iterator[None]:
    """Make one sentence of running out of memory.

    Args:
        what: the block does, and what to do about it.

    Raises:
        UserError: it takes more memory than there is.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # CUDA's are RuntimeErrors, torch on a CPU has no kind of its own
        memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if memory or any(words in str(error) for words in ("t allocate memory", "out of memory")):
            raise UserError(f"{what} takes more memory than there is: {remedy}") from error
        raise


def _found_cuda() -> str:
    count = torch.cuda.device_count()
    return f"CUDA devices 0 to {count - 1} alone" if count else "no CUDA device"
