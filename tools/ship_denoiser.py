"""Put the denoiser of a pretraining run among those that ship: ``python -m tools.ship_denoiser RUN walkers``.

It is kept without its condition, which is what ``diffusion.start`` takes.
"""

from __future__ import annotations

import sys
from pathlib import Path

from safetensors.torch import save_file

from gaitdiff.diffusion.start import without_condition
from gaitdiff.training.checkpoint_files import latest_checkpoint, read_tensors

if __name__ == "__main__":
    run, name = Path(sys.argv[1]), sys.argv[2]
    assets = Path(__file__).parents[1] / "src" / "gaitdiff" / "diffusion" / "assets"
    weights = without_condition(read_tensors(latest_checkpoint(run), "denoiser"))
    save_file(weights, assets / f"denoiser_{name}.safetensors", {"from": f"{run.name}, without its condition"})
