"""A whole step of stage 2, ours beside what one would put together today: data, network, losses, optimiser.

    python -m benchmarks.train_step [--cases smplgait/walkers gaitbase/gait3d] [--device cuda] [--threads 2]

A step reads sequences of some people, cuts clips, goes forward and backward through network, triplet loss and
cross-entropy, and lets the recipe's optimiser move the weights, from scratch. The other side reads a pickle a sequence,
and computes with ``benchmarks.plain_models``, a batch-all triplet loss by masks, and torch's own cross-entropy, in
float32; it begins with our weights. Ours runs in float32 too, and as ``machine.precision auto`` has it. Sides take
turns in one process; nothing is read ahead. What is told besides: ``benchmarks.stepping``.

A case is a model and a preset: "walkers" is the recipe walkers/scratch; "gait3d" is gait3d/scratch_… with 30 frames
in each clip, and on a CPU with 2 sequences of 2 people a step, which take DeepGaitV2 half a minute.
"""

from __future__ import annotations

import argparse
import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.measure import origin, write
from benchmarks.peer import write_pickles
from benchmarks.plain_models import differ_by, plain_model, take_weights
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
from gaitdiff.config.schema import FinetuneConfig
from gaitdiff.data.clips import sample_clip
from gaitdiff.data.store import SequenceStore
from gaitdiff.models import list_models
from gaitdiff.training.device import make_accelerator
from gaitdiff.training.finetune import FinetuneStage
from gaitdiff.walkers import generate

PEOPLE, SEQUENCES, FRAMES = 40, 4, 60
PEER = "peer, float32"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    cases = [f"{name}/{preset}" for name in list_models() for preset in ("walkers", "gait3d")]
    parser.add_argument("--cases", nargs="+", choices=cases, default=cases, metavar="MODEL/PRESET")
    parser.add_argument("--repeats", type=int, default=5)
    add_options(parser)
    args = parser.parse_args()
    prepare(args)
    if args.only:
        name, preset = args.cases[0].split("/")
        return tell_memory(make_sides(args, name, preset)[args.only], args.device)
    result: dict[str, Any] = origin(args.device)
    result["matrix_product_gflops"] = ceilings = ceilings_of(args.device)
    with tempfile.TemporaryDirectory() as folder:
        args.store = Path(folder) / "walks"
        generate(args.store, people=PEOPLE, sequences=SEQUENCES, frames=FRAMES)
        for case in args.cases:
            name, preset = case.split("/")
            result[case] = measure(args, name, preset, ceilings)
    print(write("train_step", result, args.device))


def measure(args: argparse.Namespace, name: str, preset: str, ceilings: dict[str, int]) -> dict[str, Any]:
    """All that is told of one model in one size."""
    sides = make_sides(args, name, preset)
    ours, peer = sides["ours, float32"], sides[PEER]
    assert isinstance(ours, Ours)
    assert isinstance(peer, Theirs)
    clips, _ = ours.stage.inputs(ours.stage.make_batch(0, 0), 0, 0)
    apart = differ_by(peer.network, ours.stage.module.model, clips)
    print(f"\n{name} {preset}: embeddings of the same clips, before any step, differ by {apart:.1e} of their RMS")
    words = ["--cases", f"{name}/{preset}", "--device", args.device, "--threads", str(args.threads)]
    words += ["--store", str(args.store)]

    def memory(side: str) -> int:
        return memory_elsewhere("benchmarks.train_step", [*words, "--only", side])

    told = measure_sides(sides, PEER, args.repeats, ceilings, memory)
    return {"sequences": len(clips), "frames": clips.shape[1], "differ_by": apart, "sides": told}


def make_sides(args: argparse.Namespace, name: str, preset: str) -> dict[str, Side]:
    """Each side by its name."""
    precisions = {"ours, float32": "float32"}
    if in_half(args.device):
        precisions["ours"] = "auto"
    if args.only in precisions:
        return {args.only: make_ours(args, name, preset, precisions[args.only])}
    first, *others = precisions
    taken = make_ours(args, name, preset, precisions[first])
    peer = {PEER: Theirs(taken, name, preset)}
    if args.only:
        return dict(peer)
    return {**peer, first: taken, **{side: make_ours(args, name, preset, precisions[side]) for side in others}}


