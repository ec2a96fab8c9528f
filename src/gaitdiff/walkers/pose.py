"""From joint angles to the place of every bone in every frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gaitdiff.walkers.body import BONE, BONES, PARENTS
from gaitdiff.walkers.camera import FRAMES_PER_SECOND
from gaitdiff.walkers.gait import Gait, leg_angles
from gaitdiff.walkers.walk import Load, Manner

Array = NDArray[np.float64]

_DOWN = np.array([0.0, 0.0, -1.0])


@dataclass(frozen=True)
class Pose:
    """Bones over time, in the walker's own frame (the pelvis joint stays where it is)."""

    rotations: Array  # (22, T, 3, 3) from the rest pose
    positions: Array  # (22, T, 3) of the bones' joints


@dataclass(frozen=True)
class _Beat:
    """What all joints share: phase and the swings of pelvis and trunk, each (T,), degrees."""

    phase: Array  # cycles since a left heel strike
    pelvis_turn: Array  # left side forward
    pelvis_drop: Array
    trunk_turn: Array  # against the pelvis
    nod: Array  # twice a cycle, -1..1


def walking_phase(gait: Gait, manner: Manner, frames: int, rng: np.random.Generator) -> Array:
    """Phase (T,) of the gait cycle, in cycles since a left heel strike; ``rng`` draws the jitter."""
    period = gait.period / manner.pace**0.6 * (1 + manner.cadence)
    rate = 1 + manner.drift * ((np.arange(frames) + 0.5) / frames - 0.5)
    steps = rate / (period * FRAMES_PER_SECOND) + rng.normal(0.0, manner.jitter, frames)
    return np.asarray(manner.phase + np.cumsum(steps))


def pose_body(joints: Array, gait: Gait, manner: Manner, load: Load, phase: Array) -> Pose:
    """Pose a body with the given rest joints (22, 3) at ``phase`` (T,) of its gait."""
    beat = _beat(gait, manner, phase)
    rotations = np.empty((len(BONES), len(phase), 3, 3))
    _pose_trunk(rotations, gait, manner, load, beat)
    for side, sign, offset in (("L", 1, 0.0), ("R", -1, 0.5)):
        _pose_leg(rotations, joints, gait, manner, beat, side, sign, offset)
        _pose_arm(rotations, joints, gait, manner, load, beat, side, sign, offset)
    positions = np.empty((len(BONES), len(phase), 3))
    positions[BONE["pelvis"]] = joints[BONE["pelvis"]]
    for bone, parent in PARENTS.items():
        i, j = BONE[bone], BONE[parent]
        positions[i] = positions[j] + rotations[j] @ (joints[i] - joints[j])
    return Pose(rotations, positions)


def _beat(gait: Gait, manner: Manner, phase: Array) -> _Beat:
    angle = 2 * np.pi * phase
    return _Beat(
        phase=phase,
        pelvis_turn=gait.pelvis_rotation * manner.pace * np.cos(angle),
        pelvis_drop=gait.pelvis_drop * np.sin(angle + 0.04 * np.pi),
        trunk_turn=-gait.trunk_rotation * manner.pace * np.cos(angle + 0.04 * np.pi),
        nod=np.cos(2 * angle),
    )


def _pose_trunk(rotations: Array, gait: Gait, manner: Manner, load: Load, beat: _Beat) -> None:
    lean = gait.lean + manner.lean
    sway = gait.trunk_sway * np.sin(2 * np.pi * beat.phase)
    rotations[BONE["pelvis"]] = turn(-beat.pelvis_turn, -beat.pelvis_drop, gait.pelvis_tilt + 1.2 * beat.nod)
    # up the spine: share of the trunk's own turn, share of the lean, share of the hunch
    for bone, own, upright, hunch in (
        ("spine_lo", 0.3, 0.5, 0.0),
        ("spine_mid", 0.7, 0.9, 0.3),
        ("chest", 1.0, 1.0, 1.0),
    ):
        rotations[BONE[bone]] = turn(
            -(beat.pelvis_turn * (1 - own) + beat.trunk_turn * own),
            -(beat.pelvis_drop * (1 - own) * 0.5 - sway * own),
            lean * upright + gait.hunch * hunch + 0.8 * beat.nod,
        )
    head = gait.head_pitch + manner.head_pitch + (22 if load.phone else 0)
    yaw = manner.head_yaw
    rotations[BONE["neck"]] = turn(
        0.5 * yaw - 0.4 * beat.trunk_turn, 0, 0.5 * gait.hunch + gait.neck_forward + 0.3 * head
    )
    rotations[BONE["head"]] = turn(yaw - 0.15 * beat.trunk_turn, 0, head + gait.head_bob * beat.nod)


