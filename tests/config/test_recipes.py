"""Every recipe resolves to the settings that it had when its runs were made; settings made in Python are checked."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gaitdiff.config.flat import flat
from gaitdiff.config.recipe import list_recipes, parse_config
from gaitdiff.config.schema import (
    FinetuneConfig,
    FinetuneData,
    FinetuneOptim,
    LossConfig,
    ModelConfig,
    PretrainConfig,
    PretrainOptim,
)
from gaitdiff.config.values import checked
from gaitdiff.errors import UserError
from gaitdiff.training.finetune import finetune
from gaitdiff.training.pretrain import pretrain
from reference import RECORDED

#: All settings of every recipe at commit 979b9ce, with its stage; walkers/pretrain_plain was called pretrain then.
BEFORE: dict[str, dict[str, Any]] = json.loads((RECORDED / "recipes.json").read_text())
#: What settings are that came later; and the protocol, which has since been that of the store's data set.
SINCE = {
    **{"run.track": "none", "run.linear_probe": False, "run.change": False, "run.best": "rank1"},
    **{"run.protocol": "auto", "machine.cuda_graph": True, "machine.compile": False},
    **{"optim.ema": 0.0, "run.patience": 0},
}
SINCE_FINETUNING = {"optim.layer_decay": 1.0, "optim.freeze_blocks": 0}
RENAMED = {"diffusion.drop": "diffusion.p_uncond"}
#: What only stage 1 has.
SINCE_PRETRAINING = {
    **{"diffusion.projector": 0, "diffusion.frames_apart": False, "diffusion.log_snr": None},
    **{"diffusion.contrast": 0.0, "diffusion.start": "", "diffusion.freeze_start": False},
    **{"optim.hold_backbone": 0, "optim.backbone_eps": 1e-8},
    **{"objective": "diffusion", "contrastive.temperature": 0.07, "contrastive.projector": 0},
    **{"contrastive.weight": 1.0, "optim.accumulate": 1, "init": ""},
}


def test_no_recipe_is_gone() -> None:
    assert set(BEFORE) <= set(list_recipes())


@pytest.mark.parametrize("name", BEFORE)
def test_a_recipe_means_what_it_meant(name: str) -> None:
    settings = dict(BEFORE[name])
    kind: type[Any] = {"pretrain": PretrainConfig, "finetune": FinetuneConfig}[settings.pop("stage")]
    config = parse_config(kind, "gaitdiff", ["--recipe", name, "--data.store", "store", "--out", "out"])
    resolved = dict(flat(json.loads(json.dumps(asdict(config)))))
    since = {**SINCE, **(SINCE_PRETRAINING if kind is PretrainConfig else SINCE_FINETUNING)}
    before = {RENAMED.get(name, name): value for name, value in flat(settings)}
    assert resolved == {**before, **since}


@pytest.mark.parametrize("name", BEFORE)
def test_a_configuration_made_in_python_is_checked_and_stays_what_it_is(name: str) -> None:
    kind: type[Any] = {"pretrain": PretrainConfig, "finetune": FinetuneConfig}[BEFORE[name]["stage"]]
    config = parse_config(kind, "gaitdiff", ["--recipe", name, "--data.store", "store", "--out", "out"])
    assert checked(kind, config) == config
    assert checked(kind, replace(config, out=Path("out"), seed=np.int64(config.seed))) == config
    for value in (np.array([4, 8]), (4, np.int64(8)), range(4, 9, 4)):
        made = checked(kind, replace(config, model=replace(config.model, overrides={"channels": value})))
        assert made.model.overrides == {"channels": [4, 8]}


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"mode": "forzen"}, "setting mode cannot be 'forzen': it must be finetune, frozen or scratch"),
        ({"seed": -1}, "setting seed cannot be -1"),
        ({"seed": True}, "setting seed cannot be True"),
        ({"optim": FinetuneOptim(lr=math.nan)}, "setting optim.lr cannot be nan"),
        ({"optim": PretrainOptim()}, "give a FinetuneOptim, not PretrainOptim"),
        ({"loss": LossConfig(margin=-2.0)}, "setting loss.margin cannot be -2.0"),
        ({"loss": LossConfig(margin=np.array([1.0, 2.0]))}, r"setting loss.margin cannot be \[1.0, 2.0\]"),
        ({"model": ModelConfig("smplgait", "tiny", {"parts": {1}})}, r"setting model.overrides cannot be \{1\}"),
    ],
)
def test_mistakes_in_a_configuration_made_in_python(changed: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    config = FinetuneConfig(out=str(tmp_path / "out"), data=FinetuneData(store="store"))
    with pytest.raises(UserError, match=sentence):
        finetune(replace(config, **changed))
    with pytest.raises(UserError, match="give a PretrainConfig, not FinetuneConfig"):
        pretrain(config)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
