"""What a run is: typed frozen dataclasses, which the command line turns into recipes (YAML) and flags."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from gaitdiff.config.limits import Count, CountOrNone, Decay, NotNegative, Positive, Share
from gaitdiff.config.shared import NO_AUGMENT as NO_AUGMENT
from gaitdiff.config.shared import AugmentConfig as AugmentConfig
from gaitdiff.config.shared import MachineConfig as MachineConfig
from gaitdiff.config.shared import ModelConfig as ModelConfig
from gaitdiff.config.shared import RunConfig as RunConfig
from gaitdiff.errors import UserError

__all__ = [
    "AugmentConfig",
    "BatchConfig",
    "ContrastiveConfig",
    "DiffusionConfig",
    "FinetuneConfig",
    "FinetuneData",
    "FinetuneOptim",
    "LossConfig",
    "MachineConfig",
    "ModelConfig",
    "PretrainConfig",
    "PretrainData",
    "PretrainOptim",
    "RunConfig",
]


@dataclass(frozen=True)
class PretrainData:
    """Unlabelled sequences and the two clips drawn from each.

    Attributes:
        store: folder of a sequence store.
        latent_frames: consecutive frames that are encoded, noised and denoised (s_e).
        gait_frames: frames that the backbone sees (s_g), of each clip; of no effect with ``same_clip``.
        same_clip: one clip for both, s_e = s_g, with which learning collapses in the paper (Fig. 5).
        min_frames: leave out training sequences with fewer frames.
    """

    store: str
    latent_frames: Count = 30
    gait_frames: Count = 30
    same_clip: bool = False
    min_frames: Count = 2


@dataclass(frozen=True)
class DiffusionConfig:
    """The denoiser and its objective.

    Attributes:
        autoencoder: "student" (ships with the package), "taesd", a local path or a hub id.
        denoiser: "small", "base" (the paper's default) or "large": its 3.7, 11.6 and 40.2 M parameters; or "walkers", a
            narrow one for CPUs, "walkers-small" and "walkers-large" with half and twice its channels.
        start: where the denoiser starts, without the condition that guided it: "walkers", which ships for the denoiser
            of this name, or a run of pretraining; "" starts from nothing, as in the paper.
        freeze_start: train of the denoiser only what the condition meets.
        schedule: "inverted-cosine" or "cosine".
        weighting: "mnp", "min-snr", "uniform", "v" or "pdae".
        gamma: the γ of the weightings.
        pooling: from gait feature to condition: "mean", "max", "mean+max" or "all-parts".
        normalize_condition: batch-normalise the condition.
        p_uncond: share of samples trained without a condition.
        projector: hidden units of a perceptron between the pooled feature and the condition; 0 is none, as in the
            paper. What is scored and transferred is before it.
        frames_apart: denoise each latent frame by itself, at its own noise level.
        log_snr: mean and standard deviation of the normal distribution that logarithms of signal-to-noise ratios are
            drawn from; null draws each of the schedule's levels alike.
        contrast: weight of a term that rewards being denoised worse with another sequence's condition; 0 leaves it out,
            as in the paper.
    """

    autoencoder: str = "student"
    denoiser: str = "base"
    start: str = ""
    freeze_start: bool = False
    schedule: str = "inverted-cosine"
    weighting: str = "mnp"
    gamma: Positive = 5.0
    pooling: str = "mean"
    normalize_condition: bool = False
    p_uncond: Share = 0.15
    projector: CountOrNone = 0
    frames_apart: bool = False
    log_snr: tuple[float, float] | None = None
    contrast: NotNegative = 0.0


@dataclass(frozen=True)
class ContrastiveConfig:
    """Contrastive learning from two clips of each sequence; of no effect with the objective "diffusion".

    Attributes:
        temperature: of the similarities in InfoNCE.
        projector: hidden units of a perceptron for each part; 0 is none. What is scored and transferred is before it.
        weight: of this loss beside the denoiser's, with "both".
    """

    temperature: Positive = 0.07
    projector: CountOrNone = 0
    weight: Positive = 1.0


@dataclass(frozen=True)
class PretrainOptim:
    """AdamW with linear warm-up and cosine annealing.

    Attributes:
        iterations: training steps.
        batch: sequences a step, which all processes of a run share.
        accumulate: micro-batches of a step, one after the other. Their gradients are averaged.
        lr: learning rate of the denoiser, and of contrastive.projector.
        backbone_lr_ratio: the backbone's learning rate is this times ``lr``.
        backbone_eps: AdamW's ε for the backbone: gradients much smaller than it make steps as small as they are.
        warmup: steps of linear warm-up, at most half of all.
        hold_backbone: steps for which the backbone waits until the denoiser has learned to listen; its learning rate
            then grows over as many steps again. Of no effect without a denoiser.
        gap_full: condition gap, as a share of the loss, at which the backbone has its full learning rate; below, it
            has as much less. 0 ties it to nothing. Looked at as often as metrics are written.
        weight_decay: AdamW's.
        clip_grad: largest gradient norm; 0 does not clip.
        ema: decay of the backbone's moving average; 0 is none. The average is exponential, and what is scored and
            transferred.
    """

    iterations: Count = 120_000
    batch: Count = 64
    accumulate: Count = 1
    lr: Positive = 1e-4
    backbone_lr_ratio: Positive = 5.0
    backbone_eps: Positive = 1e-8
    warmup: CountOrNone = 1000
    hold_backbone: CountOrNone = 0
    gap_full: float = 0.0
    weight_decay: NotNegative = 0.01
    clip_grad: NotNegative = 1.0
    ema: Decay = 0.0


@dataclass(frozen=True)
class PretrainConfig:
    """Stage 1: learn a backbone from unlabelled sequences by guiding a denoiser.

    Attributes:
        out: run folder; the same command continues a run that was stopped.
        objective: "diffusion" (guide a denoiser), "contrastive" (tell sequences apart by two clips of each) or "both".
            With "contrastive", diffusion.* is of no effect.
        init: run or checkpoint whose weights to start from; such as RUN/best, with a fresh optimiser, or weights that
            ship, of which there is the backbone alone; "" starts from nothing.
        seed: of weights, batches, augmentations and noise.
    """

    out: str
    data: PretrainData
    model: ModelConfig = field(default_factory=lambda: ModelConfig(name="smplgait"))
    diffusion: DiffusionConfig = DiffusionConfig()
    objective: Literal["diffusion", "contrastive", "both"] = "diffusion"
    init: str = ""
    contrastive: ContrastiveConfig = ContrastiveConfig()
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: PretrainOptim = PretrainOptim()
    run: RunConfig = field(default_factory=RunConfig)
    machine: MachineConfig = field(default_factory=MachineConfig)
    seed: CountOrNone = 0


@dataclass(frozen=True)
class FinetuneData:
    """Labelled sequences.

    Attributes:
        store: folder of a sequence store.
        frames: frames of a training clip.
        frames_max: draw the number of frames of each step from ``frames`` to this; 0 keeps it at ``frames``.
        min_frames: leave out training sequences with fewer frames.
        people: learn from this many identities, drawn by the seed; 0 takes all.
    """

    store: str
    frames: Count = 30
    frames_max: CountOrNone = 0
    min_frames: Count = 2
    people: CountOrNone = 0


@dataclass(frozen=True)
class BatchConfig:
    """Sequences of a step, P x K.

    Attributes:
        people: identities of a step.
        sequences: sequences of each identity.
    """

    people: Count = 32
    sequences: Count = 4


@dataclass(frozen=True)
class LossConfig:
    """Triplet and cross-entropy.

    Attributes:
        distance: of the triplet loss: "cosine" (the paper's) or "euclidean" (the field's reference).
        margin: of the triplet loss.
        cross_entropy: weight of the cross-entropy; 0 leaves it out, null takes the paper's for the model: 0.1 with BN
            necks (SMPLGait w/o 3D, GaitBase, DeepGaitV2), 0 for the others.
        scale: of the logits.
        smoothing: of the labels.
    """

    distance: Literal["cosine", "euclidean"] = "cosine"
    margin: NotNegative = 0.2
    cross_entropy: NotNegative | None = None
    scale: Positive = 16.0
    smoothing: Share = 0.1


@dataclass(frozen=True)
class FinetuneOptim:
    """Optimiser with a learning rate that falls tenfold at each milestone.

    Attributes:
        iterations: training steps.
        optimizer: "sgd", "adam" or "adamw".
        lr: learning rate of the head.
        backbone_lr_ratio: r, the backbone's learning rate is this times ``lr``; from scratch it is 1.
        layer_decay: in fine-tuning, each block of the backbone (a convolution and its norm) learns at this times the
            rate of the next one; the last one at r.
        freeze_blocks: in fine-tuning, so many of the backbone's first blocks keep their weights, 1 being the stem.
        milestones: steps at which the learning rate falls, ascending.
        momentum: of "sgd".
        weight_decay: of any.
        clip_grad: largest gradient norm; 0 does not clip.
        ema: decay of a moving average of all weights; 0 is none. The average is exponential, and what is scored and
            transferred.
    """

    iterations: Count = 60_000
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: Positive = 0.1
    backbone_lr_ratio: Positive = 0.1
    layer_decay: Positive = 1.0
    freeze_blocks: CountOrNone = 0
    milestones: tuple[int, ...] = (20_000, 40_000, 50_000)
    momentum: NotNegative = 0.9
    weight_decay: NotNegative = 5e-4
    clip_grad: NotNegative = 0.0
    ema: Decay = 0.0

    def __post_init__(self) -> None:
        steps = list(self.milestones)
        if steps != sorted(set(steps)) or (steps and steps[0] < 1):
            raise UserError(
                f"optim.milestones cannot be {steps}: it must be steps of at least 1, each above the last one"
            )


@dataclass(frozen=True)
class FinetuneConfig:
    """Stage 2: recognition with labels, from a pretrained backbone or from scratch.

    Attributes:
        out: run folder; the same command continues a run that was stopped.
        mode: "finetune" (all is trained, the backbone at optim.backbone_lr_ratio), "frozen" (the head alone) or
            "scratch" (from fresh weights).
        init: run folder or checkpoint whose backbone to start from, or weights that ship, such as "walkers".
        seed: of weights, batches and augmentations.
    """

    out: str
    data: FinetuneData
    mode: Literal["finetune", "frozen", "scratch"] = "finetune"
    init: str = ""
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = LossConfig()
    augment: AugmentConfig = NO_AUGMENT
    batch: BatchConfig = BatchConfig()
    optim: FinetuneOptim = FinetuneOptim()
    run: RunConfig = field(default_factory=RunConfig)
    machine: MachineConfig = field(default_factory=MachineConfig)
    seed: CountOrNone = 0