def _pose_leg(
    rotations: Array, joints: Array, gait: Gait, manner: Manner, beat: _Beat, side: str, sign: int, offset: float
) -> None:
    angles = leg_angles(gait, beat.phase + offset, side, manner.pace)
    # legs stay near the plane of progression: they follow a third of the pelvis's turn and none of its drop
    yaw, roll = -0.35 * beat.pelvis_turn, -sign * gait.abduction
    thigh, shank = straighten(joints, "thigh" + side, "shank" + side, "foot" + side)
    knee = angles.hip - angles.knee
    foot = turn(yaw, roll, -(knee + angles.ankle)) @ turn(sign * (gait.toe_out - 4), 0, 0)
    rotations[BONE["thigh" + side]] = turn(yaw, roll, -angles.hip) @ turn(sign * 0.4 * gait.toe_out, 0, 0) @ thigh
    rotations[BONE["shank" + side]] = (
        turn(yaw, roll, -knee) @ turn(sign * 0.6 * gait.toe_out, sign * gait.knee_valgus, 0) @ shank
    )
    rotations[BONE["foot" + side]] = foot
    rotations[BONE["toe" + side]] = foot @ turn(0, 0, -angles.toe)


def _pose_arm(
    rotations: Array,
    joints: Array,
    gait: Gait,
    manner: Manner,
    load: Load,
    beat: _Beat,
    side: str,
    sign: int,
    offset: float,
) -> None:
    angle = 2 * np.pi * (beat.phase + offset + gait.arm_lead)
    swing = gait.arm_gain * manner.arm_gain * manner.pace * (1 + sign * gait.arm_asymmetry)
    shoulder = gait.arm_offset - swing * np.cos(angle) + 2 * np.cos(2 * angle)  # back at the leg's heel strike
    bend = np.maximum(-np.cos(angle - 0.08 * np.pi), -0.7)
    elbow = gait.elbow_flexion + gait.elbow_swing * manner.arm_gain * bend
    abduction, inward = gait.arm_abduction, gait.arm_inward
    if load.bag is not None and load.bag.kind == "hand" and load.bag.side == side:
        shoulder, elbow = 0.35 * shoulder, 0.4 * elbow
    if load.phone == side:
        shoulder, elbow, inward = 15 + 1.5 * np.cos(angle), 95 + 2 * np.cos(angle), 25.0
    elif side in load.pockets:
        shoulder, elbow = -12 + 3 * np.cos(angle), np.full_like(angle, 45.0)
        abduction, inward = 14.0, 18.0
    upper, lower = straighten(joints, "uarm" + side, "farm" + side, "hand" + side)
    trunk = turn(-0.6 * beat.trunk_turn, 0, 0) @ turn(0, 0, 0.5 * (gait.lean + manner.lean))
    upper_arm = trunk @ turn(0, -sign * abduction, 0) @ turn(0, 0, -shoulder)
    forearm = upper_arm @ turn(-sign * inward, 0, 0) @ turn(0, 0, -elbow)
    rotations[BONE["clav" + side]] = rotations[BONE["chest"]] @ turn(0, sign * (4 - gait.shoulder_raise), 0)
    rotations[BONE["uarm" + side]] = upper_arm @ upper
    rotations[BONE["farm" + side]] = forearm @ lower
    rotations[BONE["hand" + side]] = forearm @ turn(sign * gait.hand_twist, 0, 0) @ lower


def turn(yaw: ArrayLike, roll: ArrayLike, pitch: ArrayLike) -> Array:
    """Rotations Rz(yaw) Ry(roll) Rx(pitch), degrees, broadcast against each other: (…, 3, 3)."""
    z, y, x = (np.deg2rad(a) for a in np.broadcast_arrays(yaw, roll, pitch))
    (cz, cy, cx), (sz, sy, sx) = (np.cos(z), np.cos(y), np.cos(x)), (np.sin(z), np.sin(y), np.sin(x))
    rows = [cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx]
    rows += [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx]
    rows += [-sy, cy * sx, cy * cx]
    return np.stack(rows, axis=-1).reshape(*np.shape(z), 3, 3)


def straighten(joints: Array, upper: str, lower: str, end: str) -> tuple[Array, Array]:
    """Rotations that let a limb at rest hang straight down: (3, 3) for its upper and for its lower bone."""
    first = _carry(joints[BONE[lower]] - joints[BONE[upper]], _DOWN)
    second = _carry(first @ (joints[BONE[end]] - joints[BONE[lower]]), _DOWN)
    return first, second @ first


def _carry(a: Array, b: Array) -> Array:
    """The smallest rotation that turns the direction of ``a`` into that of the unit vector ``b``."""
    a = a / np.linalg.norm(a)
    x, y, z = np.cross(a, b)
    k = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.asarray(np.eye(3) + k + k @ k / (1 + a @ b))
