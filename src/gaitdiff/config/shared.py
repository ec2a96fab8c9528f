"""Settings that both stages have; see ``gaitdiff.config.schema``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from gaitdiff.config.limits import Count, CountOrNone, Share, Threads

#: To compute in; "auto" is bfloat16 where the device is fast at it, see ``gaitdiff.utils.precision``.
Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class AugmentConfig:
    """Probability of each augmentation, a sequence.

    Attributes:
        affine: three corner points, source and target, each moved inwards by 0..9 px of 64.
        perspective: the four corners' x moved inwards by 0..9 px of 64.
        flip: left and right exchanged.
        dilate: dilation of a band of rows by a 3x3, 3x5, 5x3 or 5x5 rectangle, cross or ellipse.
        blur: 3x3 Gaussian on a band of rows, then a threshold at 0.2.
    """

    affine: Share = 0.2
    perspective: Share = 0.2
    flip: Share = 0.5
    dilate: Share = 0.2
    blur: Share = 0.2


#: No augmentation at all.
NO_AUGMENT = AugmentConfig(0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class ModelConfig:
    """Which gait model.

    Attributes:
        name: one that ``gaitdiff models`` lists; "" takes the model of the checkpoint that a run starts from.
        preset: whose published configuration, or "walkers" for the narrow one for CPUs.
        overrides: fields of the model's configuration to change.
    """

    name: str = ""
    preset: str = "gait3d"
    overrides: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunConfig:
    """How often a run says, measures and saves.

    Attributes:
        log_every: steps between lines of metrics.jsonl.
        evaluate_every: steps between evaluations, on validation people or else the test split; 0 evaluates never.
        save_every: steps between checkpoints; one is always written at the end.
        keep: number of checkpoints kept, the newest ones; 0 keeps all.
        protocol: evaluation protocol, such as "gait3d" (one probe a person), "leave-one-out" or "casia-b"; "auto" is
            that of the store's data set.
        best: the score by which RUN/best is kept: of validation people, or in pretraining "ap_an", which needs none.
            That is by how much clips of different sequences lie farther apart than clips of one, on a batch that is not
            trained on. "rank1" is that by cosine in pretraining. Scores are of no effect where ``gaitdiff data split``
            has set nobody aside.
        patience: evaluations without a better one that end a run; 0 is no end.
        change: go on with other settings than the run was begun with; what changes is said and kept in metrics.jsonl.
        track: where metrics and pictures go besides metrics.jsonl: "none", "tensorboard" or "trackio".
        linear_probe: in pretraining, score what the best linear map makes of the raw features too; it is learned from
            labelled training people, and nothing else learns from it.
    """

    log_every: Count = 50
    evaluate_every: CountOrNone = 1000
    save_every: Count = 1000
    keep: CountOrNone = 2
    protocol: str = "auto"
    best: str = "rank1"
    patience: CountOrNone = 0
    change: bool = False
    track: str = "none"
    linear_probe: bool = False


@dataclass(frozen=True)
class MachineConfig:
    """Where a run computes; a run may be continued under another setting.

    Attributes:
        device: "auto", "cpu", "cuda" or "mps".
        precision: "auto" (bfloat16 on a GPU, or on a CPU with AMX or AVX-512-BF16), "float32" or "bfloat16".
        threads: CPU threads of torch; 0 leaves torch's choice.
        cuda_graph: in pretraining on one GPU, record forward and backward once and replay them.
        compile: have torch.compile make kernels for the networks, which takes minutes first; they are computed as usual
            where it fails.
    """

    device: str = "auto"
    precision: Precision = "auto"
    threads: Threads = 0
    cuda_graph: bool = True
    compile: bool = False
