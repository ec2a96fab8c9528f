"""Values that are silhouettes: in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor

from gaitdiff.errors import UserError

#: By how much rounding may take a value beyond [0, 1].
_SLACK = 1e-3


def check_range(values: Tensor, what: str) -> None:
    """Refuse values that are not in [0, 1], NaN among them.

    Raises:
        UserError: names the range and the remedy.
    """
    if torch.compiler.is_compiling() or values.device.type == "meta" or values.numel() == 0:
        return
    low, high = (float(value) for value in values.detach().aminmax())
    if low >= -_SLACK and high <= 1 + _SLACK:
        return
    remedy = "divide by 255" if 1 < high <= 255 and low >= 0 else "scale them"
    raise UserError(f"the values of {what} go from {low:g} to {high:g}, but silhouettes are in [0, 1]: {remedy} first")
