"""One walk of a person: manner, camera view, load, and the flaws of its segmentation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gaitdiff.walkers.camera import Camera, Corner, View, draw_view
from gaitdiff.walkers.draws import Stream, draw, half_normal, normal, stream, uniform
from gaitdiff.walkers.person import Hem, Vector
from gaitdiff.walkers.presets import Preset


@dataclass(frozen=True)
class Manner:
    """How this walk differs from the person's usual one."""

    pace: float = normal(1.0, 0.06, 0.8, 1.2)  # speed relative to the person's own
    cadence: float = normal(0.0, 0.02)  # relative change of the period at that pace
    drift: float = normal(0.0, 0.03, -0.08, 0.08)  # relative change of the step rate from first to last frame
    phase: float = uniform(0.0, 1.0)  # at the first frame, cycles
    jitter: float = half_normal(0.006)  # cycles a frame, a random walk
    turn: float = normal(0.0, 6.0, -20.0, 20.0)  # of the heading from first to last frame, degrees
    arm_gain: float = normal(1.0, 0.15, 0.4, 1.6)
    lean: float = normal(0.0, 1.5)  # degrees
    head_pitch: float = normal(0.0, 5.0)  # degrees
    head_yaw: float = normal(0.0, 10.0)  # degrees


@dataclass(frozen=True)
class Bag:
    """Something carried."""

    kind: str  # "backpack", "hand" or "shoulder"
    side: str  # "L" or "R"
    radii: Vector  # metres: sideways, front to back, up
    drop: float  # 0..1, how low it hangs


@dataclass(frozen=True)
class Load:
    """What is worn, carried and held on this walk only."""

    bag: Bag | None
    coat: Hem | None
    bulk: float  # metres of clothes over the usual ones
    phone: str  # "", "L" or "R": the hand that holds one up
    pockets: str  # "", "L", "R" or "LR": hands that are in them

    @property
    def condition(self) -> str:
        """Name for the manifest: nm, bag, coat or bag+coat."""
        worn = [name for name, item in (("bag", self.bag), ("coat", self.coat)) if item is not None]
        return "+".join(worn) or "nm"


@dataclass(frozen=True)
class Occluder:
    """Something between camera and walker: an upright bar, or an edge that hides one side; in shares of the picture."""

    width: float  # of the height for a pole, of the width for an edge
    start: float  # centre at the first frame, from 0 left to 1 right
    travel: float  # of the centre until the last frame
    edge: str = ""  # "left" or "right": hides that side all the time


@dataclass(frozen=True)
class Flaws:
    """What goes wrong in segmentation; everything off by default."""

    ragged: float = 0.0  # 0..1, roughness of the outline
    holes: float = 0.0  # chance of a hole in a frame
    lost: float = 0.0  # chance that a part is missing for a run of frames
    feet_cut: float = 0.0  # share of the height hidden at the bottom
    head_cut: float = 0.0  # and at the top
    occluder: Occluder | None = None


@dataclass(frozen=True)
class Walk:
    """Everything about one sequence but the person."""

    manner: Manner
    camera: str
    view: View
    load: Load
    flaws: Flaws
    corner: Corner | None = None


def draw_walk(seed: int, person: int, sequence: int, camera: Camera, preset: Preset) -> Walk:
    """Draw the walk with number ``sequence`` of a person before the given camera."""
    key = (seed, person, sequence)
    return Walk(
        manner=draw(Manner, stream(Stream.MANNER, *key)),
        camera=camera.name,
        view=draw_view(camera, preset, stream(Stream.VIEW, *key)),
        load=_draw_load(stream(Stream.LOAD, *key), preset.strength),
        flaws=_draw_flaws(stream(Stream.FLAWS, *key), preset.strength),
        corner=_draw_corner(stream(Stream.CORNER, *key), preset.corner) if preset.corner else None,
    )


def _draw_corner(rng: np.random.Generator, spread: float) -> Corner:
    angle = float(np.clip(rng.normal(0.0, spread), -150.0, 150.0))
    return Corner(angle, middle=rng.uniform(-1.0, 1.0), length=rng.uniform(0.8, 2.5))


def _draw_load(rng: np.random.Generator, strength: float) -> Load:
    u = rng.uniform
    kind = str(rng.choice(["backpack", "hand", "shoulder"], p=[0.4, 0.3, 0.3]))
    bag = Bag(kind, "LR"[rng.integers(2)], (u(0.12, 0.18), u(0.05, 0.13), u(0.14, 0.25)), u(0.0, 1.0))
    coat = Hem(u(0.2, 0.8), u(0.01, 0.04))
    bulk = abs(rng.normal(0.0, 0.008))
    carries, wears, thick, holds = rng.random(4)
    phone, pockets = "LR"[rng.integers(2)], ("L", "R", "LR")[rng.integers(3)]
    return Load(
        bag=bag if carries < 0.30 * strength else None,
        coat=coat if wears < 0.12 * strength else None,
        bulk=bulk if thick < 0.5 * strength else 0.0,
        phone=phone if holds < 0.08 * strength else "",
        pockets=pockets if 0.08 * strength <= holds < 0.14 * strength else "",
    )


def _draw_flaws(rng: np.random.Generator, strength: float) -> Flaws:
    u = rng.uniform
    ragged, feet, head = u(0.0, 0.9), u(0.03, 0.22), u(0.02, 0.08)
    occluder = _draw_occluder(rng)
    hidden, cut_below, cut_above = rng.random(3)
    return Flaws(
        ragged=ragged * strength,
        holes=0.09 * strength,
        lost=0.24 * strength,
        feet_cut=feet if cut_below < 0.15 * strength else 0.0,
        head_cut=head if cut_above < 0.03 * strength else 0.0,
        occluder=occluder if hidden < 0.08 * strength else None,
    )


def _draw_occluder(rng: np.random.Generator) -> Occluder:
    u = rng.uniform
    if rng.random() < 0.4:
        edge = ("left", "right")[rng.integers(2)]
        return Occluder(u(0.05, 0.3), start=0.0, travel=0.0, edge=edge)
    travel = u(0.6, 2.0) * (1 if rng.random() < 0.5 else -1)
    return Occluder(u(0.03, 0.09), start=0.5 + u(-0.3, 0.3) - travel / 2, travel=travel)
