"""The frozen autoencoder between silhouettes and latents: TAESD, or the student that ships with the package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from gaitdiff.diffusion.student import load_student
from gaitdiff.errors import UserError
from gaitdiff.utils.precision import has_fast_bfloat16
from gaitdiff.utils.ranges import check_range


class Codec(Protocol):
    """What encodes and decodes single frames: (N, 1, H, W) in 0..1 ↔ (N, 4, H/8, W/8)."""

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Frames → latents."""

    def decode_frames(self, latents: Tensor) -> Tensor:
        """Latents → frames."""


class Autoencoder(nn.Module):
    """A frozen codec over clips. It keeps no gradients, and stays in evaluation mode.

    It computes in bfloat16 where that is fast (``gaitdiff.utils.precision``), otherwise in float32, unless ``in_half``
    says which; latents and frames are always float32. ``chunk`` frames go through at a time (on CUDA eight times as
    many), which bounds the memory.
    """

    def __init__(self, codec: nn.Module, chunk: int = 64) -> None:
        super().__init__()
        self.codec = codec.eval().requires_grad_(False)
        self.chunk = chunk
        self.in_half: bool | None = None
        self.training = False

    def encode(self, clips: Tensor, check_values: bool = True) -> Tensor:
        """Clips (B, T, H, W) in 0..1 → latents (B, 4, T, H/8, W/8).

        Args:
            check_values: look whether they are in 0..1, for which an accelerator has to be waited for.

        Raises:
            UserError: another shape, sides that 8 does not divide, or values beyond [0, 1].
        """
        _check(clips, ("B", "T", "H", "W"), "clips")
        if clips.shape[2] % 8 or clips.shape[3] % 8:
            raise UserError(f"clips are {clips.shape[2]}x{clips.shape[3]}, but the autoencoder takes multiples of 8")
        if check_values:
            check_range(clips, "clips")
        latents = self._in_chunks(cast(Codec, self.codec).encode_frames, clips.flatten(0, 1)[:, None])
        return latents.unflatten(0, clips.shape[:2]).transpose(1, 2)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, 4, T, h, w) → clips (B, T, 8h, 8w) in 0..1.

        Raises:
            UserError: another shape.
        """
        _check(latents, ("B", "4", "T", "h", "w"), "latents")
        frames = latents.transpose(1, 2)
        decoded = self._in_chunks(cast(Codec, self.codec).decode_frames, frames.flatten(0, 1))
        return decoded[:, 0].unflatten(0, frames.shape[:2])

    def train(self, mode: bool = True) -> Autoencoder:
        """Does nothing: the autoencoder is frozen."""
        return self

    @torch.no_grad()
    def _in_chunks(self, function: Callable[[Tensor], Tensor], frames: Tensor) -> Tensor:
        kind = frames.device.type
        half = has_fast_bfloat16(kind) if self.in_half is None else self.in_half
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=half):
            parts = frames.float().split(self.chunk * (8 if kind == "cuda" else 1))
            return torch.cat([function(part).float() for part in parts])


def _check(values: Tensor, shape: tuple[str, ...], what: str) -> None:
    """Refuse what is no tensor of floats of a shape, in which a number stands for itself."""
    if not isinstance(values, Tensor):
        raise UserError(f"{what} must be a tensor, not {type(values).__name__}: see torch.from_numpy")
    if values.layout != torch.strided:
        raise UserError(f"{what} must be a dense tensor: see its to_dense()")
    fits = values.ndim == len(shape) and all(
        size == int(name) if name.isdigit() else size > 0 for size, name in zip(values.shape, shape, strict=True)
    )
    if not fits:
        raise UserError(f"{what} must have the shape ({', '.join(shape)}), none of them 0, not {tuple(values.shape)}")
    if not values.is_floating_point():
        kind = str(values.dtype).removeprefix("torch.")
        raise UserError(f"{what} must be floats, not {kind}: convert them, and divide silhouettes by 255")


def load_autoencoder(source: str = "student", device: torch.device | str | None = None) -> Autoencoder:
    """Load a frozen autoencoder.

    Args:
        source: "student" (ships with the package); "taesd" (the path in the environment variable GAITDIFF_TAESD, or
            else the hub's madebyollin/taesd); the path of a folder or of a safetensors file with TAESD's weights,
            under the original project's keys or diffusers'; or the id of a hub repository, "owner/name".
        device: where to put it.

    Raises:
        UserError: the weights are missing, unreachable, or not TAESD's.
    """
    if source == "student":
        return Autoencoder(load_student()).to(device)
    from gaitdiff.diffusion.taesd import load_taesd  # diffusers takes its time to import

    return Autoencoder(load_taesd(source)).to(device)
