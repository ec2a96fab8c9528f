"""From posed bodies to masks: skinning in the camera's axes, projection, and splatting of surface points."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from gaitdiff.walkers.body import BONE, SURFACE_POINTS, Array, Body, BodyModel
from gaitdiff.walkers.camera import Track, follow
from gaitdiff.walkers.outfit import FRAMES, HANGERS, Solids, inflate, make_solids
from gaitdiff.walkers.person import Person
from gaitdiff.walkers.pose import Pose, pose_body, walking_phase
from gaitdiff.walkers.walk import Walk

Masks = NDArray[np.uint8]

#: All surface points are drawn at this height in pixels and above, fewer below, as the area goes.
_FULL_HEIGHT = 140

#: Empty pixels around the person; more than the reach of any later filter.
MARGIN = 8

#: Points in one slice of the skinning product.
_SLICE = 16

#: Frames by which loose cloth trails behind the legs.
_TRAIL = 2


def render_masks(
    model: BodyModel, body: Body, person: Person, walk: Walk, frames: int, rng: np.random.Generator
) -> Masks:
    """Draw one walk as clean masks, uint8 (T, h, w) of 0 and 255, each person about ``walk.view.height`` high.

    ``rng`` draws the jitter of the steps.
    """
    phase = walking_phase(person.gait, walk.manner, frames, rng)
    pose = pose_body(body.joints, person.gait, walk.manner, walk.load, phase)
    track = follow(walk.view, frames, walk.manner.turn, walk.corner)
    transforms = _in_camera(pose, body.joints, track)
    surface = inflate(body, model.weights, person.wardrobe, walk.load.bulk)
    solids = make_solids(body, surface, model.weights, person.wardrobe, walk.load)
    count = int(SURFACE_POINTS * min((walk.view.height / _FULL_HEIGHT) ** 2, 1))
    seen = _project_surface(model, surface, transforms, track, count)  # (n, 2, T)
    hulls = _project_solids(solids, transforms, track) if solids is not None else np.empty((0, 2, frames))
    return _rasterise(seen, hulls, solids.pieces if solids is not None else (), walk.view.height)


def _in_camera(pose: Pose, joints: Array, track: Track) -> Array:
    """Transforms from rest coordinates to the camera's axes around the pelvis, (FRAMES, 4, 3, T).

    Stacked over bones they are the right factor of one matrix product: rows take x, y, z and 1, columns give right, up
    and towards the camera in every frame.
    """
    pelvis = BONE["pelvis"]
    hands = [BONE["hand" + side] for side in HANGERS]
    rotations = np.concatenate([pose.rotations, pose.rotations[[pelvis, pelvis]]])
    positions = np.concatenate([pose.positions, pose.positions[hands]]) - joints[pelvis]
    origins = np.concatenate([joints, joints[hands]])
    turned = track.axes @ rotations  # (FRAMES, T, 3, 3)
    shifted = track.axes @ positions[..., None] - turned @ origins[:, None, :, None]  # (FRAMES, T, 3, 1)
    return np.ascontiguousarray(np.concatenate([turned, shifted], axis=-1).transpose(0, 3, 2, 1))


def _skin(points: Array, weights: Array, transforms: Array) -> Array:
    """Linear blend skinning: points (n, 3) with weights (n, b) under transforms (b, 4, 3, T) -> (n, 3, T).

    The product is cut into slices that fit the cache and are too small for any BLAS to start threads for.
    """
    (n, bones), frames = weights.shape, transforms.shape[-1]
    left = np.zeros((-(-n // _SLICE) * _SLICE, bones, 4))
    np.multiply(weights[:, :, None], points[:, None, :], out=left[:n, :, :3])
    left[:n, :, 3] = weights
    places = left.reshape(-1, _SLICE, bones * 4) @ transforms.reshape(bones * 4, 3 * frames)
    return places.reshape(-1, 3, frames)[:n]


def _perspective(places: Array, track: Track, out: Array) -> None:
    """Places (n, 3, T) in the camera's axes -> tangents of the viewing angles, right and up, (n, 2, T)."""
    np.divide(places[:, :2], track.distance - places[:, 2:], out=out)


def _project_surface(model: BodyModel, surface: Array, transforms: Array, track: Track, count: int) -> Array:
    """Project the first ``count`` surface points, part by part."""
    out = np.empty((count, 2, transforms.shape[-1]))
    start = 0
    for part in model.parts:
        n = int(np.searchsorted(part.points, count))
        places = _skin(surface[part.points[:n]], part.weights[:n], transforms[part.bones])
        _perspective(places, track, out[start : start + n])
        start += n
    return out


def _project_solids(solids: Solids, transforms: Array, track: Track) -> Array:
    late = np.maximum(np.arange(transforms.shape[-1]) - _TRAIL, 0)
    out = np.empty((len(solids.points), 2, transforms.shape[-1]))
    for loose, motion in ((False, transforms), (True, transforms[..., late])):
        chosen = solids.loose == loose
        if chosen.any():
            places = _skin(solids.points[chosen], solids.weights[chosen], motion[:FRAMES])
            projected = np.empty((len(places), 2, transforms.shape[-1]))
            _perspective(places, track, projected)
            out[chosen] = projected
    return out


def _rasterise(seen: Array, hulls: Array, pieces: tuple[NDArray[np.int64], ...], height: int) -> Masks:
    """Splat surface points (n, 2, T), close the gaps, and fill the convex pieces of ``hulls`` (m, 2, T)."""
    frames = seen.shape[-1]
    low, high = seen.min(0), seen.max(0)  # (2, T)
    if len(hulls):
        low, high = np.minimum(low, hulls.min(0)), np.maximum(high, hulls.max(0))
    scale = (height - 1) / (high[1] - low[1]).mean()
    width, tall = (int(np.ceil(extent.max() * scale)) + 2 * MARGIN + 1 for extent in high - low)
    stretch = np.array([[scale], [-scale]])
    origin = MARGIN + 0.5 - np.stack([low[0], high[1]]) * stretch  # (2, T)

    def pixels(points: Array) -> NDArray[np.int64]:  # (n, 2, T): column and row
        return (points * stretch + origin).astype(np.int64)

    columns, rows = pixels(seen).swapaxes(0, 1)
    masks = np.zeros((frames, tall, width), dtype=np.uint8)
    masks.reshape(-1)[(rows + np.arange(frames) * tall) * width + columns] = 255
    picture = masks.reshape(frames * tall, width)  # margins keep the frames apart
    size = 3 if height < 100 else 5
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    cv2.morphologyEx(picture, cv2.MORPH_CLOSE, kernel, dst=picture)
    cv2.medianBlur(picture, 3, dst=picture)  # smooths the outline
    if pieces:
        outline = np.ascontiguousarray(pixels(hulls).swapaxes(1, 2), dtype=np.int32)  # (m, T, 2)
        for t, mask in enumerate(masks):
            for piece in pieces:
                cv2.fillConvexPoly(mask, cv2.convexHull(outline[piece, t]), 255)
    return masks
