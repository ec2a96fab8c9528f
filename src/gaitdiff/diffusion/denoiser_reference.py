"""Exchange of denoiser weights with checkpoints under the reference implementation's names.

The reference is the ``Unet3D`` of the package ``video-diffusion-pytorch``. Its tensors are ours under other
names and with extra axes of length one; only the rotary frequencies, one tensor here, stand in every temporal
attention there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from gaitdiff.diffusion.attention import TemporalAttention
from gaitdiff.diffusion.denoiser import Denoiser
from gaitdiff.errors import UserError

PLAIN = {"weight": "weight", "bias": "bias"}
BLOCK = {
    "modulation.weight": "mlp.1.weight",
    "modulation.bias": "mlp.1.bias",
    "conv1.weight": "block1.proj.weight",
    "conv1.bias": "block1.proj.bias",
    "norm1.gamma": "block1.norm.gamma",
    "conv2.weight": "block2.proj.weight",
    "conv2.bias": "block2.proj.bias",
    "norm2.gamma": "block2.norm.gamma",
    "shortcut.weight": "res_conv.weight",
    "shortcut.bias": "res_conv.bias",
}
ATTENTION = {
    "norm.gamma": "fn.norm.gamma",
    "qkv.weight": "fn.fn.fn.to_qkv.weight",
    "out.weight": "fn.fn.fn.to_out.weight",
    "frequencies": "fn.fn.fn.rotary_emb.freqs",
}
LINEAR_ATTENTION = {
    "norm.gamma": "fn.norm.gamma",
    "qkv.weight": "fn.fn.to_qkv.weight",
    "out.weight": "fn.fn.to_out.weight",
    "out.bias": "fn.fn.to_out.bias",
}
#: Where a module stands here, where it stands there, and what its parameters are called there.
PLACES = (
    (r"stem", "init_conv", PLAIN),
    (r"stem_attention", "init_temporal_attn", ATTENTION),
    (r"time_mlp\.0", "time_mlp.1", PLAIN),
    (r"time_mlp\.2", "time_mlp.3", PLAIN),
    (r"(downs|ups)\.(\d+)\.block1", r"\1.\2.0", BLOCK),
    (r"(downs|ups)\.(\d+)\.block2", r"\1.\2.1", BLOCK),
    (r"(downs|ups)\.(\d+)\.spatial", r"\1.\2.2", LINEAR_ATTENTION),
    (r"(downs|ups)\.(\d+)\.temporal", r"\1.\2.3", ATTENTION),
    (r"(downs|ups)\.(\d+)\.resample", r"\1.\2.4", PLAIN),
    (r"middle_in", "mid_block1", BLOCK),
    (r"middle_spatial", "mid_spatial_attn", ATTENTION),
    (r"middle_temporal", "mid_temporal_attn", ATTENTION),
    (r"middle_out", "mid_block2", BLOCK),
    (r"final_block", "final_conv.0", BLOCK),
    (r"final", "final_conv.1", PLAIN),
    (r"position_bias", "time_rel_pos_bias", {"table": "relative_attention_bias.weight"}),
)


def load_reference_state_dict(denoiser: Denoiser, state: Mapping[str, Tensor]) -> None:
    """Copy a checkpoint under the reference's keys into ``denoiser``.

    Raises UserError naming the first key that is missing, left over, or of another shape; nothing is changed then.
    """
    views = _reference_views(denoiser)
    for key, view in views.items():
        if key not in state:
            raise UserError(
                f"the checkpoint lacks {key!r}: either it is not of the reference denoiser, or this denoiser was "
                "built with other dim_mults"
            )
        if state[key].shape != view.shape:
            raise UserError(
                f"{key!r} is {tuple(state[key].shape)} in the checkpoint and {tuple(view.shape)} in this denoiser; "
                "build it with the checkpoint's dim, cond_dim, dim_mults, channels, heads and head_dim"
            )
    for key in state:
        if key not in views:
            raise UserError(
                f"the checkpoint's {key!r} has no place in this denoiser; build it with the checkpoint's dim_mults"
            )
    with torch.no_grad():
        for key, view in views.items():
            view.copy_(state[key])


def reference_state_dict(denoiser: Denoiser) -> dict[str, Tensor]:
    """Copies of the denoiser's weights under the reference's keys and shapes."""
    return {key: view.clone() for key, view in _reference_views(denoiser).items()}


def _reference_views(denoiser: Denoiser) -> dict[str, Tensor]:
    """Views of the denoiser's weights in the reference's shapes, by the reference's keys."""
    own = denoiser.state_dict()
    views = {"null_cond_emb": own.pop("null_condition")[None]}  # (1, cond_dim)
    frequencies = own.pop("rotary_frequencies")
    for name, module in denoiser.named_modules():
        if isinstance(module, TemporalAttention):
            own[f"{name}.frequencies"] = frequencies
    for name, tensor in own.items():
        key = reference_key(name)
        views[key] = _in_reference_shape(key, tensor)
    return views


def reference_key(name: str) -> str:
    """The reference's key of our parameter ``name``."""
    for place, there, parts in PLACES:
        match = re.fullmatch(rf"{place}\.(.+)", name)
        if match and match[match.lastindex or 0] in parts:
            return f"{match.expand(there)}.{parts[match[match.lastindex or 0]]}"
    raise KeyError(name)


def _in_reference_shape(key: str, tensor: Tensor) -> Tensor:
    """View a tensor with the axes of length one that the reference has: its convolutions and norms are 3-D."""
    if key.endswith(".fn.norm.gamma"):
        return tensor.view(1, -1, 1, 1, 1)
    if key.endswith(".norm.gamma"):
        return tensor.view(-1, 1, 1, 1)
    if key.endswith(("res_conv.weight", "final_conv.1.weight")):
        return tensor[:, :, None, None, None]  # 1×1×1 convolutions
    if re.search(r"\.2\.fn\.fn\.to_(qkv|out)\.weight$", key):
        return tensor[:, :, None, None]  # 1×1 convolutions
    if tensor.ndim == 4:
        return tensor[:, :, None]  # (O, I, k, k) → (O, I, 1, k, k)
    return tensor
