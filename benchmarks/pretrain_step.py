"""A whole step of stage 1, ours beside what one would put together today: data, augmentation, latents, training.

    python -m benchmarks.pretrain_step --taesd SOURCE [--size walkers paper] [--device cuda] [--threads 2] [--repeats 9]

A step reads sequences, cuts and augments both clips, encodes one of them, adds noise, goes forward and backward through
backbone and denoiser, clips the gradient and lets AdamW move the weights. The other side is ``benchmarks.peer`` (it
needs the package video-diffusion-pytorch); it begins with our weights. Ours runs with the same TAESD, in float32 like
the other side and as ``machine.precision auto`` has it, and with the student. Sides take turns in one process, some
steps each, since ours take less time where a condition is dropped; nothing is read ahead. Besides: how far both are
apart on the same clips, and what ``benchmarks.stepping`` tells.

Sizes: "walkers" is the recipe walkers/pretrain; "paper" gait3d/pretrain_smplgait, on a CPU with 4 sequences of 30
frames a step, on a GPU with 64.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import nn

from benchmarks import plain_models as plain
from benchmarks.denoiser import find_peer
from benchmarks.measure import origin, write
from benchmarks.peer import PeerObjective, Pickles, encode, write_pickles
from benchmarks.stepping import (
    Ours,
    Side,
    add_options,
    ceilings_of,
    in_half,
    measure_sides,
    memory_elsewhere,
    prepare,
    tell_memory,
)
from gaitdiff.config.recipe import parse_config
from gaitdiff.config.schema import PretrainConfig
from gaitdiff.data.store import SequenceStore
from gaitdiff.diffusion.denoiser import PRESETS, Denoiser
from gaitdiff.diffusion.denoiser_reference import reference_state_dict
from gaitdiff.diffusion.taesd import load_tiny
from gaitdiff.models.registry import model_config
from gaitdiff.models.smplgait import PlainBackbone
from gaitdiff.training.device import make_accelerator
from gaitdiff.training.pretexts import DiffusionPretext
from gaitdiff.training.pretrain import PretrainStage
from gaitdiff.walkers import generate

PEOPLE, SEQUENCES, FRAMES = 40, 4, 60
STEPS = 5  # a turn
RECIPES = {"walkers": "walkers/pretrain", "paper": "gait3d/pretrain_smplgait"}
PEER = "peer, TAESD, float32"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--taesd", required=True, help="folder with TAESD's weights, or a hub id")
    parser.add_argument("--size", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--repeats", type=int, default=9)
    add_options(parser)
    args = parser.parse_args()
    prepare(args)
    cv2.setNumThreads(args.threads)
    if args.only:
        return tell_memory(make_sides(args, args.size[0])[args.only], args.device)
    result: dict[str, Any] = origin(args.device)
    result["matrix_product_gflops"] = ceilings = ceilings_of(args.device)
    print("a matrix product reaches", ceilings, "GFLOP/s")
    with tempfile.TemporaryDirectory() as folder:
        args.store = Path(folder) / "walks"
        generate(args.store, people=PEOPLE, sequences=SEQUENCES, frames=FRAMES)
        for size in args.size:
            result[size] = measure(args, size, ceilings)
    print(write("pretrain_step", result, args.device))


def measure(args: argparse.Namespace, size: str, ceilings: dict[str, int]) -> dict[str, Any]:
    """All that is told of one size."""
    sides = make_sides(args, size)
    ours, peer = sides["ours, TAESD, float32"], sides[PEER]
    assert isinstance(ours, Ours)
    assert isinstance(peer, Theirs)
    found: dict[str, Any] = {"recipe": RECIPES[size], "differ_by": differences(ours, peer)}
    print(f"\n{size}: of the same clips, before any step, both sides differ by {found['differ_by']}")
    words = ["--taesd", args.taesd, "--size", size, "--device", args.device, "--threads", str(args.threads)]
    words += ["--store", str(args.store)]

    def memory(side: str) -> int:
        return memory_elsewhere("benchmarks.pretrain_step", [*words, "--only", side])

    found["sides"] = measure_sides(sides, PEER, args.repeats, ceilings, memory, STEPS)
    return found


def make_sides(args: argparse.Namespace, size: str) -> dict[str, Side]:
    """Each side by its name."""
    ours = {"ours, TAESD, float32": (args.taesd, "float32"), "ours, student": ("student", "auto")}
    if in_half(args.device):
        ours["ours, TAESD"] = (args.taesd, "auto")
    if args.only in ours:
        return {args.only: make_ours(args, size, *ours[args.only])}
    network = find_peer()
    if network is None:
        raise SystemExit("install video-diffusion-pytorch first")
    first, *others = ours
    taken = make_ours(args, size, *ours[first])
    peer = {PEER: Theirs(taken, network)}
    if args.only:
        return dict(peer)
    return {**peer, first: taken, **{name: make_ours(args, size, *ours[name]) for name in others}}


def make_ours(args: argparse.Namespace, size: str, autoencoder: str, precision: str) -> Ours:
    """A stage as ``gaitdiff pretrain`` makes it."""
    words = ["--recipe", RECIPES[size], "--data.store", str(args.store), "--out", str(args.store / "no-run")]
    words += ["--machine.device", args.device.split(":")[0], "--machine.precision", precision]
    words += ["--diffusion.autoencoder", autoencoder, "--run.evaluate_every", "0"]
    if size == "paper" and args.device == "cpu":
        words += ["--optim.batch", "4"]
    config = parse_config(PretrainConfig, "benchmarks.pretrain_step", words)
    accelerator = make_accelerator(config.machine)
    stage = PretrainStage(config, accelerator.device, 1)
    assert isinstance(stage.pretext, DiffusionPretext)
    networks = stage.pretext.module
    return Ours(stage, accelerator, {"backbone, forward": networks.backbone, "denoiser, forward": networks.denoiser})


class Theirs:
    """The peer, with the weights of one of ours, at its settings."""

    def __init__(self, ours: Ours, unet: type[nn.Module]) -> None:
        pretext = ours.stage.pretext
        assert isinstance(pretext, DiffusionPretext)
        objective, config, device = pretext.module, ours.stage.config, ours.accelerator.device
        model = model_config(config.model.name, config.model.preset, config.model.overrides)
        backbone = plain.SMPLGait(model)
        plain.take_weights(backbone, backbone_of(pretext))
        size = {"dim_mults": (1, 2, 4), **PRESETS[config.diffusion.denoiser]}
        denoiser = unet(
            dim=size["dim"],
            cond_dim=objective.pooling.width,
            channels=4,
            dim_mults=size["dim_mults"],
            attn_heads=size.get("heads", 8),
            attn_dim_head=size.get("head_dim", 32),
        )
        assert isinstance(objective.denoiser, Denoiser)
        denoiser.load_state_dict(reference_state_dict(objective.denoiser))
        pooling = type(objective.pooling)(
            config.diffusion.pooling,
            backbone_of(pretext).channels,
            backbone_of(pretext).parts,
            config.diffusion.normalize_condition,
            config.diffusion.projector,
        )
        pooling.load_state_dict(objective.pooling.state_dict())
        self.device, self.draw = device, objective.draw
        self.tiny = load_tiny(config.diffusion.autoencoder).to(device)
        self.module = PeerObjective(objective, backbone, denoiser, pooling).to(device)
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=config.optim.lr)
        self.clip = config.optim.clip_grad
        data = config.data
        folder = Path(str(ours.stage.store.path) + "-pickles")
        folder.mkdir(exist_ok=True)
        paths = write_pickles(SequenceStore(config.data.store), folder)
        self.batches = Pickles(paths, config.optim.batch, data.latent_frames, data.gait_frames, config.augment)
        self.generator = torch.Generator(device).manual_seed(0)

    def step(self) -> None:
        """Take one."""
        latent, gait = (clips.to(self.device) for clips in self.batches())
        latents = encode(self.tiny, latent)
        loss = self.module(latents, gait, self.draw(latents, self.generator))
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.module.parameters(), self.clip or math.inf)
        self.optimizer.step()
        if not math.isfinite(loss.item()):
            raise SystemExit("the peer's loss is not finite")


def backbone_of(pretext: DiffusionPretext) -> PlainBackbone:
    """The backbone, which is SMPLGait's in both sizes."""
    backbone = pretext.module.backbone
    assert isinstance(backbone, PlainBackbone)
    return backbone


def differences(ours: Ours, peer: Theirs) -> dict[str, float]:
    """How far both sides are apart on the same clips and noise, each with latents of its own, before any step.

    Relative difference of losses; and the largest of conditions, over their root mean square: a denoiser that starts
    from one without a condition does not hear them yet, so that losses alone say nothing of the backbones.
    """
    pretext = ours.stage.pretext
    assert isinstance(pretext, DiffusionPretext)
    with torch.no_grad():
        batch = ours.stage.make_batch(0, 0)
        latents, gait, noised = ours.stage.inputs(batch, 0, 0)
        theirs = peer.module(encode(peer.tiny, pretext.clips(batch, "latent")[0]), gait, noised)
        mine = ours.stage.module(latents, gait, noised)
        condition = pretext.module.pooling(pretext.module.backbone(gait))
        apart = (condition - peer.module.pooling(peer.module.backbone(gait))).abs().max()
    return {
        "loss": abs(float(mine.double() / theirs.double() - 1)),
        "condition": float(apart / condition.square().mean().sqrt()),
    }


if __name__ == "__main__":
    main()
