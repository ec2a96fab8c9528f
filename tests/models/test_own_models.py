"""Models that somebody else registers: settings of any kind, and mistakes that are likely."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gaitdiff.config.recipe import parse_config
from gaitdiff.config.schema import PretrainConfig
from gaitdiff.data.store import SequenceStore
from gaitdiff.errors import UserError
from gaitdiff.evaluation.features import extract
from gaitdiff.models import registry
from gaitdiff.models.base import Backbone, NoHead
from gaitdiff.models.registry import create_model, model_config, register_model
from gaitdiff.training.pretrain import pretrain
from worlds import make_store


@dataclass(frozen=True, slots=True)
class Inner:
    a: int = 1
    widths: tuple[int, ...] = (3, 4)


@dataclass(frozen=True)
class Config:
    width: int = 16
    blocks: int = 0
    axis: int = -1
    rate: float = 0.0
    pairs: tuple[tuple[int, int], ...] = ((1, 0), (2, 2))
    mixed: tuple[Any, ...] = (3, "relu")
    nothing: tuple[int, ...] = ()
    other: Any = None
    inner: Inner = Inner()
    listed: list[int] = field(default_factory=lambda: [1, 2])
    named: dict[str, int] = field(default_factory=lambda: {"x": 1})


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    register_model("own", presets={"tiny": Config()})(lambda config, classes: None)  # type: ignore[arg-type, return-value]
    return "own"


def test_a_checkpoint_reads_back_the_settings_it_wrote(own: str) -> None:
    written = json.loads(json.dumps(asdict(Config())))
    assert model_config(own, "tiny", written) == Config()


@pytest.mark.parametrize(
    ("setting", "value", "becomes"),
    [
        ("blocks", 2, 2),
        ("axis", -1, -1),
        ("rate", 1, 1.0),
        ("pairs", [[1, 3]], ((1, 3),)),
        ("mixed", [4, "gelu"], (4, "gelu")),
        ("nothing", [1, 2], (1, 2)),
        ("other", 3, 3),
        ("inner", {"a": 5, "widths": [7]}, Inner(5, (7,))),
        ("rate", np.float32(0.5), 0.5),
        ("listed", (3, 4), [3, 4]),
        ("named", {"x": 2}, {"x": 2}),
    ],
)
def test_settings_of_other_kinds(own: str, setting: str, value: Any, becomes: Any) -> None:
    assert getattr(model_config(own, "tiny", {setting: value}), setting) == becomes


@pytest.mark.parametrize(
    ("setting", "value", "sentence"),
    [
        ("width", 0, "must be positive, not 0"),
        ("blocks", -1, "must be at least 0, not -1"),
        ("rate", "high", "must be a number such as 0.0, not 'high'"),
        ("pairs", 3, "must be a list"),
        ("inner", {"nope": 1}, "own's inner has no setting 'nope'"),
        ("inner", {"a": "text"}, "own's inner's a must be a whole number, not 'text'"),
        ("named", [1], "must be a mapping such as"),
    ],
)
def test_settings_that_cannot_be(own: str, setting: str, value: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        model_config(own, "tiny", {setting: value})


class Ignores(Backbone):
    """One that packs, as it says by default, and does not look at the lengths."""

    sampling = "unordered"
    channels, parts = 1, 1

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, clip: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        return self.scale * clip.flatten(1).mean(1)[:, None, None]


def test_a_backbone_that_ignores_lengths_is_refused(tmp_path: Path) -> None:
    """Or all walks of a batch would have one feature, and false scores."""
    store = SequenceStore(make_store(tmp_path / "store"))
    with pytest.raises(UserError, match=r"a network gave 1 features for \d+ walks: have it use the lengths"):
        extract(Ignores(), store, store.select(split="test"), torch.device("cpu"))


def _forgets(config: Config, classes: int) -> Any:
    return None


def _is_wrong(config: Config, classes: int) -> Any:
    return Ignores("too many"), NoHead()  # type: ignore[call-arg]


def _typed(**attributes: Any) -> Any:
    made = type("Odd", (Ignores,), attributes)
    return lambda config, classes: (made(), NoHead())


@pytest.mark.parametrize(
    ("builder", "error", "sentence"),
    [
        (_forgets, UserError, "the builder of odd gave None: it must return a Backbone and a Head"),
        (_is_wrong, TypeError, "positional argument"),
        (_typed(sampling="random"), UserError, "the sampling 'random': it must be one of unordered, ordered, consec"),
        (_typed(parts=None), UserError, "does not say its number of parts"),
    ],
)
def test_mistakes_of_a_builder_are_named(own: str, builder: Any, error: type[Exception], sentence: str) -> None:
    register_model("odd", presets={"tiny": Config()})(builder)
    with pytest.raises(error, match=sentence):
        create_model("odd", "tiny")


class Act(Enum):
    RELU = "relu"


@dataclass(frozen=True)
class Odd:
    act: Act = Act.RELU


def test_settings_that_no_checkpoint_can_keep_are_refused_before_the_first_step(own: str, tmp_path: Path) -> None:
    register_model("odd", presets={"tiny": Odd()})(lambda config, classes: (Ignores(), NoHead()))
    words = ["--model", "odd", "--model.preset", "tiny", "--data", str(make_store(tmp_path / "store"))]
    config = parse_config(PretrainConfig, "pretrain", [*words, "--out", str(tmp_path / "run")])
    with pytest.raises(UserError, match=r"the settings of odd cannot be kept in a checkpoint \(Object of type Act"):
        pretrain(config)
    assert not (tmp_path / "run").exists()
