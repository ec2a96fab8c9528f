"""The sentence with which training is refused, that several tests read."""

from __future__ import annotations

from pathlib import Path

import pytest

from gaitdiff.config.recipe import parse_config
from gaitdiff.config.schema import FinetuneConfig, PretrainConfig
from gaitdiff.errors import UserError
from gaitdiff.training.finetune import finetune
from gaitdiff.training.pretrain import pretrain
from worlds import TINY_PRETRAIN, TINY_SCRATCH


def refused(stage: str, *flags: str | Path) -> str:
    """The sentence with which a run is refused."""
    words = [str(flag) for flag in flags]

    def run() -> None:
        if stage == "pretrain":
            pretrain(parse_config(PretrainConfig, "gaitdiff pretrain", [*TINY_PRETRAIN, *words]))
        else:
            finetune(parse_config(FinetuneConfig, "gaitdiff finetune", [*TINY_SCRATCH, *words]))

    with pytest.raises(UserError) as caught:
        run()
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence
