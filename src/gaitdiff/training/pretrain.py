"""Stage 1: a backbone learns from unlabelled walks by guiding a latent video-diffusion denoiser."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gaitdiff.config.schema import DiffusionConfig, ModelConfig, PretrainConfig
from gaitdiff.data.augment import AugmentPlan, augment
from gaitdiff.data.batches import PretrainBatch, PretrainBatches, training_rows
from gaitdiff.data.clips import crop_sides
from gaitdiff.data.store import SequenceStore
from gaitdiff.diffusion.autoencoder import Autoencoder, load_autoencoder
from gaitdiff.diffusion.denoiser import Denoiser
from gaitdiff.diffusion.objective import ConditionPooling, DiffusionObjective, Noised, pair_distances
from gaitdiff.diffusion.schedule import NoiseSchedule, make_schedule
from gaitdiff.diffusion.start import SCHEDULE_OF_STARTS, list_starts, shipped_start, start_from, without_condition
from gaitdiff.errors import UserError
from gaitdiff.evaluation.about import Origin, about, compared
from gaitdiff.evaluation.features import evaluate_store, store_protocol
from gaitdiff.evaluation.held_out import to_score
from gaitdiff.evaluation.linear import discriminant, whitening
from gaitdiff.evaluation.scoring import headline_metrics
from gaitdiff.evaluation.shards import extract_shared
from gaitdiff.models import Backbone, create_model
from gaitdiff.models.layers.norm import synchronize
from gaitdiff.training.checkpoint import load_into, model_document
from gaitdiff.training.checkpoint_files import latest_checkpoint, list_checkpoints, read_tensors, tensor_file
from gaitdiff.training.device import make_accelerator, require_memory, seeded
from gaitdiff.training.loggers import side_by_side
from gaitdiff.training.loop import train
from gaitdiff.training.run_folder import RunFolder, provenance, read_config
from gaitdiff.training.together import peers_told

_PARTS = ("backbone", "denoiser", "pooling")  # what a checkpoint of stage 1 holds
_FITTED = 512  # training walks that whitening and the linear probe are learned from
_UNTRAINED = 10**9  # a step whose batch no run comes to
#: Logarithms of the signal-to-noise ratios at which the condition gap is measured.
GAP_LEVELS = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0)
_NOISE = 10  # the stream of random numbers that noise and noise levels come from


def pretrain(config: PretrainConfig) -> Path:
    """Pretrain a backbone; continues a run that was stopped.

    Returns:
        The run folder. Its checkpoints hold ``backbone.safetensors``, which ``finetune`` starts from.

    Raises:
        UserError: anything about data, settings or machine that the user can fix.
    """
    accelerator = make_accelerator(config.machine)
    stage = PretrainStage(config, accelerator.device, accelerator.num_processes)
    with peers_told(accelerator.num_processes):
        with accelerator.main_process_first():
            folder = RunFolder.open("pretrain", stage.config, stage.provenance, write=accelerator.is_main_process)
        with folder:
            train(stage, folder, config.run, accelerator)
    return folder.path


class PretrainStage:
    """What the training loop needs of stage 1."""

    def __init__(self, config: PretrainConfig, device: torch.device, world_size: int) -> None:
        self.device, self.store = device, SequenceStore(config.data.store)
        rows = training_rows(self.store, config.data.min_frames)
        scored = to_score(self.store, config.run.protocol)
        self.held_out, self.validates, self.unscored = scored.rows, scored.validates, scored.unscored
        self.fitted = rows[np.linspace(0, len(rows) - 1, min(len(rows), _FITTED)).round().astype(int)]
        protocol = store_protocol(self.store, config.run.protocol).name
        self.config = config = replace(config, run=replace(config.run, protocol=protocol))
        self.provenance = provenance(self.store.header.manifest_sha256, rows, world_size)
        optim = config.optim
        self.iterations, self.clip_grad = optim.iterations, optim.clip_grad
        frames = f"--data.latent_frames {config.data.latent_frames} --data.gait_frames {config.data.gait_frames}"
        self.size = f"--optim.batch {optim.batch} {frames}"
        each = config.data.latent_frames + config.data.gait_frames
        require_memory(optim.batch * each * self.store.height * self.store.width, self.size)
        with seeded(config.seed):
            model = create_model(config.model.name, config.model.preset, **config.model.overrides)
            self.module = build_objective(model.backbone, config.diffusion)
            if config.diffusion.start and not list_checkpoints(Path(config.out)):
                _start(self.module.denoiser, config.diffusion.start, config.diffusion.schedule)
            if optim.sync_batchnorm and world_size > 1:
                synchronize(self.module, device)
            self.autoencoder: Autoencoder = load_autoencoder(config.diffusion.autoencoder, device)
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
        )
        self.graphed = config.machine.cuda_graph and device.type == "cuda" and world_size == 1
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            [
                {"params": [*_trained(self.module.denoiser), *_trained(self.module.pooling)], "lr": optim.lr},
                {
                    "params": _trained(self.module.backbone),
                    "lr": optim.lr * optim.backbone_lr_ratio,
                    "eps": optim.backbone_eps,
                },
            ],
            weight_decay=optim.weight_decay,
            fused=device.type == "cuda" or None,
        )

    def make_batch(self, step: int, rank: int) -> PretrainBatch:
        """Clips of a step, in host memory."""
        return self.batches(step, rank)

    def inputs(self, batch: PretrainBatch, step: int, rank: int) -> tuple[Tensor, Tensor, Noised]:
        """Latent clips, gait clips, and the noise of this step."""
        latents, gait = self._inputs(batch)
        return latents, gait, self._noised(latents, step, rank)

    def lr_factors(self, step: int) -> tuple[float, float]:
        """Linear warm-up, then cosine annealing to zero; the backbone's besides as ``hold_backbone`` says."""
        warmup, hold = min(self.config.optim.warmup, self.iterations // 2), self.config.optim.hold_backbone
        factor = (
            (step + 1) / warmup
            if step < warmup
            else 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, self.iterations - warmup)))
        )
        return factor, factor * (min(max(step + 1 - hold, 0) / hold, 1.0) if hold else 1.0)

    def diagnostics(self, batch: PretrainBatch, step: int, rank: int) -> dict[str, float]:
        """The condition gap, and the distances of anchor-positive and anchor-negative pairs."""
        module = self.module
        latents, gait, noised = self.inputs(batch, step, rank)
        owner = torch.from_numpy(batch.sequence).to(self.device)
        values = module.condition_gap(latents, gait, noised, owner)
        other = crop_sides(self._augmented(batch.latent, batch.latent_plan))
        module.eval()
        with torch.no_grad():
            values |= pair_distances(module.backbone(gait), module.backbone(other), owner)
        module.train()
        return values

    def pictures(self, batch: PretrainBatch) -> dict[str, np.ndarray]:
        """The first clip as the autoencoder gets it, and what it decodes of it."""
        clip = self._augmented(batch.latent, batch.latent_plan)[:1]
        decoded = self.autoencoder.decode(self.autoencoder.encode(clip))
        return {"clip": side_by_side(clip[0]), "decoded": side_by_side(decoded[0])}

    def measure(self) -> dict[str, Any]:
        """The condition gap by noise level, on a batch that is not trained on."""
        batch = self.make_batch(_UNTRAINED, 0)
        latents, gait = self._inputs(batch)
        noise = self._noised(latents, _UNTRAINED, 0).noise
        owner = torch.from_numpy(batch.sequence).to(self.device)
        return {"gap_by_noise": self.module.gap_by_noise(latents, gait, noise, owner, GAP_LEVELS)}

    def evaluate(self) -> dict[str, float]:
        """Scores of the raw gait features on the test split; nothing where there is none.

        By both distances as they are; by cosine whitened, which is learned from unlabelled training walks; and where
        ``run.linear_probe`` asks for it by the best linear map, which is learned from labelled ones.
        """
        rows = self.held_out
        if len(rows) == 0:
            return {}
        together = np.concatenate([rows, self.fitted])
        features = extract_shared(self.module.backbone, self.store, together, self.device)
        if features is None:
            return {}
        raw, learned = features[: len(rows)], features[len(rows) :]
        kinds = {"cosine": (raw, "cosine"), "euclidean": (raw, "euclidean")}
        kinds["whitened"] = (whitening(learned)(raw), "cosine")
        if self.config.run.linear_probe:
            people = [self.store.rows[int(row)].subject for row in self.fitted]
            kinds["linear"] = (discriminant(learned, people)(raw), "cosine")
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
        """Backbone, denoiser, and the condition's running statistics."""
        return {stem: getattr(self.module, stem).state_dict() for stem in _PARTS}

    def load(self, checkpoint: Path) -> None:
        """Inverse of ``tensors``."""
        for stem in _PARTS:
            load_into(getattr(self.module, stem), read_tensors(checkpoint, stem), str(checkpoint))

    def model_document(self) -> Mapping[str, Any]:
        """The model whose backbone this is."""
        model = self.config.model
        return model_document(model.name, model.preset, 0, model.overrides, height=self.store.height)

    def _augmented(self, clips: np.ndarray, plan: AugmentPlan) -> Tensor:
        frames = torch.from_numpy(clips).to(self.device, non_blocking=True).float().div_(255)
        return augment(frames, plan)

    def _inputs(self, batch: PretrainBatch) -> tuple[Tensor, Tensor]:
        """Latents (B, 4, T, 8, 8) of the latent clips, and gait clips (B, T', 64, 44)."""
        latent = self._augmented(batch.latent, batch.latent_plan)
        gait = latent if self.config.data.same_clip else self._augmented(batch.gait, batch.gait_plan)
        # On an accelerator, looking at values would make every step wait for it.
        return self.autoencoder.encode(latent, check_values=self.device.type == "cpu"), crop_sides(gait)

    def _noised(self, latents: Tensor, step: int, rank: int) -> Noised:
        seed = np.random.SeedSequence([self.config.seed, step, rank, _NOISE]).generate_state(1, np.uint64)[0]
        generator = torch.Generator(latents.device).manual_seed(int(seed >> np.uint64(1)))
        return self.module.draw(latents, generator)


