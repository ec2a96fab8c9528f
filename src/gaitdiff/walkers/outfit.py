"""Clothes, hair and bags as geometry: an inflated surface, and solids that are drawn as convex hulls."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from gaitdiff.walkers.body import BONE, BONES, Body
from gaitdiff.walkers.person import Hair, Hem, Wardrobe
from gaitdiff.walkers.walk import Bag, Load

Array = NDArray[np.float64]

#: Besides the 22 bones, solids may follow a hand's place while hanging down from it.
HANGERS = {"L": len(BONES), "R": len(BONES) + 1}
FRAMES = len(BONES) + len(HANGERS)  # of reference: bones and hangers

_RINGS = 5  # of a skirt, from hip to hem
_RING_POINTS = 24
_EASE = 0.012  # metres between legs and cloth
_SOLID_POINTS = 90


@dataclass(frozen=True)
class Solids:
    """Points at rest, what they follow, and which of them form convex pieces."""

    points: Array  # (n, 3)
    weights: Array  # (n, FRAMES)
    loose: NDArray[np.bool_]  # (n,) trails behind the motion
    pieces: tuple[NDArray[np.int64], ...]  # indices of the points of each convex piece


def inflate(body: Body, weights: Array, wardrobe: Wardrobe, bulk: float) -> Array:
    """Surface points (n, 3) moved out along their normals by the thickness of the clothes."""
    thickness = np.zeros(len(BONES))
    for names, metres in (
        (("spine_lo", "spine_mid", "chest"), wardrobe.torso + bulk),
        (("pelvis", "thighL", "thighR"), wardrobe.thighs + 0.5 * bulk),
        (("shankL", "shankR"), wardrobe.shanks + 0.3 * bulk),
        (("uarmL", "uarmR", "farmL", "farmR"), wardrobe.arms + 0.6 * bulk),
        (("footL", "footR"), wardrobe.shoes),
    ):
        thickness[[BONE[name] for name in names]] = metres
    return body.points + body.normals * np.einsum("pb,b->p", weights, thickness)[:, None]


def make_solids(body: Body, surface: Array, weights: Array, wardrobe: Wardrobe, load: Load) -> Solids | None:
    """Build hair, bag, skirt and coat; ``surface`` (n, 3) and ``weights`` (n, 22) are those of the clothed body."""
    pieces: list[tuple[Array, Array, bool]] = []
    hulls: list[tuple[int, ...]] = []
    if wardrobe.hair is not None:
        hulls.append((len(pieces),))
        pieces.append(_hair(body, wardrobe.hair))
    if load.bag is not None:
        hulls.append((len(pieces),))
        pieces.append(_bag(body, surface, weights, load.bag))
    for hem in (wardrobe.hem, load.coat):
        if hem is not None:
            rings = _skirt(body, surface, weights, hem)
            first = len(pieces)
            hulls += [tuple(range(i, i + 4)) for i in range(first, first + len(rings) - 2, 2)]
            pieces += rings
    if not pieces:
        return None
    ends = np.cumsum([0, *(len(points) for points, _, _ in pieces)])
    return Solids(
        points=np.concatenate([points for points, _, _ in pieces]),
        weights=np.concatenate([follow for _, follow, _ in pieces]),
        loose=np.concatenate([np.full(len(points), loose) for points, _, loose in pieces]),
        pieces=tuple(np.arange(ends[hull[0]], ends[hull[-1] + 1]) for hull in hulls),
    )


def _hair(body: Body, hair: Hair) -> tuple[Array, Array, bool]:
    points = body.joints[BONE["head"]] + hair.centre + _sphere() * hair.radii
    return points, _follow(BONE["head"], len(points)), False


def _bag(body: Body, surface: Array, weights: Array, bag: Bag) -> tuple[Array, Array, bool]:
    wide, deep, high = bag.radii
    sign = 1 if bag.side == "L" else -1
    if bag.kind == "backpack":
        joint, frame = body.joints[BONE["chest"]], BONE["chest"]
        back = surface[_belongs(weights, "chest", "spine_mid"), 1].max() - joint[1]
        centre, radii = (0.0, back + deep - 0.02, -0.06 - 0.1 * bag.drop), (wide, deep, high)
    elif bag.kind == "hand":
        joint, frame = body.joints[BONE["hand" + bag.side]], HANGERS[bag.side]
        centre, radii = (0.0, 0.0, -0.10 - 0.8 * high), (0.6 * deep, wide, 0.8 * high)
    else:
        joint, frame = body.joints[BONE["pelvis"]], BONE["pelvis"]
        hip = np.abs(surface[_belongs(weights, "pelvis", "thigh", "spine_lo"), 0]).max()
        centre, radii = (sign * (hip + 0.4 * deep), 0.0, 0.02 - 0.12 * bag.drop), (0.6 * deep, wide, 0.7 * high)
    points = joint + centre + _rounded_box() * radii
    return points, _follow(frame, len(points)), False


def _skirt(body: Body, surface: Array, weights: Array, hem: Hem) -> list[tuple[Array, Array, bool]]:
    """Rings around both legs from hip to hem: each one tight on the legs, then one that stands off and trails."""
    hip, knee, ankle = (body.joints[BONE[bone + "L"]][2] for bone in ("thigh", "shank", "foot"))
    down = hip + (knee - hip) * min(hem.length / 0.6, 1) + (ankle - knee) * max(hem.length - 0.6, 0) * 1.9
    skirted = _belongs(weights, "pelvis", "spine", "thigh", "shank")
    rings: list[tuple[Array, Array, bool]] = []
    for share in np.linspace(0, 1, _RINGS):
        level = hip + 0.06 + share * (down - hip - 0.06)
        near = np.flatnonzero(skirted & (np.abs(surface[:, 2] - level) < 0.035))
        near = near[:: max(len(near) // _RING_POINTS, 1)]
        ring, follow = surface[near], np.pad(weights[near], ((0, 0), (0, len(HANGERS))))
        outwards = ring[:, :2] - (0.0, ring[:, 1].mean())
        outwards /= np.linalg.norm(outwards, axis=1, keepdims=True) + 1e-9
        outwards = np.pad(outwards, ((0, 0), (0, 1)))
        stiff = 0.35 * share
        loose = (1 - stiff) * follow + stiff * _follow(BONE["pelvis"], len(near))
        rings.append((ring + _EASE * outwards, follow, False))
        rings.append((ring + (_EASE + hem.flare * share) * outwards, loose, True))
    return rings


def _belongs(weights: Array, *bones: str) -> NDArray[np.bool_]:
    """Which points (n,) follow mostly bones whose names begin so."""
    return np.asarray(weights[:, [name.startswith(bones) for name in BONES]].sum(1) > 0.5)


def _follow(frame: int, points: int) -> Array:
    weights = np.zeros((points, FRAMES))
    weights[:, frame] = 1.0
    return weights


@cache
def _sphere() -> Array:
    """Points spread evenly over the unit sphere, (n, 3)."""
    i = np.arange(_SOLID_POINTS) + 0.5
    z, angle = 1 - 2 * i / _SOLID_POINTS, np.pi * (1 + 5**0.5) * i
    radius = np.sqrt(1 - z * z)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=-1)


@cache
def _rounded_box() -> Array:
    """Points over the surface |x|³ + |y|³ + |z|³ = 1, (n, 3)."""
    return _sphere() / np.linalg.norm(_sphere(), ord=3, axis=1, keepdims=True)
