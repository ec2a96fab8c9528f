"""A training step of the denoiser against the public implementation of the same network.

    python -m benchmarks.denoiser [--device cuda] [--peer]

``--peer`` needs the package video-diffusion-pytorch in the same environment. Both sides hold the same weights and
get the same clips; one step is forward, mean squared output, backward.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measure import alternate, origin, summary, write
from gaitdiff.diffusion import Denoiser, load_reference_state_dict

#: dim, sequences, frames
SETTINGS = {"cpu": [(32, 2, 30), (64, 2, 30), (32, 16, 8)], "cuda": [(32, 64, 30), (64, 64, 30), (128, 64, 30)]}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--peer", action="store_true", help="also time video-diffusion-pytorch")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    peer = find_peer() if args.peer else None
    result: dict[str, Any] = {**origin(args.device), "settings": []}
    for dim, batch, frames in SETTINGS["cuda" if args.device.startswith("cuda") else "cpu"]:
        for precision in ("float32", "bfloat16") if args.device.startswith("cuda") else ("float32",):
            sides = make_sides(dim, batch, frames, args.device, precision == "bfloat16", peer)
            times = summary(alternate(sides, args.repeats), reference="peer" if peer else "ours")
            result["settings"].append(
                {"dim": dim, "sequences": batch, "frames": frames, "precision": precision, **times}
            )
            print(f"dim {dim:3d}  {batch} x {frames} frames  {precision}:", times)
    if args.device == "cpu":
        times = summary(alternate({"walkers": walkers_step()}, args.repeats), reference="walkers")
        result["walkers_preset"] = {"sequences": 64, "frames": 4, "median_s": times["walkers"]["median_s"]}
        print("preset walkers, 64 x 4 frames:", times)
    print(write("denoiser", result, args.device))


def find_peer() -> type[nn.Module] | None:
    """The peer's network, or None with a note when it is not installed."""
    try:
        return importlib.import_module("video_diffusion_pytorch").Unet3D
    except ImportError as error:
        print(f"Without the peer: {error}.")
        return None


def make_sides(
    dim: int, batch: int, frames: int, device: str, half: bool, peer: type[nn.Module] | None
) -> dict[str, Callable[[], object]]:
    """A training step of each side, with equal weights."""
    torch.manual_seed(0)
    x = torch.randn(batch, 4, frames, 8, 8, device=device)
    t = torch.randint(1, 1001, (batch,), device=device)
    condition = torch.randn(batch, 256, device=device, requires_grad=True)
    ours = Denoiser(dim=dim).to(device)
    sides = {"ours": step(ours, lambda: ours(x, t, condition), half, device)}
    if peer:
        theirs = peer(dim=dim, cond_dim=256, channels=4, attn_heads=8, attn_dim_head=32, dim_mults=(1, 2, 4)).to(device)
        load_reference_state_dict(ours, theirs.state_dict())
        sides["peer"] = step(theirs, lambda: theirs(x, t, cond=condition, null_cond_prob=0.0), half, device)
    return sides


def walkers_step() -> Callable[[], object]:
    """A training step of the CPU preset: 64 latent clips of 4 frames."""
    denoiser = Denoiser.preset("walkers", cond_dim=128)
    x, t, condition = torch.randn(64, 4, 4, 8, 8), torch.randint(1, 1001, (64,)), torch.randn(64, 128)
    condition.requires_grad_()
    return step(denoiser, lambda: denoiser(x, t, condition), False, "cpu")


def step(module: nn.Module, forward: Callable[[], Tensor], half: bool, device: str) -> Callable[[], object]:
    """Forward and backward."""

    def run() -> None:
        module.zero_grad()
        with torch.autocast(device.split(":")[0], dtype=torch.bfloat16, enabled=half):
            output = forward()
        output.float().square().mean().backward()

    return run


if __name__ == "__main__":
    main()
