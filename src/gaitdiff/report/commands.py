"""Resolved configurations in words: the commands that repeat runs, and how two runs differ."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from gaitdiff.training.config import PretrainConfig, PretrainData, TransferConfig, TransferData
from gaitdiff.training.run import plain


def command(config: dict[str, Any]) -> list[str]:
    """The command of a run of ``gaitdiff pretrain`` or ``finetune``: every setting that is not the default.

    Args:
        config: what its config.yaml holds.

    Returns:
        The verb and the flags, each with its value; joined by spaces they are the command.
    """
    stage = config["stage"]
    defaults = PretrainConfig("", PretrainData("")) if stage == "pretrain" else TransferConfig("", TransferData(""))
    usual = dict(_flat(plain(asdict(defaults))))
    flags = [
        f"--{key} {shlex.quote(value if isinstance(value, str) else json.dumps(value))}"
        for key, value in _flat({key: value for key, value in config.items() if key != "stage"})
        if usual.get(key) != value
    ]
    return [f"gaitdiff {stage}", *flags]


def differences(finetuned: dict[str, Any], scratch: dict[str, Any]) -> list[str]:
    """Settings that a fine-tuned and a from-scratch run do not share, each as ``key: value, value``.

    What makes them what they are (mode, starting point, the model's name) and where they ran is left aside. From
    scratch, the backbone learns at the head's rate, whatever its configuration says.
    """
    one = dict(_flat(finetuned))
    other = dict(_flat(scratch)) | {"optim.backbone_lr_ratio": 1.0}
    aside = ("out", "mode", "init", "model", "machine")
    return [
        f"{key}: {one.get(key)}, {other.get(key)}"
        for key in sorted(one.keys() | other.keys())
        if key.split(".")[0] not in aside and one.get(key) != other.get(key)
    ]


def _flat(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, dict) and key != "overrides":
            yield from _flat(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item
