"""Settings of runs that were begun by earlier versions, as they are called now."""

from __future__ import annotations

from typing import Any

#: Settings that had another name, by group.
_RENAMED = {"diffusion": {"drop": "p_uncond"}}
#: Settings that there are no more, by group: BatchNorm is always over the samples of all processes.
_GONE = {"optim": ("sync_batchnorm",)}


def as_now(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a run, its settings called as they are now; the one given changes."""
    for group, names in _RENAMED.items():
        settings = config.get(group)
        for old, new in names.items():
            if isinstance(settings, dict) and old in settings:
                settings[new] = settings.pop(old)
    for group, gone in _GONE.items():
        settings = config.get(group)
        for name in gone:
            if isinstance(settings, dict):
                settings.pop(name, None)
    return config
