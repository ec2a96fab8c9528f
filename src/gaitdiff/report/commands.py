"""Resolved configurations in words: the commands that repeat runs, and how two runs differ."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from typing import Any

from gaitdiff.config.flat import flat, plain
from gaitdiff.config.schema import FinetuneConfig, FinetuneData, PretrainConfig, PretrainData

_LEAVES = ("model.overrides",)  # a mapping that is one setting
_NO_SETTINGS = ("stage", "made_from", "made_with")  # what config.yaml holds besides settings


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
        f"--{key} {shlex.quote(value if isinstance(value, str) else json.dumps(value))}"
        for key, value in flat({key: value for key, value in config.items() if key not in _NO_SETTINGS}, _LEAVES)
        if usual.get(key) != value
    ]
    return [f"gaitdiff {stage}", *flags]


def differences(finetuned: dict[str, Any], scratch: dict[str, Any]) -> list[str]:
    """Settings that a fine-tuned and a from-scratch run do not share, each as ``key: value, value``.

    What makes them what they are (mode, starting point, the model's name) and where they ran is left aside. From
    scratch, the backbone learns at the head's rate, whatever its configuration says.
    """
    one = dict(flat(finetuned, _LEAVES))
    other = dict(flat(scratch, _LEAVES)) | {"optim.backbone_lr_ratio": 1.0}
    aside = ("out", "mode", "init", "model", "machine", "made_from", "made_with")
    return [
        f"{key}: {one.get(key)}, {other.get(key)}"
        for key in sorted(one.keys() | other.keys())
        if key.split(".")[0] not in aside and one.get(key) != other.get(key)
    ]
