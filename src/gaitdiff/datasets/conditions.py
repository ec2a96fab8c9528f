"""Which types of sequence are probes and which the gallery, protocol by protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gaitdiff.errors import UserError, nearest


@dataclass(frozen=True)
class Condition:
    """One row of a protocol's table.

    Attributes:
        name: "NM" for a normal walk, "BG" with a bag, …
        probe, gallery: types of sequence.
        contains: a type counts where it contains one of these words, not only where it is one.
    """

    name: str
    probe: tuple[str, ...]
    gallery: tuple[str, ...]
    contains: bool = False


_CASIA_B_GALLERY = ("nm-01", "nm-02", "nm-03", "nm-04")
_CASIA_B_ALL = ("nm-02", "bg-02", "cl-02")
_OUMVLP = (Condition("NM", ("00",), ("01",)),)

#: Protocol → setting → conditions.
CONDITIONS: dict[str, dict[str, tuple[Condition, ...]]] = {
    "casia-b": {
        "single-view": (
            Condition("NM", ("nm-05", "nm-06"), _CASIA_B_GALLERY),
            Condition("BG", ("bg-01", "bg-02"), _CASIA_B_GALLERY),
            Condition("CL", ("cl-01", "cl-02"), _CASIA_B_GALLERY),
        ),
        "cross-view": (
            Condition("NM", ("nm-01",), _CASIA_B_ALL),
            Condition("BG", ("bg-01",), _CASIA_B_ALL),
            Condition("CL", ("cl-01",), _CASIA_B_ALL),
        ),
    },
    "oumvlp": {"single-view": _OUMVLP, "cross-view": _OUMVLP},
    "sustech1k": {
        "single-view": tuple(
            Condition(name, probe, ("00-nm",), contains=True)
            for name, probe in (
                ("Normal", ("01-nm",)),
                ("Bag", ("bg",)),
                ("Clothing", ("cl",)),
                ("Carrying", ("cr",)),
                ("Umberalla", ("ub",)),  # the field's spelling, which its tables use
                ("Uniform", ("uf",)),
                ("Occlusion", ("oc",)),
                ("Night", ("nt",)),
                ("Overall", ("01", "02", "03", "04")),
            )
        )
    },
    "ccpg": {
        "": (
            Condition("CL", ("U0_D0_BG", "U0_D0"), ("U1_D1", "U2_D2", "U3_D3")),
            Condition("UP", ("U3_D3",), ("U0_D3",)),
            Condition("DN", ("U1_D0",), ("U1_D1",)),
            Condition("BG", ("U0_D0_BG",), ("U0_D0",)),
        )
    },
    "grew": {"": (Condition("local", ("02",), ("01",)),)},
}


def setting_name(setting: str) -> str:
    """A setting as the table writes it."""
    return str(setting).lower().replace("_", "-")


def conditions_of(protocol: str, setting: str | None = None) -> tuple[Condition, ...]:
    """The conditions of a protocol; of its first setting by default.

    Raises:
        UserError: the protocol has no such setting.
    """
    settings = CONDITIONS[protocol]
    if setting is None:
        return next(iter(settings.values()))
    name = setting_name(setting)
    if not name or name not in settings:
        known = ", ".join(filter(None, settings)) or "none"
        raise UserError(f"protocol {protocol!r} has no setting {setting!r}{nearest(name, settings)}; known: {known}")
    return settings[name]


def split(condition: Condition, types: np.ndarray, protocol: str) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of a condition's probes and gallery, ascending.

    Raises:
        UserError: one of the two is empty; the sentence says which types were looked for, and which are there.
    """
    rows = []
    for what, wanted in (("probes", condition.probe), ("gallery", condition.gallery)):
        chosen = np.flatnonzero(_selected(types, wanted, condition.contains))
        if len(chosen) == 0:
            how = "types that contain" if condition.contains else "the types"
            raise UserError(
                f"protocol {protocol!r} finds no {what} for {condition.name}: it looks for {how} "
                f"{_listed(wanted)} but the types here are {_listed(sorted(set(types.tolist())))}"
            )
        rows.append(chosen)
    return rows[0], rows[1]


def _selected(types: np.ndarray, wanted: tuple[str, ...], contains: bool) -> np.ndarray:
    if contains:
        return np.array([any(word in kind for word in wanted) for kind in types], bool)
    return np.isin(types, wanted)


def _listed(words: Sequence[str], most: int = 12) -> str:
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return (", ".join(repr(word) for word in words[:most]) or "none") + more