def _start(denoiser: nn.Module, source: str, schedule: str) -> None:
    """Let a denoiser start from one that ships, or from a run's of the same schedule."""
    if source in list_starts() and not Path(source).exists():
        return start_from(denoiser, shipped_start(source), source)
    checkpoint = latest_checkpoint(Path(source))
    if not tensor_file(checkpoint, "denoiser").is_file():
        raise UserError(f"diffusion.start is {source}, which holds no denoiser: give a run of pretraining")
    run = checkpoint.parents[1]  # of a checkpoint that was copied away, nobody knows it
    before = read_config(run)["diffusion"]["schedule"] if (run / "config.yaml").is_file() else schedule
    if before != schedule:
        raise UserError(
            f"diffusion.start is {source}, whose denoiser has learned the schedule {before}, not {schedule}: give one "
            "that has learned the same"
        )
    start_from(denoiser, without_condition(read_tensors(checkpoint, "denoiser")), source)


def build_objective(backbone: Backbone, diffusion: DiffusionConfig) -> DiffusionObjective:
    """A backbone with a pooling and a denoiser made for it."""
    pooling = ConditionPooling(
        diffusion.pooling, backbone.channels, backbone.parts, diffusion.normalize_condition, diffusion.projector
    )
    return DiffusionObjective(
        backbone,
        pooling,
        Denoiser.preset(diffusion.denoiser, pooling.width),
        make_schedule(diffusion.schedule),
        diffusion.weighting,
        diffusion.gamma,
        diffusion.p_uncond,
        diffusion.frames_apart,
        diffusion.log_snr,
        diffusion.contrast,
        _counting(diffusion),
    )


def _counting(diffusion: DiffusionConfig) -> NoiseSchedule | None:
    """The schedule of a denoiser that ships, where the run has another one."""
    ships = diffusion.start in list_starts() and not Path(diffusion.start).exists()
    return make_schedule(SCHEDULE_OF_STARTS) if ships and diffusion.schedule != SCHEDULE_OF_STARTS else None


def load_objective(run: Path, device: torch.device) -> DiffusionObjective:
    """What a pretraining run has learned, in evaluation mode.

    Raises:
        UserError: the run has no checkpoint, or one that is corrupt.
    """
    checkpoint, config = latest_checkpoint(run), read_config(run)
    model = ModelConfig(**config["model"])
    backbone = create_model(model.name, model.preset, **model.overrides).backbone
    objective = build_objective(backbone, DiffusionConfig(**config["diffusion"]))
    for stem in _PARTS:
        load_into(getattr(objective, stem), read_tensors(checkpoint, stem), str(checkpoint))
    return objective.eval().to(device)


def _trained(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]
