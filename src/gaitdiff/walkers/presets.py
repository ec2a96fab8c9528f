"""Settings of the generator: where cameras stand, who passes them how often, and how much goes wrong."""

from __future__ import annotations

from dataclasses import dataclass

from gaitdiff.errors import UserError, nearest

Range = tuple[float, float]


@dataclass(frozen=True)
class Preset:
    """One setting of the generator; angles are degrees, distances metres."""

    name: str
    cameras: int  # number of places from which people are seen
    yaw_spread: float  # cameras stand within this angle of a side view; 90 is all round
    pitch: Range  # from above
    distance: Range
    height: tuple[int, int]  # of a person in the camera's picture, pixels
    strength: float  # 0..1: how often people carry or hold things and how often and badly segmentation fails
    passed: int = 0  # cameras that a person passes, again and again in the same order; 0 is all
    length_spread: float = 0.0  # standard deviation of the logarithm of a sequence's length
    corner: float = 0.0  # standard deviation of the angle by which people turn a corner on the way; 0 is nobody does
    distractors: float = 0.0  # people with one sequence alone in the gallery, as a share of the test people


_PRESETS = (
    Preset("lite", cameras=16, yaw_spread=40, pitch=(0, 15), distance=(4, 12), height=(64, 120), strength=0.6),
    Preset("wild", cameras=32, yaw_spread=90, pitch=(0, 20), distance=(4, 12), height=(70, 190), strength=1.0),
    # As in a shop that people cross on some ways of their own: the same few cameras see them again and again, and
    # they turn around shelves.
    Preset(
        "market",
        cameras=32,
        yaw_spread=90,
        pitch=(0, 20),
        distance=(4, 12),
        height=(70, 190),
        strength=1.0,
        passed=3,
        length_spread=0.4,
        corner=60,
        distractors=0.5,
    ),
)


def list_presets() -> list[str]:
    """Return the names of the presets."""
    return [preset.name for preset in _PRESETS]


def get_preset(name: str) -> Preset:
    """Return the preset called ``name``.

    Raises:
        UserError: there is no such preset.
    """
    for preset in _PRESETS:
        if preset.name == name:
            return preset
    known = ", ".join(list_presets())
    raise UserError(f"there is no walkers preset {name!r}{nearest(name, list_presets())}; presets: {known}")
