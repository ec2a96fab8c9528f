"""Who walks: body shape, way of walking, and the clothes and hair a person always wears."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gaitdiff.walkers.draws import Stream, draw, half_normal, stream, uniform
from gaitdiff.walkers.gait import Gait, draw_gait

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Hem:
    """A skirt or the tails of a coat: cloth around both legs, down to a hem."""

    length: float  # 0 at the hip, 0.6 at the knee, 1 at the ankle
    flare: float  # metres the hem stands off the legs


@dataclass(frozen=True)
class Hair:
    """An ellipsoid on the head."""

    radii: Vector  # metres: sideways, front to back, up
    centre: Vector  # metres from the head joint


@dataclass(frozen=True)
class Wardrobe:
    """What a person always wears; thickness of the cloth over the skin in metres."""

    torso: float = half_normal(0.012)
    arms: float = half_normal(0.007)
    thighs: float = half_normal(0.008)
    shanks: float = half_normal(0.010)
    shoes: float = uniform(0.0, 0.014)
    hem: Hem | None = None
    hair: Hair | None = None


@dataclass(frozen=True)
class Person:
    """An identity."""

    shape: NDArray[np.float64]  # coefficients of the body model
    gait: Gait
    wardrobe: Wardrobe


def draw_person(seed: int, person: int, components: int) -> Person:
    """Draw the person with number ``person``; ``components`` is the body model's number of coefficients."""
    shape = stream(Stream.SHAPE, seed, person).normal(size=components).clip(-2.2, 2.2)
    rng = stream(Stream.WARDROBE, seed, person)
    wardrobe = draw(Wardrobe, rng, hem=_draw_hem(rng), hair=_draw_hair(rng))
    return Person(shape, draw_gait(seed, person), wardrobe)


def _draw_hem(rng: np.random.Generator) -> Hem | None:
    kind = rng.random()
    skirt = Hem(rng.uniform(0.35, 1.0), rng.uniform(0.01, 0.06))
    tails = Hem(rng.uniform(0.15, 0.75), rng.uniform(0.01, 0.035))
    return skirt if kind < 0.14 else tails if kind < 0.28 else None


def _draw_hair(rng: np.random.Generator) -> Hair | None:
    kind, u = rng.random(), rng.uniform
    if kind < 0.35:  # full
        return Hair((u(0.080, 0.100), u(0.095, 0.120), u(0.10, 0.14)), (0.0, u(0.00, 0.02), u(0.06, 0.09)))
    if kind < 0.60:  # long
        return Hair((u(0.075, 0.100), u(0.050, 0.080), u(0.12, 0.20)), (0.0, u(0.05, 0.08), u(-0.06, 0.03)))
    if kind < 0.72:  # bun
        r = u(0.035, 0.060)
        return Hair((r, r, r), (0.0, u(0.09, 0.12), u(0.02, 0.17)))
    return None
