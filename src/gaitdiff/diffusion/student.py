"""The student: a small encoder and decoder of our own between silhouettes and TAESD's latent space.

It learned from TAESD on walkers (``python -m tools.distil_student``), so that a latent clip costs a fraction of
TAESD's time on a CPU, and nothing has to be downloaded. Its latents are TAESD's own: either can decode what the other
encoded.
"""

from __future__ import annotations

from importlib import resources

import torch.nn.functional as F
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn


class Student(nn.Module):
    """Silhouettes (N, 1, 64, 64) in 0..1 to latents (N, 4, 8, 8) and back; any height and width divisible by 8."""

    def __init__(self, encoder_width: int = 64, encoder_blocks: int = 2, decoder_width: int = 64) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(4),  # (N, 16, 16, 16)
            nn.Conv2d(16, encoder_width // 2, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(encoder_width // 2, encoder_width, 4, stride=2, padding=1),  # (N, C, 8, 8)
            *(ResidualBlock(encoder_width) for _ in range(encoder_blocks)),
            nn.ReLU(),
            nn.Conv2d(encoder_width, 4, 3, padding=1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(4, decoder_width, 3, padding=1),
            ResidualBlock(decoder_width),
            ResidualBlock(decoder_width),
            nn.Conv2d(decoder_width, 4 * decoder_width, 1),
            nn.PixelShuffle(2),  # (N, C, 16, 16)
            ResidualBlock(decoder_width),
            nn.ReLU(),
            nn.Conv2d(decoder_width, 16, 3, padding=1),
            nn.PixelShuffle(4),  # (N, 1, 64, 64)
        )

    def encode_frames(self, frames: Tensor) -> Tensor:
        """(N, 1, H, W) in 0..1 → (N, 4, H/8, W/8)."""
        return self.encoder(frames)

    def decode_frames(self, latents: Tensor) -> Tensor:
        """(N, 4, h, w) → (N, 1, 8h, 8w) in 0..1."""
        return self.decoder(latents).sigmoid()


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape."""
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


def load_student() -> Student:
    """The student with the weights that ship in the package (half precision on disk, float32 here)."""
    data = (resources.files("gaitdiff.diffusion") / "assets" / "student.safetensors").read_bytes()
    student = Student()
    student.load_state_dict({key: tensor.float() for key, tensor in load_safetensors(data).items()})
    return student
