"""A denoiser that starts from what another one has learned, without the condition it was guided by.

A denoiser from nothing first has to learn what silhouettes look like, and hears hardly anything of a backbone until
then. One that knows it already listens from the first step. In PDAE (Zhang et al. 2022, arXiv 2212.12990) it is frozen
then; here it goes on learning, unless ``freeze`` is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources

import torch
import torch.nn.functional as F
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from gaitdiff.errors import UserError

_ASSETS = {"walkers": "denoiser_walkers.safetensors"}
_NULL = "null_condition"
#: The noise schedule that they have learned.
SCHEDULE_OF_STARTS = "inverted-cosine"


def list_starts() -> list[str]:
    """Names of the denoisers that ship."""
    return list(_ASSETS)


def shipped_start(name: str) -> dict[str, Tensor]:
    """Weights of a denoiser that ships, without a condition; see ``without_condition``."""
    return load_safetensors((resources.files("gaitdiff.diffusion") / "assets" / _ASSETS[name]).read_bytes())


def without_condition(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a denoiser as it is where the null vector takes the condition's place.

    Args:
        tensors: a denoiser's state, see ``Denoiser``.

    Returns:
        The same without the null vector, whose part in each block is in the bias, and without the weights that a
        condition meets.
    """
    if _NULL not in tensors:
        return dict(tensors)
    null = F.silu(tensors[_NULL])
    found = {name: value for name, value in tensors.items() if name != _NULL}
    for name in [name for name in found if name.endswith("modulation.weight")]:
        weight, bias = found[name], name.removesuffix("weight") + "bias"
        found[bias] = found[bias] + weight[:, -len(null) :] @ null
        found[name] = weight[:, : -len(null)].contiguous()
    return found


def start_from(denoiser: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Give a denoiser the weights of another one, which a condition of any width then does not change at first.

    Args:
        denoiser: a ``Denoiser``.
        tensors: of ``without_condition``.
        source: what to call them.

    Raises:
        UserError: they are those of a denoiser of another size.
    """
    own = denoiser.state_dict()
    unlike = UserError(f"{source} holds a denoiser of another size than diffusion.denoiser names")
    if own.keys() - tensors.keys() != {_NULL} or tensors.keys() - own.keys():
        raise unlike
    started = {_NULL: own[_NULL]}
    for name, value in tensors.items():
        place = torch.zeros_like(own[name])
        if name.endswith("modulation.weight") and value.shape[1] < place.shape[1]:
            place[:, : value.shape[1]] = value
        elif value.shape == place.shape:
            place = value
        else:
            raise unlike
        started[name] = place
    denoiser.load_state_dict(started)


def freeze(denoiser: nn.Module) -> None:
    """Leave to train of a ``Denoiser`` only where the condition comes in: its null vector and every modulation."""
    for name, parameter in denoiser.named_parameters():
        if name != _NULL and ".modulation." not in name:
            parameter.requires_grad_(False)
