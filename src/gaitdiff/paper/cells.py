"""What the tables and figures are made of: runs of both stages, and which of them each table or figure shows.

A run that two of them show is one run: Table III's first row is a cell of Table I, with the ratio of learning rates
that Table III has, and Figure 4 is drawn from Table I's runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gaitdiff.paper import facts
from gaitdiff.paper.facts import Kind

#: "paper": as printed. "walkers": on synthetic people, sized for a CPU.
Scale = Literal["paper", "walkers"]

#: Scale walkers: iterations of both stages are the paper's divided by this.
SHRINK = 250
#: Scale walkers: preset of the people that stand for a data set, and the seed that they are drawn by.
PEOPLE = {"gait3d": ("market", 3000), "grew": ("wild", 4000)}
TRAIN_PEOPLE, TEST_PEOPLE, SEQUENCES = 350, 100, 6
_PROTOCOL = "leave-one-out"
_EVALUATIONS = {"pretrain": 6, "finetune": 4}  # of a run of scale walkers
_AUGMENTED = {"affine": 0.2, "perspective": 0.2, "flip": 0.5, "dilate": 0.2, "blur": 0.2}
_BARE = dict.fromkeys(_AUGMENTED, 0)

#: Scale walkers: what each row of Table III changes in the recipe walkers/pretrain, whose condition has all parts, and
#: whose rates are equal where the paper's are five to one. Denoisers of other sizes start from nothing, since none of
#: their size ships.
_LEVERS: dict[str, dict[str, Any]] = {
    "default": {},
    "uniform": {"diffusion.weighting": "uniform"},
    "cosine-uniform": {"diffusion.schedule": "cosine", "diffusion.weighting": "uniform"},
    "cosine-min-snr": {"diffusion.schedule": "cosine", "diffusion.weighting": "min-snr"},
    "max": {"diffusion.pooling": "max"},
    "mean-max": {"diffusion.pooling": "mean+max"},
    "not-augmented": {"augment": _BARE},
    "denoiser-small": {"diffusion.denoiser": "walkers-small", "diffusion.start": ""},
    "denoiser-large": {"diffusion.denoiser": "walkers-large", "diffusion.start": ""},
    "rates-1": {"optim.backbone_lr_ratio": 0.2},
    "rates-2": {"optim.backbone_lr_ratio": 0.4},
    "drop-0": {"diffusion.p_uncond": 0},
    "drop-50": {"diffusion.p_uncond": 0.5},
    "same-clip": {"data.same_clip": True},
    # Not rows of the table, but what two of its claims compare with at this scale.
    "mean": {"diffusion.pooling": "mean"},
    "from-nothing": {"diffusion.start": ""},
}
#: Scale walkers: rows beside those of Table III, with what they are for.
BESIDES = {"mean": "to compare max and mean + max with", "from-nothing": "to compare the denoisers' sizes with"}


@dataclass(frozen=True)
class Run:
    """A run of one stage.

    Attributes:
        name: of its folder, without the seed.
        stage: "pretrain" or "finetune".
        data: "gait3d" or "grew".
        recipe: that it begins with.
        settings: on top of the recipe, by dotted name.
        start: the pretraining that it starts from.
        levers: settings, or groups of them, by which it differs from other runs.
    """

    name: str
    stage: Literal["pretrain", "finetune"]
    data: str
    recipe: str
    settings: Mapping[str, Any]
    start: Run | None = None
    levers: tuple[str, ...] = ()

    def __hash__(self) -> int:
        return hash(self.name)

    def flags(self) -> list[str]:
        """Recipe and settings as a command line has them."""
        words = ["--recipe", self.recipe]
        for key, value in self.settings.items():
            words += [f"--{key}", value if isinstance(value, str) else json.dumps(value)]
        return words

    def chain(self) -> Iterator[Run]:
        """The run that it starts from, if any, and itself."""
        if self.start is not None:
            yield self.start
        yield self


@dataclass(frozen=True)
class Cell:
    """A number of a table, or a curve of a figure.

    Attributes:
        run: whose score or metrics it is.
        printed: rank-1 in the paper, None where it has none.
        beside: the cell's run that its difference is told from.
        printed_beside: rank-1 of that in the paper.
    """

    run: Run
    printed: float | None = None
    beside: Run | None = None
    printed_beside: float | None = None

    @property
    def name(self) -> str:
        """As ``--only`` takes it."""
        return self.run.name


def pretraining(scale: Scale, data: str, model: str, lever: str = "default") -> Run:
    """A run of stage 1, as Table I has it or with another setting of Table III, or with ``"same-clip"``."""
    levers = _LEVERS[lever]
    if scale == "walkers":
        iterations = facts.PRETRAINING * 1000 // SHRINK
        recipe, settings = "walkers/pretrain", {**_walkers("pretrain", iterations), **_model(model), **levers}
    else:
        ablations = {row.name: row.recipe for row in facts.TABLE3} | {"same-clip": "ablations/same_clip"}
        recipe, settings = f"{data}/pretrain_{model}" if lever == "default" else ablations[lever], {}
    name = f"pretrain-{data}-{model}" + ("" if lever == "default" else f"-{lever}")
    return Run(name, "pretrain", data, recipe, settings, None, tuple(levers))


def supervised(
    scale: Scale,
    kind: Kind,
    data: str,
    model: str,
    augmented: bool = False,
    lever: str = "default",
    thousands: int = 0,
) -> Run:
    """A run of stage 2, or from scratch.

    Args:
        lever: of the pretraining that it starts from.
        thousands: iterations at the paper's scale, where they are not Table I's.
    """
    usual = facts.supervised(kind, data, model, augmented)
    words = [kind, data, model, *(["augmented"] if augmented else []), *([lever] if lever != "default" else [])]
    name = "-".join([*words, *([f"{thousands}k"] if thousands else [])])
    iterations = (thousands or usual) * 1000
    settings: dict[str, Any] = {}
    if scale == "walkers":
        iterations //= SHRINK
        recipe = "walkers/scratch" if kind == "scratch" else "walkers/finetune"
        settings = {**_walkers("finetune", iterations), "optim.milestones": [iterations * 5 // 6]}
        settings |= _model(model) if kind == "scratch" else {}
    else:
        recipe = f"{data}/{'scratch' if kind == 'scratch' else 'finetune'}_{model}"
        settings = _paper_settings(kind, data, model, iterations)
    if kind == "frozen":
        settings["mode"] = "frozen"
    if augmented:
        settings["augment"] = _AUGMENTED
    start = None if kind == "scratch" else pretraining(scale, data, model, lever)
    levers = ("mode", "augment", *(("optim.iterations",) if thousands else ()))
    return Run(name, "finetune", data, recipe, settings, start, levers)


def _paper_settings(kind: Kind, data: str, model: str, iterations: int) -> dict[str, Any]:
    """What a cell has that its recipe has not: other iterations, and of frozen backbones the baseline's decay."""
    settings: dict[str, Any] = {}
    usual = facts.supervised(kind, data, model, False) * 1000
    if iterations != usual:  # milestones at the same shares of it
        base = {90_000: (30, 60, 75), 125_000: (40, 80, 100)}[usual]
        settings["optim.iterations"] = iterations
        settings["optim.milestones"] = [round(step * 1000 * iterations / usual) for step in base]
    if kind == "frozen" and data == "grew" and model in ("gaitgl", "gaitset", "smplgait"):
        settings["optim.weight_decay"] = 0  # the small decay is of fine-tuning alone
    return settings


