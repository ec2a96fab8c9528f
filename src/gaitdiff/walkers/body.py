"""The parametric body: shapes from a few coefficients, and surface points that follow its bones.

The asset ``assets/body.npz`` is a principal-component model of adult bodies with 22 bones, distilled by
``tools/distil_body.py``. Coordinates are metres, z up, facing -y, +x is the person's left.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Surface points sampled once on the mesh; renderings at low resolution use the first of them only.
SURFACE_POINTS = 12_000

#: Skin weights below this are dropped: a point then follows one to four bones.
WEIGHT_FLOOR = 0.02

_SPINE = {"spine_lo": "pelvis", "spine_mid": "spine_lo", "chest": "spine_mid", "neck": "chest", "head": "neck"}
_LEG = {"thigh": "pelvis", "shank": "thigh", "foot": "shank", "toe": "foot"}
_ARM = {"clav": "chest", "uarm": "clav", "farm": "uarm", "hand": "farm"}

#: Name of each bone -> name of its parent, parents first; the pelvis is the root.
PARENTS: dict[str, str] = _SPINE | {
    bone + side: parent if parent in ("pelvis", "chest") else parent + side
    for side in "LR"
    for bone, parent in (_LEG | _ARM).items()
}
BONES: tuple[str, ...] = ("pelvis", *PARENTS)
BONE: dict[str, int] = {name: i for i, name in enumerate(BONES)}


@dataclass(frozen=True)
class Part:
    """Surface points that depend on few bones, so that skinning them is a small matrix product."""

    points: NDArray[np.int64]  # (n,) indices into the body's points, ascending
    bones: NDArray[np.int64]  # (b,) the bones they follow
    weights: Array  # (n, b) rows sum to 1


@dataclass(frozen=True)
class Body:
    """One person's body at rest."""

    joints: Array  # (22, 3) where each bone begins
    points: Array  # (SURFACE_POINTS, 3)
    normals: Array  # (SURFACE_POINTS, 3) unit vectors pointing outwards


class BodyModel:
    """The asset, ready to make bodies.

    Attributes:
        components: number of shape coefficients.
        weights: (SURFACE_POINTS, 22) skin weights of the surface points.
        parts: the same weights, cut into five parts that need few bones each.
    """

    def __init__(self, asset: dict[str, np.ndarray]) -> None:
        vertices = 3 * len(asset["weights"])
        mean = asset["mean"].astype(np.float64)
        basis = asset["basis"].astype(np.float64) * asset["scale"].astype(np.float64)[:, None]
        self.components = len(basis)
        self._vertices = mean[:vertices].reshape(-1, 3)
        self._vertex_basis = basis[:, :vertices]
        self._joints = mean[vertices:].reshape(-1, 3)
        self._joint_basis = basis[:, vertices:]
        self._faces = asset["faces"].astype(np.int64)
        self._vertex_weights = _prune(asset["weights"].astype(np.float64))
        self._corners, self._blend = _sample_surface(self._vertices, self._faces)
        self.weights = (self._vertex_weights[self._corners] * self._blend[..., None]).sum(1)
        self.parts = _split(self.weights)

    def body(self, coefficients: Array) -> Body:
        """Make the body with the given shape coefficients (components,), each in standard deviations."""
        joints = self._joints + np.einsum("k,kx->x", coefficients, self._joint_basis).reshape(-1, 3)
        vertices = self._vertices + np.einsum("k,kx->x", coefficients, self._vertex_basis).reshape(-1, 3)
        vertices = self._relax_hands(vertices, joints)
        normals = self._on_surface(_vertex_normals(vertices, self._faces))
        normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9
        return Body(joints, self._on_surface(vertices), normals)

    def _on_surface(self, values: Array) -> Array:
        """Interpolate values at the vertices (V, 3) at the surface points."""
        return np.asarray((values[self._corners] * self._blend[..., None]).sum(1))

    def _relax_hands(self, vertices: Array, joints: Array) -> Array:
        """Close the spread fingers: the hand shrinks across its own axis, and a little along it."""
        vertices = vertices.copy()
        for side in "LR":
            weight = self._vertex_weights[:, BONE["hand" + side], None]
            offset = vertices - joints[BONE["hand" + side]]
            axis = (offset * weight).sum(0)
            axis /= np.linalg.norm(axis)
            along = (offset * axis).sum(1, keepdims=True) * axis
            vertices += weight * (0.78 * along + 0.55 * (offset - along) - offset)
        return vertices


@cache
def load_body_model() -> BodyModel:
    """Load the packaged asset, once."""
    with as_file(files("gaitdiff.walkers") / "assets" / "body.npz") as path, np.load(path) as asset:
        return BodyModel(dict(asset))


def _prune(weights: Array) -> Array:
    kept = np.where(weights < WEIGHT_FLOOR, 0.0, weights)
    return np.asarray(kept / kept.sum(1, keepdims=True))


def _sample_surface(vertices: Array, faces: NDArray[np.int64]) -> tuple[NDArray[np.int64], Array]:
    """Spread points evenly over the mesh: corner indices (n, 3) and barycentric weights (n, 3).

    Any first part of the points is itself an even cover: triangles are chosen along the cumulated area by multiples of
    the golden ratio, places inside them by Roberts' two-dimensional generalisation of it.
    """
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1).cumsum()
    n = np.arange(SURFACE_POINTS)
    face = np.searchsorted(area, (n * 0.6180339887498949 % 1.0) * area[-1], side="right")
    u, v = n * 0.7548776662466927 % 1.0, n * 0.5698402909980532 % 1.0
    flip = u + v > 1
    u, v = np.where(flip, 1 - u, u), np.where(flip, 1 - v, v)
    return faces[face], np.stack([1 - u - v, u, v], axis=1)


def _vertex_normals(vertices: Array, faces: NDArray[np.int64]) -> Array:
    """Area-weighted vertex normals (V, 3), not normalised."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    normals = np.repeat(np.cross(b - a, c - a), 3, axis=0)
    corner = faces.ravel()
    return np.stack([np.bincount(corner, normals[:, k], len(vertices)) for k in range(3)], axis=1)


def _split(weights: Array) -> tuple[Part, ...]:
    """Cut the points into trunk, arms and legs by their strongest bone."""
    limbs = [[BONE[bone + side] for bone in limb] for side in "LR" for limb in (_LEG, _ARM)]
    strongest = weights.argmax(1)
    limb_of = np.zeros(len(BONES), dtype=np.int64)
    for i, limb in enumerate(limbs, start=1):
        limb_of[limb] = i
    parts = []
    for i in range(len(limbs) + 1):
        points = np.flatnonzero(limb_of[strongest] == i)
        bones = np.flatnonzero(weights[points].any(0))
        parts.append(Part(points, bones, weights[np.ix_(points, bones)]))
    return tuple(parts)
