"""Seconds of what recognition spends its time on: training steps and evaluation of every model, losses, metrics.

    python -m benchmarks.backbones [--models gaitset gaitbase] [--threads 1] [--batch 8] [--frames 30] [--quick]
                                   [--peer module:function] [--memory kept] [--precision float32]

A training step is forward, losses (triplet, and cross-entropy where the model classifies) and backward; evaluation is
forward in evaluation mode without gradients. Every model runs in its Gait3D preset, and in its GREW preset where that
is another network. ``--models`` without a name measures losses and metrics alone. ``--quick`` takes 4 sequences of 8
frames, one turn of each, and writes no file.

``--peer`` names a function(name) that returns None, or a callable that gets the very inputs ours gets and does the same
work; the two take turns in this process, and how many times the peer took our time is reported as the median over
turns. Weights and results are not compared. The names, and what the callable gets:

    <model>/<preset>/train    clip (B, T, 64, 44) in [0, 1], labels (B,): forward, losses and backward of a network with
                              100 classes in training mode; clears its own old gradients
    <model>/<preset>/eval     clip: its embeddings in evaluation mode, without gradients
    triplet/31, triplet/62    embedding (128, 256, P), requires grad, labels (128,): Euclidean, forward and backward
    cross-entropy             logits (128, 3000, 31), requires grad, labels (128,): scale 16, smoothing 0.1, both ways
    cross-entropy/heads       the same logits as our heads lay them out in memory, classes side by side
    distance/euclidean        probe (1000, 256, 31), gallery (5000, 256, 31): the matrix (1000, 5000)
    distance/cosine           the same
    rank-metrics              distance (1000, 5000), labels (1000,), (5000,), NumPy: rank-1, 5, 10, mAP and mINP

``--memory kept`` (the default) has the process keep the memory of freed tensors, as gaitdiff's training does on a CPU;
``--memory default`` leaves the C library's allocator as it is, as for whoever calls the models from a program of
their own. Either way both sides live in the one process and gain from it alike.

``--precision bfloat16`` runs our models under autocast, as gaitdiff trains by default where the machine multiplies
bfloat16 fast (a CPU with AMX, a GPU); the peer computes as it always does.

Gradients of the inputs are cleared before every call, and copies that a peer needs in another shape are its own time.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import alternate, origin, summary, write
from gaitdiff.evaluation import distance_matrix, rank_metrics
from gaitdiff.models import create_model, list_models
from gaitdiff.models.registry import model_config
from gaitdiff.recognition.losses import cross_entropy, triplet_loss
from gaitdiff.training.device import keep_freed_memory

CLASSES = 100
Work = Callable[..., object]


@dataclass
class Case:
    """One thing to time: our callable, what it gets, and how many sequences of how many frames that is."""

    name: str
    ours: Work
    inputs: tuple[Any, ...]
    repeats: int
    sequences: int = 0
    frames: int = 0


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", nargs="*", choices=list_models(), default=list_models(), metavar="MODEL")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--batch", type=int, default=8, help="sequences")
    parser.add_argument("--frames", type=int, default=30, help="of a sequence")
    parser.add_argument("--repeats", type=int, default=3, help="of a model's step; losses and metrics take more")
    parser.add_argument("--quick", action="store_true", help="small, once, without a result file")
    parser.add_argument("--memory", choices=("kept", "default"), default="kept", help="of freed tensors")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of our models")
    parser.add_argument("--peer", metavar="MODULE:FUNCTION", help="whom to compare with")
    args = parser.parse_args()
    if args.quick:
        args.batch, args.frames, args.repeats = 4, 8, 1
    torch.set_num_threads(args.threads)
    if args.memory == "kept":
        keep_freed_memory()
    find_peer = load_peer(parser, args.peer) if args.peer else None
    settings = {
        "sequences": args.batch,
        "frames": args.frames,
        "memory": args.memory,
        "precision": args.precision,
    }
    result: dict[str, Any] = {**origin(), **settings, "seconds": {}}
    for case in cases(args):
        result["seconds"][case.name] = measured = measure(case, find_peer(case.name) if find_peer else None)
        print(table_row(case.name, measured), flush=True)
    if not args.quick:
        name = "backbones" + ("" if args.memory == "kept" else "-default-memory")
        print(write(name + ("" if args.precision == "float32" else "-bfloat16"), result))


def load_peer(parser: argparse.ArgumentParser, where: str) -> Callable[[str], Work | None]:
    """The function that ``--peer`` names."""
    module, _, function = where.partition(":")
    try:
        found: Callable[[str], Work | None] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        parser.error(f"--peer must be module:function of an importable module, not {where!r}: {error}")
    return found


def cases(args: argparse.Namespace) -> Iterator[Case]:
    """Everything to time, one after the other: a network is gone before the next one is made."""
    for name in args.models:
        for preset in distinct_presets(name):
            yield from model_cases(name, preset, args)
    few, many = (1, 1) if args.quick else (args.repeats, 10 * args.repeats)
    yield from loss_cases(few, many)
    yield from metric_cases(few)


def distinct_presets(name: str) -> list[str]:
    """Gait3D's, and GREW's where it differs."""
    same = model_config(name, "gait3d", {}) == model_config(name, "grew", {})
    return ["gait3d"] if same else ["gait3d", "grew"]


def model_cases(name: str, preset: str, args: argparse.Namespace) -> Iterator[Case]:
    """A training step and an evaluation of one model."""
    torch.manual_seed(0)
    batch, frames, repeats = args.batch, args.frames, args.repeats
    precision = torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bfloat16")
    model = create_model(name, preset, CLASSES)
    clip, labels = torch.rand(batch, frames, 64, 44), torch.arange(batch) // 2

    def train(clip: Tensor, labels: Tensor) -> None:
        model.train().zero_grad()
        with precision:
            output = model(clip)
        loss = triplet_loss(output.embedding.float(), labels)
        if output.logits is not None:
            loss = loss + cross_entropy(output.logits.float(), labels)
        loss.backward()

    @torch.no_grad()
    def evaluate(clip: Tensor) -> Tensor:
        with precision:
            embedding: Tensor = model.eval()(clip).embedding
        return embedding

    yield Case(f"{name}/{preset}/train", train, (clip, labels), repeats, batch, frames)
    yield Case(f"{name}/{preset}/eval", evaluate, (clip,), repeats, batch, frames)


def loss_cases(few: int, many: int) -> Iterator[Case]:
    """The losses, forward and backward."""
    torch.manual_seed(0)
    labels = torch.arange(32).repeat_interleave(4)

    def both_ways(loss: Callable[[Tensor, Tensor], Tensor]) -> Work:
        return lambda x, labels: loss(x, labels).backward()

    for parts in (31, 62):
        embedding = (0.05 * torch.randn(128, 256, parts)).requires_grad_()
        yield Case(f"triplet/{parts}", both_ways(triplet_loss), (embedding, labels), many)
    logits = 0.1 * torch.randn(128, 3000, 31)  # cosines
    yield Case("cross-entropy", both_ways(cross_entropy), (logits.requires_grad_(), labels), few)
    side_by_side = logits.detach().permute(2, 0, 1).contiguous().permute(1, 2, 0).requires_grad_()
    yield Case("cross-entropy/heads", both_ways(cross_entropy), (side_by_side, labels), few)


def metric_cases(repeats: int) -> Iterator[Case]:
    """Distances and metrics of a test set like Gait3D's."""
    generator = np.random.default_rng(0)
    probe_labels, gallery_labels = (generator.integers(0, 1000, size) for size in (1000, 5000))
    probe, gallery = torch.randn(1000, 256, 31), torch.randn(5000, 256, 31)
    yield Case("distance/euclidean", distance_matrix, (probe, gallery), repeats)
    yield Case("distance/cosine", lambda a, b: distance_matrix(a, b, "cosine"), (probe, gallery), repeats)
    distance = generator.random((1000, 5000), np.float32)
    yield Case("rank-metrics", rank_metrics, (distance, probe_labels, gallery_labels), repeats)


