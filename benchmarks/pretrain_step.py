"""A whole step of stage 1, ours beside what one would put together today: data, augmentation, latents, training.

    python -m benchmarks.pretrain_step --taesd SOURCE [--size walkers paper] [--device cuda] [--threads 2] [--repeats 9]

A step reads sequences, cuts and augments both clips, encodes one of them, adds noise, goes forward and backward through
backbone and denoiser, clips the gradient and lets AdamW move the weights. The other side is ``benchmarks.peer`` (it
needs the package video-diffusion-pytorch); it begins with our weights. Ours runs with the same TAESD, in float32 like
the other side and as ``machine.precision auto`` has it, and with the student. Sides take turns in one process, one step
each; nothing is read ahead. Besides: how far both are apart on the same clips, what parts of a step take,
floating-point operations of a step over what a matrix product reaches here, memory of each side in a process of its
own, and how long our loop waits for data.

Sizes: "walkers" is the recipe walkers/pretrain; "paper" gait3d/pretrain_smplgait, on a CPU with 4 sequences of 30
frames a step, on a GPU with 64.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import cv2
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.denoiser import find_peer
from benchmarks.measure import alternate, commit, machine, summary, write
from benchmarks.peer import PeerObjective, Pickles, PlainSMPLGait, encode, write_pickles
from gaitdiff.config.recipe import parse_config
from gaitdiff.config.schema import MachineConfig, PretrainConfig
from gaitdiff.data.batches import Prefetcher
from gaitdiff.data.store import SequenceStore
from gaitdiff.diffusion.denoiser import PRESETS, Denoiser
from gaitdiff.diffusion.denoiser_reference import reference_state_dict
from gaitdiff.diffusion.taesd import load_tiny
from gaitdiff.models.registry import model_config
from gaitdiff.models.smplgait import PlainBackbone
from gaitdiff.training.device import keep_freed_memory, make_accelerator
from gaitdiff.training.graph import inputs_ahead
from gaitdiff.training.pretexts import DiffusionPretext
from gaitdiff.training.pretrain import PretrainStage
from gaitdiff.training.step import Step
from gaitdiff.walkers import generate

PEOPLE, SEQUENCES, FRAMES = 40, 4, 60
RECIPES = {"walkers": "walkers/pretrain", "paper": "gait3d/pretrain_smplgait"}
PEER = "peer, TAESD, float32"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--taesd", required=True, help="folder with TAESD's weights, or a hub id")
    parser.add_argument("--size", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--only", help=argparse.SUPPRESS)  # one side, for its memory
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    if args.device == "cpu":
        keep_freed_memory()  # as our commands do; both sides gain from it
    if args.only:
        return tell_memory(args)
    told = ["TAESD" if word == args.taesd else word for word in sys.argv[1:]]
    result: dict[str, Any] = {"commit": commit(), "command": told, "machine": machine(args.device)}
    half = make_accelerator(MachineConfig(device=args.device)).mixed_precision == "bf16"
    kinds = list(KINDS) if half else ["float32"]
    result["matrix_product_gflops"] = ceilings = {kind: round(ceiling(kind, args.device)) for kind in kinds}
    print("a matrix product reaches", ceilings, "GFLOP/s")
    with tempfile.TemporaryDirectory() as folder:
        args.store = Path(folder) / "walks"
        generate(args.store, people=PEOPLE, sequences=SEQUENCES, frames=FRAMES)
        for size in args.size:
            result[size] = measure(args, size, ceilings)
    print(write("pretrain_step" + ("" if args.device == "cpu" else "_" + args.device.split(":")[0]), result))


KINDS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def measure(args: argparse.Namespace, size: str, ceilings: dict[str, int]) -> dict[str, Any]:
    """All that is told of one size."""
    sides = make_sides(args, size)
    steps = {name: side.step for name, side in sides.items()}
    ours, peer = sides["ours, TAESD, float32"], sides[PEER]
    assert isinstance(ours, Ours)
    assert isinstance(peer, Theirs)
    found: dict[str, Any] = {"recipe": RECIPES[size], "differ_by": differences(ours, peer)}
    print(f"\n{size}: of the same clips, before any step, both sides differ by {found['differ_by']}")
    found["sides"] = times = summary(alternate(steps, args.repeats), PEER)
    for name, side in sides.items():
        flops = count_operations(side)
        kind = "bfloat16" if isinstance(side, Ours) and side.half else "float32"
        rate = flops / times[name]["median_s"] / 1e9
        times[name] |= {"gflop": round(flops / 1e9, 1), "of_matrix_product": round(rate / ceilings[kind], 3)}
        if args.device == "cpu":
            times[name]["peak_memory_mb"] = memory_of(args, size, name)
        if isinstance(side, Ours):
            times[name]["seconds_of_parts"] = side.parts()
        print(f"  {name}: {times[name]}")
    found["waiting_for_data"] = waiting = {name: s.waiting() for name, s in sides.items() if isinstance(s, Ours)}
    print("  share of time that our loop waits for data:", waiting)
    return found


def make_sides(args: argparse.Namespace, size: str) -> dict[str, Side]:
    """Each side by its name."""
    ours = {"ours, TAESD, float32": (args.taesd, "float32"), "ours, student": ("student", "auto")}
    if make_accelerator(MachineConfig(device=args.device)).mixed_precision == "bf16":
        ours["ours, TAESD"] = (args.taesd, "auto")
    chosen = {name: Ours(args, size, *how) for name, how in ours.items() if args.only in (None, name, PEER)}
    if args.only not in (None, PEER):
        return dict(chosen)
    network = find_peer()
    if network is None:
        raise SystemExit("install video-diffusion-pytorch first")
    return {PEER: Theirs(next(iter(chosen.values())), network), **chosen}


class Side(Protocol):
    """One who takes steps."""

    def step(self) -> None:
        """Take one."""


class Ours:
    """A stage as ``gaitdiff pretrain`` makes it, stepped as its loop steps it."""

    def __init__(self, args: argparse.Namespace, size: str, autoencoder: str, precision: str) -> None:
        words = ["--recipe", RECIPES[size], "--data.store", str(args.store), "--out", str(args.store / "no-run")]
        words += ["--machine.device", args.device.split(":")[0], "--machine.precision", precision]
        words += ["--diffusion.autoencoder", autoencoder, "--run.evaluate_every", "0"]
        if size == "paper" and args.device == "cpu":
            words += ["--optim.batch", "4"]
        self.config = parse_config(PretrainConfig, "benchmarks.pretrain_step", words)
        self.accelerator = make_accelerator(self.config.machine)
        self.half = self.accelerator.mixed_precision == "bf16"
        self.stage = PretrainStage(self.config, self.accelerator.device, 1)
        self.take = Step(self.stage, self.accelerator)
        self.done = 0

    def step(self) -> None:
        """Take one."""
        batch = self.stage.make_batch(self.done, 0)
        self.take(self.stage.inputs(batch, self.done, 0))
        self.take.look()
        self.done += 1

    def parts(self, turns: int = 3) -> dict[str, float]:
        """Seconds of the parts of a step, the median of some."""
        pretext = self.stage.pretext
        assert isinstance(pretext, DiffusionPretext)
        clock = Clock(self.accelerator.device)
        clock.watch(pretext.module.backbone, "backbone, forward")
        clock.watch(pretext.module.denoiser, "denoiser, forward")
        told: dict[str, list[float]] = {}
        graphed, self.take._backward = self.take._backward, self._plain_backward(clock)  # hooks are no part of a graph
        for _ in range(turns):
            clock.seconds.clear()
            with clock("data"):
                batch = self.stage.make_batch(self.done, 0)
            with clock("augmentation and latents"):
                inputs = self.stage.inputs(batch, self.done, 0)
            with clock("step"):
                self.take(inputs)
                self.take.look()
            rest = clock.seconds.pop("step") - sum(clock.seconds[key] for key in STEP_PARTS)
            for name, value in {**clock.seconds, "clipping and optimiser": rest}.items():
                told.setdefault(name, []).append(value)
        self.take._backward = graphed
        clock.forget()
        return {name: round(statistics.median(values), 4) for name, values in told.items()}

    def _plain_backward(self, clock: Clock) -> Callable[[Any], Tensor]:
        def backward(inputs: Any) -> Tensor:
            with self.accelerator.autocast():
                loss: Tensor = self.stage.module(*inputs)
            with clock("backward"):
                self.accelerator.backward(loss)
            return loss.detach()

        return backward

    def waiting(self, steps: int = 12) -> float:
        """Share of the time of some steps in which the loop waits for a batch."""
        make = inputs_ahead(
            lambda step: self.stage.make_batch(step, 0),
            lambda batch, step: self.stage.inputs(batch, step, 0),
            self.accelerator.device,
        )
        waited, started = 0.0, time.perf_counter()
        before = started
        for i, (_, (_, inputs)) in enumerate(Prefetcher(make, self.done, self.done + steps)):
            now = time.perf_counter()
            if i < 3:  # the first ones have nobody ahead of them
                waited, started = 0.0, now
            else:
                waited += now - before
            self.take(inputs())
            self.take.look()
            before = time.perf_counter()
        return round(waited / (time.perf_counter() - started), 4)


STEP_PARTS = ("backbone, forward", "denoiser, forward", "backward")


class Theirs:
    """The peer, with the weights of one of ours, at its settings."""

    def __init__(self, ours: Ours, unet: type[nn.Module]) -> None:
        pretext = ours.stage.pretext
        assert isinstance(pretext, DiffusionPretext)
        objective, config, device = pretext.module, ours.config, ours.accelerator.device
        model = model_config(config.model.name, config.model.preset, config.model.overrides)
        backbone = PlainSMPLGait(model)
        backbone.take(backbone_of(pretext))
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


def count_operations(side: Side) -> int:
    """Floating-point operations of a step, those of convolutions and matrix products."""
    if isinstance(side, Ours):
        graphed, side.take._backward = side.take._backward, side._plain_backward(Clock(side.accelerator.device))
    with FlopCounterMode(display=False) as counter:
        side.step()
    if isinstance(side, Ours):
        side.take._backward = graphed
    return counter.get_total_flops()


def ceiling(kind: str, device: str, size: int = 2048) -> float:
    """GFLOP/s of the best of some square matrix products."""
    a = torch.randn(size, size, device=device, dtype=KINDS[kind])
    seconds = alternate({"product": lambda: a @ a}, 5)["product"]
    return 2 * size**3 / min(seconds) / 1e9


def memory_of(args: argparse.Namespace, size: str, name: str) -> int:
    """Peak memory of a side's steps, MB, in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.pretrain_step", "--taesd", args.taesd, "--size", size]
    words += ["--threads", str(args.threads), "--only", name, "--store", str(args.store)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1])


def tell_memory(args: argparse.Namespace) -> None:
    """Print the peak memory of some steps of one side, MB (Linux)."""
    side = make_sides(args, args.size[0])[args.only]
    for _ in range(3):
        side.step()
    status = Path("/proc/self/status").read_text()  # getrusage would tell the peak of who started this
    (peak,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    print(int(peak) // 1024)


class Clock:
    """Seconds of named parts, waiting for the device at both ends."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self._hooks: list[Any] = []

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time a block as a part."""
        started = self.now()
        yield
        self._add(name, started)

    def _add(self, name: str, started: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + self.now() - started

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def watch(self, module: nn.Module, name: str) -> None:
        """Time a module's forward passes as a part."""
        began: list[float] = []

        def before(*_: object) -> None:
            began.append(self.now())

        def after(*_: object) -> None:
            self._add(name, began.pop())

        self._hooks += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]

    def forget(self) -> None:
        """Watch nothing any more."""
        for hook in self._hooks:
            hook.remove()


if __name__ == "__main__":
    main()
