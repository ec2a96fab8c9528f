"""Camera places, and the view that one of them has of a passer-by over time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gaitdiff.walkers.draws import Stream, stream
from gaitdiff.walkers.presets import Preset

Array = NDArray[np.float64]

FRAMES_PER_SECOND = 25.0
WALKING_SPEED = 1.25  # m/s
CLOSEST = 2.0  # metres

#: People pass a camera on paths that differ by up to this angle either way, degrees.
YAW_RANGE = 8.0


@dataclass(frozen=True)
class Camera:
    """A place from which people are seen, always from about the same side and distance."""

    name: str
    yaw: float  # degrees; 0 sees the face, 90 the left side, 180 the back
    pitch: float  # degrees from above
    distance: float  # metres
    height: float  # of a person, pixels


@dataclass(frozen=True)
class View:
    """How a camera sees one walk, at its middle."""

    yaw: float  # degrees
    pitch: float  # degrees
    distance: float  # metres
    height: int  # pixels


@dataclass(frozen=True)
class Corner:
    """A change of direction on the way, seconds from the middle of the walk."""

    angle: float  # degrees, to the right if positive
    middle: float  # seconds
    length: float  # seconds from the first to the last step of it

    def turned(self, t: NDArray[np.floating[Any]]) -> Array:
        """Degrees turned at times ``t`` (T,), smoothly from 0 to ``angle``."""
        share = np.clip((t - self.middle) / self.length + 0.5, 0.0, 1.0)
        return np.asarray(self.angle * share**2 * (3.0 - 2.0 * share))


@dataclass(frozen=True)
class Track:
    """The camera's axes and distance over time, seen from the walker."""

    axes: Array  # (T, 3, 3): rows point right and up in the picture, and towards the camera
    distance: Array  # (T,) metres


def place_cameras(seed: int, preset: Preset) -> tuple[Camera, ...]:
    """Set up the cameras of a data set anywhere within the preset's ranges, on the left and right side in turn."""
    rng = stream(Stream.CAMERAS, seed)
    return tuple(
        Camera(
            name=f"cam{i:02d}",
            yaw=(90, 270)[i % 2] + rng.uniform(-preset.yaw_spread, preset.yaw_spread),
            pitch=rng.uniform(*preset.pitch),
            distance=rng.uniform(*preset.distance),
            height=rng.uniform(*preset.height),
        )
        for i in range(preset.cameras)
    )


def assign_camera(cameras: tuple[Camera, ...], seed: int, person: int, sequence: int, passed: int = 0) -> Camera:
    """Return the camera of one sequence: a person comes past cameras in an order of their own, then again.

    Args:
        passed: how many cameras that are; 0 is all.
    """
    order = stream(Stream.ROUTE, seed, person).permutation(len(cameras))
    return cameras[order[sequence % (passed or len(cameras))]]


def draw_view(camera: Camera, preset: Preset, rng: np.random.Generator) -> View:
    """Draw how the camera sees one walk."""
    low, high = preset.height
    return View(
        yaw=camera.yaw + rng.uniform(-YAW_RANGE, YAW_RANGE),
        pitch=max(camera.pitch + rng.uniform(-2.0, 2.0), 0.0),
        distance=camera.distance * rng.uniform(0.85, 1.15),
        height=int(np.clip(camera.height * rng.uniform(0.85, 1.15), low, high)),
    )


def follow(view: View, frames: int, turn: float, corner: Corner | None = None) -> Track:
    """Follow somebody who walks past: their bearing and distance change, and their heading by ``turn`` degrees.

    With a corner, they turn around it besides.
    """
    yaw, pitch = np.deg2rad(view.yaw), np.deg2rad(view.pitch)
    t = (np.arange(frames) - frames / 2) / FRAMES_PER_SECOND
    drift = np.deg2rad(turn) * t * FRAMES_PER_SECOND / frames
    if corner is None:
        along = WALKING_SPEED * t
        distance = np.maximum(view.distance - along * np.cos(yaw), CLOSEST)
        azimuth = yaw + along * np.sin(yaw) / view.distance + drift
    else:
        heading = yaw + drift + np.deg2rad(corner.turned(t) - corner.turned(np.zeros(1)))
        place = np.cumsum(np.exp(-1j * heading)) * WALKING_SPEED / FRAMES_PER_SECOND
        to_camera = view.distance - (place - place[frames // 2])  # on the ground, at the middle along the real axis
        distance = np.maximum(np.abs(to_camera), CLOSEST)
        azimuth = heading + np.angle(to_camera)
    sin, cos, zero = np.sin(azimuth), np.cos(azimuth), np.zeros(frames)
    towards = np.stack([sin * np.cos(pitch), -cos * np.cos(pitch), np.full(frames, np.sin(pitch))], axis=-1)
    right = np.stack([cos, sin, zero], axis=-1)
    return Track(np.stack([right, np.cross(towards, right), towards], axis=1), distance)