def _walkers(stage: str, iterations: int) -> dict[str, Any]:
    return {
        "optim.iterations": iterations,
        "run.protocol": _PROTOCOL,
        "run.evaluate_every": iterations // _EVALUATIONS[stage],
        "run.save_every": max(iterations // 6, 1),
        "run.keep": 1,
    }


def _model(model: str) -> dict[str, Any]:
    return {"model.name": model, "model.preset": "walkers"}


def table1(scale: Scale) -> list[Cell]:
    """Table I: block by block, model by model, on both data sets, without and with augmentation."""
    cells = []
    for kind in facts.BLOCKS:
        for model in facts.MODELS:
            for data in facts.DATA:
                for augmented in (False, True):
                    if (data, model) in facts.GAPS:
                        continue
                    printed = facts.TABLE1[kind, data, model].of(augmented)
                    fresh = supervised(scale, "scratch", data, model, augmented)
                    run = supervised(scale, kind, data, model, augmented)
                    if kind == "scratch":
                        cells.append(Cell(run, printed))
                    else:
                        cells.append(Cell(run, printed, fresh, facts.TABLE1["scratch", data, model].of(augmented)))
    return cells


def table2(scale: Scale) -> list[Cell]:
    """Table II: on GREW, fine-tuned for fewer iterations, beside Table I's baselines."""
    cells = []
    for model, pair in facts.TABLE2.items():
        for augmented in (False, True):
            fresh = supervised(scale, "scratch", "grew", model, augmented)
            run = supervised(scale, "finetuned", "grew", model, augmented, thousands=facts.TABLE2_ITERATIONS)
            cells.append(
                Cell(run, pair.of(augmented), fresh, facts.TABLE1["scratch", "grew", model].of(augmented)),
            )
    return cells


def table3(scale: Scale) -> list[Cell]:
    """Table III: one row a setting of pretraining, beside the default; at scale walkers ``BESIDES`` after them.

    At scale walkers max and mean + max stand beside the mean, and the denoisers' sizes beside one from nothing.
    """

    def tuned(lever: str) -> Run:
        return supervised(scale, "finetuned", "gait3d", "smplgait", lever=lever)

    other = {"max": "mean", "mean-max": "mean", "denoiser-small": "from-nothing", "denoiser-large": "from-nothing"}
    cells = []
    for row in facts.TABLE3:
        beside = tuned(other.get(row.name, "default") if scale == "walkers" else "default")
        usual = facts.TABLE3[0].rank1
        cells.append(Cell(tuned(row.name), row.rank1, *(() if row.name == "default" else (beside, usual))))
    more = BESIDES if scale == "walkers" else ()
    return cells + [Cell(tuned(name), None, tuned("default")) for name in more]


def fig2(scale: Scale) -> list[Cell]:
    """Figure 2: rank-1 of GaitSet's raw features during pretraining, on both data sets."""
    return [Cell(pretraining(scale, data, "gaitset")) for data in facts.DATA]


def fig3(scale: Scale) -> list[Cell]:
    """Figure 3: distances of pairs during pretraining; the paper draws GaitSet, here are all backbones."""
    return [
        Cell(pretraining(scale, data, model))
        for data in facts.DATA
        for model in facts.MODELS
        if (data, model) not in facts.GAPS
    ]


def fig4(scale: Scale) -> list[Cell]:
    """Figure 4: rank-1 over supervised iterations on Gait3D, without augmentation, from scratch and fine-tuned."""
    kinds: Sequence[Kind] = ("scratch", "finetuned")
    return [Cell(supervised(scale, kind, "gait3d", model)) for model in facts.MODELS for kind in kinds]


def fig5(scale: Scale) -> list[Cell]:
    """Figure 5: rank-1 of raw features during pretraining, with two clips and with one for both networks."""
    return [Cell(pretraining(scale, "gait3d", "smplgait", lever)) for lever in ("default", "same-clip")]


#: Tables and figures by name.
EXPERIMENTS: dict[str, Callable[[Scale], list[Cell]]] = {
    "table1": table1,
    "table2": table2,
    "table3": table3,
    "fig2": fig2,
    "fig3": fig3,
    "fig4": fig4,
    "fig5": fig5,
}


def runs_of(cells: Sequence[Cell]) -> list[Run]:
    """All runs that cells need, each once, pretraining before what starts from it."""
    found: dict[str, Run] = {}
    for cell in cells:
        for run in (*cell.run.chain(), *(cell.beside.chain() if cell.beside else ())):
            found.setdefault(run.name, run)
    return list(found.values())
