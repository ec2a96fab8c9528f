"""What the paper prints: the scores of Tables I to III, and with how many iterations they were reached.

Numbers are rank-1 in percent and thousands of iterations. None stands for what the paper leaves out, and for the cells
of the frozen block whose print is garbled (it repeats numbers of the block below it).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: How a supervised run starts: from fresh weights, or from pretraining with the backbone frozen or fine-tuned.
Kind = Literal["scratch", "frozen", "finetuned"]

#: Models and data sets by the names of recipes, as the paper writes and orders them.
MODELS = {
    "gaitgl": "GaitGL",
    "gaitpart": "GaitPart",
    "gaitset": "GaitSet",
    "smplgait": "SMPLGait w/o 3D",
    "gaitbase": "GaitBase",
}
DATA = {"gait3d": "Gait3D", "grew": "GREW"}
BLOCKS: dict[Kind, str] = {
    "scratch": "from scratch",
    "frozen": "pretrained, backbone frozen",
    "finetuned": "pretrained, fine-tuned",
}

#: Stage 1, thousands of iterations.
PRETRAINING = 120

#: Models that the paper has no numbers of on a data set: GaitPart was unstable on GREW with cosine distance.
GAPS = (("grew", "gaitpart"),)


@dataclass(frozen=True)
class Pair:
    """A number without and one with data augmentation in the supervised stage."""

    plain: float | None = None
    augmented: float | None = None

    def of(self, augmented: bool) -> float | None:
        """The one or the other."""
        return self.augmented if augmented else self.plain


#: Table I: rank-1 by block, data set and model.
TABLE1: dict[tuple[Kind, str, str], Pair] = {
    ("scratch", "gait3d", "gaitgl"): Pair(29.2, 32.4),
    ("scratch", "gait3d", "gaitpart"): Pair(31.2, 38.7),
    ("scratch", "gait3d", "gaitset"): Pair(42.2, 47.8),
    ("scratch", "gait3d", "smplgait"): Pair(45.5, 42.9),
    ("scratch", "gait3d", "gaitbase"): Pair(56.5, 65.8),
    ("scratch", "grew", "gaitgl"): Pair(54.0, 58.4),
    ("scratch", "grew", "gaitset"): Pair(48.1, 53.1),
    ("scratch", "grew", "smplgait"): Pair(47.6, 52.1),
    ("scratch", "grew", "gaitbase"): Pair(58.1, 61.8),
    ("frozen", "gait3d", "gaitgl"): Pair(17.0),
    ("frozen", "gait3d", "gaitpart"): Pair(18.8),
    ("frozen", "gait3d", "gaitset"): Pair(23.5),
    ("frozen", "gait3d", "smplgait"): Pair(30.7),
    ("frozen", "gait3d", "gaitbase"): Pair(35.0),
    ("frozen", "grew", "gaitgl"): Pair(32.2),
    ("frozen", "grew", "gaitset"): Pair(33.5),
    ("frozen", "grew", "smplgait"): Pair(36.0),
    ("frozen", "grew", "gaitbase"): Pair(40.5),
    ("finetuned", "gait3d", "gaitgl"): Pair(34.4, 34.4),
    ("finetuned", "gait3d", "gaitpart"): Pair(35.7, 41.7),
    ("finetuned", "gait3d", "gaitset"): Pair(45.0, 49.9),
    ("finetuned", "gait3d", "smplgait"): Pair(53.4, 60.7),
    ("finetuned", "gait3d", "gaitbase"): Pair(62.3, 69.7),
    ("finetuned", "grew", "gaitgl"): Pair(56.3, 58.6),
    ("finetuned", "grew", "gaitset"): Pair(52.0, 55.4),
    ("finetuned", "grew", "smplgait"): Pair(51.8, 54.1),
    ("finetuned", "grew", "gaitbase"): Pair(58.5, 62.0),
}

#: Table II: rank-1 on GREW, fine-tuned for fewer iterations.
TABLE2: dict[str, Pair] = {
    "gaitgl": Pair(54.3, 56.1),
    "gaitset": Pair(51.1, 53.3),
    "smplgait": Pair(50.3, 51.8),
}
TABLE2_ITERATIONS = 75


@dataclass(frozen=True)
class Ablation:
    """A row of Table III.

    Attributes:
        name: of the setting that differs from the default.
        recipe: of stage 1.
        columns: schedule, weighting, pooling, augmentation, denoiser, ratio of learning rates, P_uncond.
        rank1: after fine-tuning.
    """

    name: str
    recipe: str
    columns: tuple[str, ...]
    rank1: float


TABLE3_COLUMNS = ("schedule", "weighting", "pooling", "augmented", "denoiser", "rates", "P_uncond")
_DEFAULT = ("inverted cosine", "MNP", "mean", "yes", "11.6 M", "5", "0.15")


def _row(name: str, recipe: str, rank1: float, **other: str) -> Ablation:
    columns = (other.get(column, usual) for column, usual in zip(TABLE3_COLUMNS, _DEFAULT, strict=True))
    return Ablation(name, recipe, tuple(columns), rank1)


#: Table III: SMPLGait w/o 3D on Gait3D, fine-tuned without augmentation at a ratio of learning rates of 0.1.
TABLE3: tuple[Ablation, ...] = (
    _row("default", "gait3d/pretrain_smplgait", 49.1),
    _row("uniform", "ablations/uniform", 47.6, weighting="uniform"),
    _row("cosine-uniform", "ablations/cosine_uniform", 47.5, schedule="cosine", weighting="uniform"),
    _row("cosine-min-snr", "ablations/cosine_min_snr", 48.2, schedule="cosine", weighting="Min-SNR"),
    _row("max", "ablations/pool_max", 47.8, pooling="max"),
    _row("mean-max", "ablations/pool_mean_max", 47.4, pooling="mean + max"),
    _row("not-augmented", "ablations/no_augment", 44.6, augmented="no"),
    _row("denoiser-small", "ablations/denoiser_small", 47.5, denoiser="3.7 M"),
    _row("denoiser-large", "ablations/denoiser_large", 50.6, denoiser="40.2 M"),
    _row("rates-1", "ablations/lr_ratio_1", 45.9, rates="1"),
    _row("rates-2", "ablations/lr_ratio_2", 47.4, rates="2"),
    _row("drop-0", "ablations/drop_0", 47.2, P_uncond="0"),
    _row("drop-50", "ablations/drop_50", 47.7, P_uncond="0.5"),
)


def supervised(kind: Kind, data: str, model: str, augmented: bool) -> int:
    """Thousands of iterations of stage 2, or of training from scratch, in Table I."""
    base = model == "gaitbase"
    if kind == "scratch":
        return {"gait3d": 60 if base else 180, "grew": 180 if base else 250}[data]
    if data == "gait3d":
        return 60
    return 125 if not base else 120 if kind == "finetuned" and augmented else 90
