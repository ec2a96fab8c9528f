"""A backbone of your own: register it, and every command that runs in this process knows it.

    python examples/own_backbone.py --people 60 --steps 100

It is pretrained without labels, finetuned, and scored on people whom it has not seen.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from gaitdiff.cli import main as gaitdiff
from gaitdiff.models.base import Backbone, Head
from gaitdiff.models.layers.heads import PartHead
from gaitdiff.models.layers.parts import HorizontalPooling, image_frames, temporal_max
from gaitdiff.models.registry import register_model


@dataclass(frozen=True)
class StripesConfig:
    """Settings: recipes and flags give them by name (``--model.overrides.width 48``)."""

    width: int = 32
    parts: int = 8


class Stripes(Backbone):
    """Two convolutions on every frame, the maximum over time, horizontal stripes."""

    sampling = "unordered"  # clips are frames in any order

    def __init__(self, config: StripesConfig) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, config.width // 2, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(config.width // 2),
            nn.ReLU(),
            nn.Conv2d(config.width // 2, config.width, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.pool = HorizontalPooling((config.parts,))
        self.channels, self.parts = config.width, config.parts  # C and P of the feature

    def forward(self, clip: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """(B, T, H, W), or sequences behind one another with their lengths → (B, C, P)."""
        frames = self.layers(image_frames(clip)).unflatten(0, clip.shape[:2])  # (B, T, C, H/4, W/4)
        return self.pool(temporal_max(frames, lengths))


@register_model("stripes", presets={"walkers": StripesConfig(), "tiny": StripesConfig(width=8)})
def build(config: StripesConfig, num_classes: int) -> tuple[Backbone, Head]:
    """The backbone, and a head of one linear map a part."""
    return Stripes(config), PartHead(config.parts, config.width, 64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--people", type=int, default=60)
    parser.add_argument("--steps", type=int, default=100)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        walks, stage1, stage2 = (str(Path(folder) / name) for name in ("walks", "pretrained", "finetuned"))
        steps = ["--optim.iterations", str(args.steps), "--run.evaluate_every", "0", "--data.store", walks]
        commands = [
            ["data", "walkers", "--people", str(args.people), "--sequences", "4", "--preset", "lite", "--out", walks],
            ["pretrain", "--recipe", "walkers/pretrain", "--model.name", "stripes", *steps, "--out", stage1],
            ["finetune", "--recipe", "walkers/finetune", "--init", stage1, *steps, "--out", stage2],
            ["evaluate", stage2, "--data", walks],
        ]
        for command in commands:
            if code := gaitdiff(command):
                raise SystemExit(code)


if __name__ == "__main__":
    main()
