"""Stage 1: a backbone learns from unlabelled walks, by guiding a latent video-diffusion denoiser or by contrast."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gaitdiff.config.schema import DiffusionConfig, ModelConfig, PretrainConfig, PretrainOptim
from gaitdiff.config.values import checked, known
from gaitdiff.data.batches import PretrainBatch, PretrainBatches, training_rows
from gaitdiff.data.store import SequenceStore
from gaitdiff.diffusion.objective import DiffusionObjective
from gaitdiff.errors import UserError
from gaitdiff.evaluation.about import Origin, about, compared
from gaitdiff.evaluation.held_out import to_score
from gaitdiff.evaluation.linear import discriminant, whitening
from gaitdiff.evaluation.scoring import headline_metrics
from gaitdiff.evaluation.shards import extract_shared
from gaitdiff.evaluation.stored import evaluate_store
from gaitdiff.models import create_model
from gaitdiff.models.layers.norm import synchronize
from gaitdiff.training.average import RAW, Average
from gaitdiff.training.best import LABEL_FREE, check_best
from gaitdiff.training.checkpoint import load_into, model_document, read_checkpoint_info
from gaitdiff.training.checkpoint_files import latest_checkpoint, list_checkpoints, read_tensors, tensor_file
from gaitdiff.training.device import computes, make_accelerator, require_memory, seeded
from gaitdiff.training.environment import Start
from gaitdiff.training.graph import Inputs
from gaitdiff.training.loop import train
from gaitdiff.training.pretexts import UNTRAINED, build_objective, clip_frames, make_pretext
from gaitdiff.training.run_folder import RunFolder, provenance, read_config
from gaitdiff.training.starting import find_start, load_parts
from gaitdiff.training.step import fused
from gaitdiff.training.together import peers_told
from gaitdiff.utils.shares import require_shares

__all__ = ["build_objective", "load_objective", "pretrain"]

#: Features that are scored: as they are by two distances, whitened, and by the best linear map where that is asked for.
_KINDS, _PROBE = ("cosine", "euclidean", "whitened"), "linear"
_FITTED = 512  # training walks that whitening and the linear probe are learned from


def pretrain(config: PretrainConfig) -> Path:
    """Pretrain a backbone; continues a run that was stopped.

    Returns:
        The run folder. Its checkpoints hold ``backbone.safetensors``, which ``finetune`` starts from.

    Raises:
        UserError: anything about data, settings or machine that the user can fix.
    """
    config = checked(PretrainConfig, config)
    accelerator = make_accelerator(config.machine)
    stage = PretrainStage(config, accelerator.device, accelerator.num_processes)
    with peers_told(accelerator.num_processes):
        with accelerator.main_process_first():
            main, device = accelerator.is_main_process, computes(accelerator)
            folder = RunFolder.open("pretrain", stage.config, stage.provenance, main, device=device)
        with folder:
            train(stage, folder, config.run, accelerator)
    return folder.path


class PretrainStage:
    """What the training loop needs of stage 1."""

    measures = True

    def __init__(self, config: PretrainConfig, device: torch.device, world_size: int) -> None:
        self.device, self.store = device, SequenceStore(config.data.store)
        self.rows = rows = training_rows(self.store, config.data.min_frames)
        scored = to_score(self.store, config.run.protocol)
        self.held_out, self.validates, self.unscored = scored.rows, scored.validates, scored.unscored
        check_best(config.run, self.validates, kinds=_KINDS + ((_PROBE,) if config.run.linear_probe else ()))
        self.fitted = rows[np.linspace(0, len(rows) - 1, min(len(rows), _FITTED)).round().astype(int)]
        self.config = config = replace(config, run=replace(config.run, protocol=scored.protocol))
        self.provenance = provenance(self.store.header.manifest_sha256, rows)
        optim = config.optim
        require_shares(optim.batch, f"optim.batch {optim.batch}", world_size)
        self.iterations, self.clip_grad, self.accumulate = optim.iterations, optim.clip_grad, optim.accumulate
        _check_micro_batches(optim, world_size)
        frames = clip_frames(config)
        told = " ".join(f"--data.{name} {count}" for name, count in dict(frames).items())
        self.size = f"--optim.batch {optim.batch} {told}"
        each = sum(count for _, count in frames)
        require_memory(optim.batch * each * self.store.height * self.store.width, self.size)
        with seeded(config.seed):
            model = create_model(config.model.name, config.model.preset, **config.model.overrides)
            self.pretext = make_pretext(config, model.backbone, device)
            self.module = self.pretext.module
            self.start: Start | None = None
            if config.init and not list_checkpoints(Path(config.out)):
                checkpoint, _ = find_start(config.init, config.model)
                read_checkpoint_info(checkpoint).require_height(self.store)
                self.start = Start.of(checkpoint)
                load_parts(checkpoint, self.pretext.parts())
            if world_size > 1:
                synchronize(self.module, device)
        self.batches = PretrainBatches(
            self.store,
            rows,
            batch=optim.batch,
            latent_frames=config.data.latent_frames,
            gait_frames=config.data.gait_frames,
            sampling=model.backbone.sampling,
            augment=config.augment,
            same_clip=config.data.same_clip,
            seed=config.seed,
            world_size=world_size,
            objective=config.objective,
        )
        self.graphed = config.machine.cuda_graph and device.type == "cuda" and world_size == 1
        self.compiled: Sequence[nn.Module] = self.pretext.networks() if config.machine.compile else []
        backbone, *others = self.pretext.parts().values()
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            [
                {"params": [one for part in others for one in _trained(part)], "lr": optim.lr},
                {
                    "params": _trained(backbone),
                    "lr": optim.lr * optim.backbone_lr_ratio,
                    "eps": optim.backbone_eps,
                },
            ],
            weight_decay=optim.weight_decay,
            fused=fused(device),
        )
        self.ema, self.average = optim.ema, Average(backbone, optim.ema, device)
        self.model_document()  # what no checkpoint can keep is refused before the first step
        self.caution = _caution(config)

    def make_batch(self, step: int, rank: int) -> PretrainBatch:
        """Clips of a step, in host memory."""
        return self.batches(step, rank)

    def inputs(self, batch: PretrainBatch, step: int, rank: int) -> Inputs:
        """What the objective takes."""
        return self.pretext.inputs(batch, step, rank)

    def lr_factors(self, step: int) -> tuple[float, float]:
        """Linear warm-up, then cosine annealing to zero; the backbone's besides as ``hold_backbone`` says."""
        warmup = min(self.config.optim.warmup, self.iterations // 2)
        hold = 0 if self.config.objective == "contrastive" else self.config.optim.hold_backbone
        factor = (
            (step + 1) / warmup
            if step < warmup
            else 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, self.iterations - warmup)))
        )
        return factor, factor * (min(max(step + 1 - hold, 0) / hold, 1.0) if hold else 1.0)

    def diagnostics(self, batch: PretrainBatch, inputs: Inputs) -> dict[str, float]:
        """Distances of anchor-positive and anchor-negative pairs, and what the objective watches."""
        return self.pretext.diagnostics(batch, inputs)

    def pictures(self, batch: PretrainBatch) -> dict[str, np.ndarray]:
        """The first sequence as the objective gets it."""
        return self.pretext.pictures(batch)

    def measure(self) -> dict[str, Any]:
        """On a batch that is not trained on what the objective measures, and AN and AP of what is kept."""
        batch = self.batches(UNTRAINED)
        pairs = self.pretext.distances(batch, self.average.network)
        return {**self.pretext.measure(batch), "pairs": {**pairs, LABEL_FREE: pairs["an"] - pairs["ap"]}}

    def evaluate(self) -> dict[str, float]:
        """Scores of the raw gait features on the test split; nothing where there is none.

        By both distances as they are; by cosine whitened, which is learned from unlabelled training walks; and where
        ``run.linear_probe`` asks for it by the best linear map, which is learned from labelled ones.
        """
        rows = self.held_out
        if len(rows) == 0:
            return {}
        together = np.concatenate([rows, self.fitted])
        features = extract_shared(self.average.network, self.store, together, self.device)
        if features is None:
            return {}
        raw, learned = features[: len(rows)], features[len(rows) :]
        scored = ((raw, "cosine"), (raw, "euclidean"), (whitening(learned)(raw), "cosine"))
        kinds = dict(zip(_KINDS, scored, strict=True))
        if self.config.run.linear_probe:
            people = [self.store.rows[int(row)].subject for row in self.fitted]
            kinds[_PROBE] = (discriminant(learned, people)(raw), "cosine")
        scores: dict[str, float] = {}
        for kind, (some, metric) in kinds.items():
            found = evaluate_store(some, self.store, rows, self.config.run.protocol, metric, self.device)
            for name, value in headline_metrics(found).items():
                scores[name if name == "probes" else f"{name}_{kind}"] = value
        return scores

    def about(self, origin: Origin) -> dict[str, Any]:
        """What the scores are scores of."""
        what = compared(self.store, self.held_out, self.config.run.protocol)
        return about(what, origin, "raw features", ["cosine", "euclidean"])

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Backbone, averaged where there is an average, and what stands behind it."""
        kept = {**self.pretext.parts(), "backbone": self.average.network}
        return {**{stem: part.state_dict() for stem, part in kept.items()}, **self.average.raw()}

    def load(self, checkpoint: Path) -> None:
        """Inverse of ``tensors``."""
        for stem, part in {**self.pretext.parts(), "backbone": self.average.network}.items():
            load_into(part, read_tensors(checkpoint, stem), str(checkpoint))
        self.average.load_raw(checkpoint)

    def model_document(self) -> Mapping[str, Any]:
        """The model whose backbone this is."""
        model = self.config.model
        return model_document(model.name, model.preset, 0, model.overrides, height=self.store.height, ema=self.ema)


def load_objective(run: str | Path, device: str | torch.device) -> DiffusionObjective:
    """What a pretraining run has learned, in evaluation mode; the backbone as its denoiser knows it, not averaged.

    Raises:
        UserError: it is no run of pretraining, has no checkpoint, or one that is corrupt, it has settings of a later
            version, or it learned without a denoiser.
    """
    run = Path(run)
    checkpoint, config = latest_checkpoint(run), read_config(run)
    if config["stage"] != "pretrain":
        raise UserError(f"{run} is a run of gaitdiff {config['stage']}: give one of gaitdiff pretrain, with a denoiser")
    if config["objective"] == "contrastive":
        raise UserError(f"{run} learned by contrast alone (objective contrastive), so it has no denoiser")
    file = run / "config.yaml"
    model = known(ModelConfig, config["model"], f"{file}: model")
    backbone = create_model(model.name, model.preset, **model.overrides).backbone
    objective = build_objective(backbone, known(DiffusionConfig, config["diffusion"], f"{file}: diffusion"))
    trained = RAW if tensor_file(checkpoint, RAW).is_file() else "backbone"
    for name, stem in (("backbone", trained), ("denoiser", "denoiser"), ("pooling", "pooling")):
        load_into(getattr(objective, name), read_tensors(checkpoint, stem), str(checkpoint))
    return objective.eval().to(device)


def _caution(config: PretrainConfig) -> str:
    """A sentence where the backbone waits for so long that it learns little or nothing."""
    hold, iterations = config.optim.hold_backbone, config.optim.iterations
    if config.objective == "contrastive" or 2 * hold <= iterations:
        return ""
    learns = f"learns for {iterations - hold} iterations, slowly" if hold < iterations else "never learns"
    return (
        f"the backbone {learns}: it waits for optim.hold_backbone {hold} of optim.iterations {iterations}; make the "
        "first smaller or the second larger"
    )


def _check_micro_batches(optim: PretrainOptim, world_size: int) -> None:
    share = optim.batch // world_size
    if optim.accumulate > 1 and (share % optim.accumulate or optim.batch < 2 * optim.accumulate):
        if world_size > 1:
            raise UserError(
                f"optim.accumulate is {optim.accumulate}, but each of {world_size} processes has {share} sequences of "
                f"optim.batch {optim.batch}, which cannot be split into so many micro-batches of one size: choose "
                "another one"
            )
        raise UserError(
            f"optim.accumulate is {optim.accumulate}, but optim.batch {optim.batch} cannot be split into so many "
            "micro-batches of one size, at least 2 sequences each: choose another one"
        )


def _trained(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]