def make_ours(args: argparse.Namespace, name: str, preset: str, precision: str) -> Ours:
    """A stage as ``gaitdiff finetune`` makes it."""
    recipe = "walkers/scratch" if preset == "walkers" else f"gait3d/scratch_{name}"
    words = ["--recipe", recipe, "--data.store", str(args.store), "--out", str(args.store / "no-run")]
    words += ["--model.name", name, "--model.preset", preset, "--run.evaluate_every", "0"]
    words += ["--machine.device", args.device.split(":")[0], "--machine.precision", precision]
    if preset == "gait3d":
        words += ["--data.frames", "30", "--data.frames_max", "0"]
        words += ["--batch.people", "2", "--batch.sequences", "2"] if args.device == "cpu" else []
    config = parse_config(FinetuneConfig, "benchmarks.train_step", words)
    accelerator = make_accelerator(config.machine)
    stage = FinetuneStage(config, accelerator.device, 1)
    model = stage.module.model
    return Ours(stage, accelerator, {"backbone, forward": model.backbone, "head, forward": model.head})


class Theirs:
    """The peer, with the weights and settings of one of ours."""

    def __init__(self, ours: Ours, name: str, preset: str) -> None:
        self.config: FinetuneConfig = ours.stage.config
        self.device, self.sampling = ours.accelerator.device, ours.stage.module.model.backbone.sampling
        model = ours.stage.module.model
        self.network = plain_model(name, preset, model.head.num_classes)
        take_weights(self.network, model)
        self.network.to(self.device)
        self.weight = ours.stage.module.cross_entropy_weight
        optim = self.config.optim
        settings: dict[str, Any] = {"lr": optim.lr, "weight_decay": optim.weight_decay}
        if optim.optimizer == "sgd":
            settings["momentum"] = optim.momentum
        kinds: dict[str, Any] = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
        self.optimizer: torch.optim.Optimizer = kinds[optim.optimizer](self.network.parameters(), **settings)
        store = SequenceStore(self.config.data.store)
        folder = Path(str(store.path) + "-pickles")
        folder.mkdir(exist_ok=True)
        self.people: dict[str, list[Path]] = {}
        for row, path in zip(store.rows, write_pickles(store, folder), strict=True):
            if row.split == "train":
                self.people.setdefault(row.subject, []).append(path)
        self.rng = np.random.default_rng(0)

    def step(self) -> None:
        """Take one."""
        clips, labels = (part.to(self.device) for part in self._batch())
        embedding, logits = self.network(clips)
        loss = self._triplet(embedding, labels)
        if logits is not None:
            settings = self.config.loss
            rows = logits.permute(0, 2, 1).flatten(0, 1) * settings.scale
            whose = labels.repeat_interleave(logits.shape[2])
            loss = loss + self.weight * F.cross_entropy(rows, whose, label_smoothing=settings.smoothing)
        self.optimizer.zero_grad()
        loss.backward()
        if self.config.optim.clip_grad:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.config.optim.clip_grad)
        self.optimizer.step()
        if not np.isfinite(loss.item()):
            raise SystemExit("the peer's loss is not finite")

    def _batch(self) -> tuple[Tensor, Tensor]:
        clips, labels, everyone = [], [], list(self.people)
        for person in self.rng.choice(len(everyone), self.config.batch.people, replace=False):
            paths = self.people[everyone[person]]
            for i in self.rng.choice(len(paths), self.config.batch.sequences, len(paths) < self.config.batch.sequences):
                frames = pickle.loads(paths[i].read_bytes())
                drawn = sample_clip(self.sampling, len(frames), self.config.data.frames, self.rng)
                clips.append(frames[drawn][..., 10:54].astype(np.float32) / 255)
                labels.append(person)
        return torch.from_numpy(np.stack(clips)), torch.tensor(labels)

    def _triplet(self, embedding: Tensor, labels: Tensor) -> Tensor:
        """Batch-all, by part: every anchor with every positive, itself too, and every negative."""
        x = embedding.permute(2, 0, 1)  # (P, n, C)
        if self.config.loss.distance == "cosine":
            x = F.normalize(x, dim=-1)
            distance = 1 - x @ x.transpose(1, 2)
        else:
            distance = torch.cdist(x, x)
        same = labels[:, None] == labels[None]
        n = len(labels)
        positive = distance[:, same].view(len(distance), n, -1, 1)
        negative = distance[:, ~same].view(len(distance), n, 1, -1)
        over = F.relu(positive - negative + self.config.loss.margin).flatten(1)
        return (over.sum(1) / (over > 0).sum(1).clamp(min=1)).mean()


if __name__ == "__main__":
    main()