def measure(case: Case, peer: Work | None) -> dict[str, Any]:
    """Seconds of our side, and of the peer's."""

    def side(work: Work) -> Callable[[], object]:
        def run() -> object:
            for value in case.inputs:
                if isinstance(value, Tensor):
                    value.grad = None
            return work(*case.inputs)

        return run

    sides = {"ours": side(case.ours)} | ({"peer": side(peer)} if peer else {})
    found = summary(alternate(sides, case.repeats, warm_up=1), reference="peer" if peer else "ours")
    measured: dict[str, Any] = {"ours_s": found["ours"]["median_s"]}
    if peer:
        measured |= {"peer_s": found["peer"]["median_s"], "speed_up": found["ours"]["speed_up"]}
    if case.sequences:
        per_second = case.sequences / measured["ours_s"]
        measured |= {"sequences_per_s": round(per_second, 2), "frames_per_s": round(per_second * case.frames, 1)}
    return measured


def table_row(name: str, measured: dict[str, Any]) -> str:
    """One line: seconds, throughput, and the comparison."""
    row = f"{name:28s} {measured['ours_s']:9.4f} s"
    if "sequences_per_s" in measured:
        row += f"  {measured['sequences_per_s']:8.1f} sequences/s  {measured['frames_per_s']:9.0f} frames/s"
    if "peer_s" in measured:
        row += f"  peer {measured['peer_s']:9.4f} s, {measured['speed_up']:.2f} times ours"
    return row


if __name__ == "__main__":
    main()
