"""Devices by their names."""

from __future__ import annotations

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


def _found_cuda() -> str:
    count = torch.cuda.device_count()
    return f"CUDA devices 0 to {count - 1} alone" if count else "no CUDA device"
