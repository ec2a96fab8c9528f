"""Resolved configurations in words: the commands that repeat runs, and how two runs differ."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from typing import Any

from gaitdiff.config.flat import flat, plain
from gaitdiff.config.recipe_files import OF_A_RUN
from gaitdiff.config.schema import FinetuneConfig, FinetuneData, PretrainConfig, PretrainData
from gaitdiff.config.values import flag_of

_LEAVES = ("model.overrides",)  # a mapping that is one setting


def command(config: dict[str, Any]) -> list[str]:
    """The command of a run of ``gaitdiff pretrain`` or ``finetune``: every setting that is not the default.

    Args:
        config: what its config.yaml holds.

    Returns:
        The verb and the flags, each with its value; joined by spaces they are the command.
    """
    stage = config["stage"]
    defaults = PretrainConfig("", PretrainData("")) if stage == "pretrain" else FinetuneConfig("", FinetuneData(""))
    usual = dict(flat(plain(asdict(defaults)), _LEAVES))
    flags = [
        f"{flag_of(key)} {shlex.quote(value if isinstance(value, str) else json.dumps(value))}"
        for key, value in flat({key: value for key, value in config.items() if key not in OF_A_RUN}, _LEAVES)
        if usual.get(key) != value
    ]
    return [f"gaitdiff {stage}", *flags]


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Settings that two supervised runs do not share, each as ``key: value, value``.

    Where a backbone starts (mode, init, the model's name) and where a run was made is left aside. From scratch, the
    backbone learns at the head's rate, whatever the configuration says.
    """
    aside = ("out", "mode", "init", "model", "machine", *OF_A_RUN)
    first, second = (
        dict(flat(config, _LEAVES)) | ({"optim.backbone_lr_ratio": 1.0} if config.get("mode") == "scratch" else {})
        for config in (one, other)
    )
    return [
        f"{key}: {first.get(key)}, {second.get(key)}"
        for key in sorted(first.keys() | second.keys())
        if key.split(".")[0] not in aside and first.get(key) != second.get(key)
    ]
