"""Stage 2: recognition with labels, from a pretrained backbone (fine-tuned or frozen) or from scratch."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from gaitdiff.config.schema import FinetuneConfig, FinetuneData, LossConfig, ModelConfig
from gaitdiff.config.values import checked
from gaitdiff.data.augment import augment, prepare
from gaitdiff.data.batches import IdentityBatches, LabelledBatch, training_rows
from gaitdiff.data.clips import crop_sides
from gaitdiff.data.store import SequenceStore
from gaitdiff.data.transfer import send
from gaitdiff.datasets.sequences import NAMELESS
from gaitdiff.errors import UserError
from gaitdiff.evaluation.about import Origin, about, compared
from gaitdiff.evaluation.held_out import to_score
from gaitdiff.evaluation.scoring import headline_metrics
from gaitdiff.evaluation.shards import extract_shared
from gaitdiff.evaluation.stored import evaluate_store
from gaitdiff.models import GaitModel, create_model
from gaitdiff.models.layers.norm import synchronize
from gaitdiff.recognition.losses import pairwise_distance, triplet_terms
from gaitdiff.recognition.objective import RecognitionObjective
from gaitdiff.training.average import Average
from gaitdiff.training.best import check_best
from gaitdiff.training.checkpoint import load_into, model_document, read_checkpoint_info, read_model_document
from gaitdiff.training.checkpoint_files import latest_checkpoint, list_checkpoints, read_tensors
from gaitdiff.training.device import computes, make_accelerator, require_memory, seeded
from gaitdiff.training.environment import Start
from gaitdiff.training.graph import Inputs
from gaitdiff.training.loggers import side_by_side
from gaitdiff.training.loop import train
from gaitdiff.training.run_folder import RunFolder, provenance
from gaitdiff.training.starting import find_start
from gaitdiff.training.step import fused
from gaitdiff.training.together import peers_told
from gaitdiff.utils.modes import evaluating
from gaitdiff.utils.progress import say
from gaitdiff.utils.shares import gathered, require_shares

#: The learning rate goes by milestones alone: more iterations are the same run, longer.
GROWING = ("optim.iterations",)
_SHOWN = 10  # frames of a pictured clip


def finetune(config: FinetuneConfig) -> Path:
    """Train a model for recognition; continues a run that was stopped.

    Returns:
        The run folder. ``gaitdiff.load_checkpoint`` takes it.

    Raises:
        UserError: anything about data, settings or machine that the user can fix.
    """
    config = checked(FinetuneConfig, config)
    accelerator = make_accelerator(config.machine)
    stage = FinetuneStage(config, accelerator.device, accelerator.num_processes)
    with peers_told(accelerator.num_processes):
        with accelerator.main_process_first():
            main, device = accelerator.is_main_process, computes(accelerator)
            folder = RunFolder.open("finetune", stage.config, stage.provenance, main, GROWING, device)
        with folder:
            train(stage, folder, config.run, accelerator)
    return folder.path


class FinetuneStage:
    """What the training loop needs of stage 2."""

    graphed = False  # the triplet loss looks at values
    measures = False
    caution = ""
    accumulate = 1  # and it is of all pairs of a batch, which micro-batches do not have

    def __init__(self, config: FinetuneConfig, device: torch.device, world_size: int) -> None:
        self.device, self.store = device, SequenceStore(config.data.store)
        self.rows = rows = labelled_rows(self.store, config.data, config.seed)
        scored = to_score(self.store, config.run.protocol)
        self.held_out, self.validates, self.unscored = scored.rows, scored.validates, scored.unscored
        check_best(config.run, self.validates)
        self.config = config = replace(config, run=replace(config.run, protocol=scored.protocol))
        self.iterations, self.clip_grad = config.optim.iterations, config.optim.clip_grad
        batch, frames = config.batch, max(config.data.frames, config.data.frames_max)
        self.size = f"--batch.people {batch.people} --batch.sequences {batch.sequences} --data.frames {frames}"
        pixels = batch.people * batch.sequences * frames * self.store.height * self.store.width
        require_memory(pixels, self.size)
        self.provenance = provenance(self.store.header.manifest_sha256, rows)
        require_shares(
            batch.people * batch.sequences,
            f"batch.people {batch.people} times batch.sequences {batch.sequences}",
            world_size,
        )
        checkpoint, choice = _begun(config) or starting_point(config)
        self.start: Start | None = None
        if checkpoint is not None:
            read_checkpoint_info(checkpoint).require_height(self.store)
            self.start = Start.of(checkpoint)
        subjects = len({self.store.rows[row].subject for row in rows})
        weight = cross_entropy_weight(config.loss, choice)
        classes = subjects if weight > 0 else 0
        self.document = model_document(
            choice.name,
            choice.preset,
            classes,
            choice.overrides,
            height=self.store.height,
            distance=config.loss.distance,
            ema=config.optim.ema,
        )
        with seeded(config.seed):
            model = create_model(choice.name, choice.preset, classes, **choice.overrides)
        self.batches = IdentityBatches(
            self.store,
            rows,
            people=config.batch.people,
            sequences=config.batch.sequences,
            frames=config.data.frames,
            frames_max=config.data.frames_max,
            sampling=model.backbone.sampling,
            augment=config.augment,
            seed=config.seed,
            world_size=world_size,
        )
        if checkpoint is not None:
            load_into(model.backbone, read_tensors(checkpoint, "backbone"), str(checkpoint))
        self.module = RecognitionObjective(model, config.loss, weight, frozen=config.mode == "frozen")
        if world_size > 1:
            synchronize(self.module, device)
        if config.machine.compile and config.data.frames_max:
            raise UserError(
                "machine.compile makes kernels for clips of one length, but data.frames_max has them vary: leave it out"
            )
        self.compiled: Sequence[nn.Module] = [model.backbone, model.head] if config.machine.compile else []
        self.optimizer = _optimizer(config, model, device)
        self.ema, self.average = config.optim.ema, Average(model, config.optim.ema, device)

    def make_batch(self, step: int, rank: int) -> LabelledBatch:
        """Clips of a step, in host memory."""
        return self.batches(step, rank)

    def inputs(self, batch: LabelledBatch, step: int, rank: int) -> tuple[Tensor, Tensor]:
        """Clips and labels."""
        return self._inputs(batch)

    def lr_factors(self, step: int) -> list[float]:
        """A tenth at each milestone passed."""
        return [0.1 ** bisect_right(sorted(self.config.optim.milestones), step)] * len(self.optimizer.param_groups)

    def diagnostics(self, batch: LabelledBatch, inputs: Inputs) -> dict[str, float]:
        """Share of triplets that are violated, and the mean distances of pairs, in evaluation mode.

        ``ap`` is that of two sequences of one person, ``an`` that of two people, over all parts; where both fall to 0
        the embeddings have collapsed.
        """
        clips, labels = inputs
        with evaluating(self.module), torch.no_grad():
            embedding, labels = gathered(self.module.model(clips).embedding), gathered(labels)
        loss = self.config.loss
        terms = triplet_terms(embedding, labels, loss.margin, loss.distance)
        people, each = self.config.batch.people, self.config.batch.sequences
        triplets = people * each * each * (people - 1) * each
        distance = pairwise_distance(embedding, loss.distance).mean(0)  # (n, n)
        same = labels[:, None] == labels[None, :]
        pair = ~torch.eye(len(labels), dtype=torch.bool, device=same.device)
        return {
            "violated": float(terms.violated.float().mean()) / triplets,
            "ap": float(distance[same & pair].mean()),
            "an": float(distance[~same].mean()),
        }

    def pictures(self, batch: LabelledBatch) -> dict[str, np.ndarray]:
        """The first clip as the model gets it."""
        return {"clip": side_by_side(self._inputs(batch)[0][0, :_SHOWN])}

    def measure(self) -> dict[str, Any]:
        """Nothing besides the scores."""
        return {}

    def evaluate(self) -> dict[str, float]:
        """Scores of the embeddings on the test split, by the distance trained with; nothing where there is none."""
        protocol, rows, metric = self.config.run.protocol, self.held_out, self.config.loss.distance
        features = extract_shared(self.average.network, self.store, rows, self.device)
        if features is None:
            return {}
        return headline_metrics(evaluate_store(features, self.store, rows, protocol, metric, self.device))

    def about(self, origin: Origin) -> dict[str, Any]:
        """What the scores are scores of."""
        what = compared(self.store, self.held_out, self.config.run.protocol)
        return about(what, origin, "embeddings", self.config.loss.distance)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Backbone and head, averaged where there is an average."""
        model = cast(GaitModel, self.average.network)
        return {"backbone": model.backbone.state_dict(), "head": model.head.state_dict(), **self.average.raw()}

    def load(self, checkpoint: Path) -> None:
        """Inverse of ``tensors``."""
        for stem in ("backbone", "head"):
            load_into(getattr(self.average.network, stem), read_tensors(checkpoint, stem), str(checkpoint))
        self.average.load_raw(checkpoint)

    def model_document(self) -> Mapping[str, Any]:
        """The model, for ``load_checkpoint``."""
        return self.document

    def _inputs(self, batch: LabelledBatch) -> tuple[Tensor, Tensor]:
        arrays = (batch.clips, prepare(batch.plan, *batch.clips.shape[2:]), batch.labels)
        frames, plan, labels = send(arrays, self.device)
        clips = augment(frames.float().div_(255), plan)
        labels = labels.clone()  # small, where it was sent with all the clips
        return (crop_sides(clips) if self.store.width == self.store.height else clips), labels


def _begun(config: FinetuneConfig) -> tuple[None, ModelConfig] | None:
    """The model of a run that has a checkpoint of its own, and needs none to start from."""
    if not list_checkpoints(Path(config.out)):
        return None
    recipe = read_model_document(latest_checkpoint(Path(config.out)))
    return None, ModelConfig(recipe["model"], recipe["preset"], recipe["config"])


def starting_point(config: FinetuneConfig) -> tuple[Path | None, ModelConfig]:
    """The checkpoint to start from, None from scratch, and the model.

    Raises:
        UserError: mode, init and model contradict each other, or the model is not named anywhere.
    """
    if not config.model.name and config.model != ModelConfig():
        raise UserError("model.preset and model.overrides need model.name: name the model, or leave out --model")
    if config.mode == "scratch":
        if config.init:
            raise UserError("mode is scratch, but init names a checkpoint: leave out one of them")
        if not config.model.name:
            raise UserError("mode is scratch, but model.name is not set: name the model to train, such as smplgait")
        return None, config.model
    if not config.init:
        raise UserError(
            f"mode is {config.mode}, but init names no checkpoint: set --init to a run of gaitdiff pretrain"
        )
    return find_start(config.init, config.model)


def cross_entropy_weight(config: LossConfig, choice: ModelConfig) -> float:
    """The weight of the cross-entropy: as set, or the paper's for the model.

    Raises:
        UserError: it is set for a model that never classifies.
    """
    with torch.device("meta"):
        head = create_model(choice.name, choice.preset, num_classes=1, **choice.overrides).head
    if config.cross_entropy is None:
        return head.cross_entropy
    if config.cross_entropy > 0 and head.num_classes == 0:
        raise UserError(
            f"{choice.name} has no classifier, but loss.cross_entropy is {config.cross_entropy:g}: leave it out, it "
            "learns from the triplet loss alone"
        )
    return config.cross_entropy


def labelled_rows(store: SequenceStore, data: FinetuneData, seed: int) -> np.ndarray:
    """Row numbers of the training split, or of ``data.people`` of its identities, drawn by the seed.

    Raises:
        UserError: there are not as many, or see ``training_rows``.
    """
    rows = training_rows(store, data.min_frames)
    told = np.array([row for row in rows if store.rows[row].subject != NAMELESS], dtype=np.int64)
    if len(told) < len(rows):
        say(
            f"{len(rows) - len(told)} sequences of {store.path} are of {NAMELESS!r}, people whose names are not told: "
            "they are left out",
        )
        rows = told
    subjects = sorted({store.rows[row].subject for row in rows})
    if data.people == 0:
        return rows
    if data.people > len(subjects):
        raise UserError(f"{store.path} has {len(subjects)} training people, fewer than data.people = {data.people}")
    chosen = set(np.random.default_rng([seed, 40]).choice(subjects, data.people, replace=False))
    return np.array([row for row in rows if store.rows[row].subject in chosen])


def _by_depth(config: FinetuneConfig, model: GaitModel) -> list[dict[str, Any]]:
    """Groups of the backbone's parameters with their learning rates: one alone, or one a block."""
    optim, blocks = config.optim, model.backbone.blocks()
    if optim.freeze_blocks >= len(blocks):
        raise UserError(
            f"optim.freeze_blocks is {optim.freeze_blocks}, but the backbone has {len(blocks)} blocks: set fewer, or "
            "--mode frozen to train the head alone"
        )
    rate = optim.lr * optim.backbone_lr_ratio
    if optim.layer_decay == 1.0 and optim.freeze_blocks == 0:
        return [{"params": list(model.backbone.parameters()), "lr": rate}]
    for block in blocks[: optim.freeze_blocks]:
        for parameter in block:
            parameter.requires_grad_(False)
    depths = range(len(blocks) - 1, -1, -1)  # blocks above
    groups = [
        {"params": block, "lr": rate * optim.layer_decay**above} for block, above in zip(blocks, depths, strict=True)
    ]
    return groups[optim.freeze_blocks :]


def _optimizer(config: FinetuneConfig, model: GaitModel, device: torch.device) -> torch.optim.Optimizer:
    optim = config.optim
    groups: list[dict[str, Any]] = [{"params": list(model.head.parameters()), "lr": optim.lr}]
    if config.mode == "scratch":
        groups.append({"params": list(model.backbone.parameters()), "lr": optim.lr})
    elif config.mode == "finetune":
        groups += _by_depth(config, model)
    if optim.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=optim.momentum, weight_decay=optim.weight_decay, fused=fused(device))
    kind = torch.optim.Adam if optim.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, weight_decay=optim.weight_decay, fused=fused(device))
