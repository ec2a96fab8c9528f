"""Ways of walking: textbook joint-angle curves as Fourier series, and how a person departs from them.

The curves are those of normal level walking over the gait cycle, from one heel strike to the next of the same foot,
after D. A. Winter, "The Biomechanics and Motor Control of Human Gait" (2nd ed., 1991) and J. Perry, "Gait Analysis:
Normal and Pathological Function" (1992). Angles are degrees: hip and knee flexion, ankle dorsiflexion and toe extension
are positive.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from gaitdiff.walkers.draws import Stream, draw, half_normal, normal, stream, uniform

Array = NDArray[np.float64]
Coefficients = NDArray[np.complex128]

#: Harmonics in which a person's hip and knee curves differ from the textbook's.
OWN_HARMONICS = 3

# joint: (harmonics kept, (% of the cycle, degrees))
# fmt: off
_CURVES: dict[str, tuple[int, tuple[tuple[float, float], ...]]] = {
    "hip": (4, ((0, 28), (10, 24), (20, 16), (30, 7), (40, -2), (50, -9), (55, -9), (60, -5), (65, 3), (70, 13),
                (75, 21), (80, 27), (85, 31), (90, 31.5), (95, 30))),
    "knee": (6, ((0, 4), (5, 10), (10, 16), (15, 18), (20, 17), (25, 14), (30, 10), (35, 8), (40, 7), (45, 8),
                 (50, 12), (55, 22), (60, 36), (65, 51), (70, 60), (75, 61), (80, 53), (85, 38), (90, 20), (95, 7))),
    "ankle": (6, ((0, 0), (5, -5), (10, -4), (15, 0), (20, 3), (25, 5), (30, 7), (35, 8), (40, 9.5), (45, 9.5),
                  (50, 6), (55, -4), (60, -15), (65, -18), (70, -12), (75, -5), (80, -1), (85, 1), (90, 1.5),
                  (95, 1))),
    "toe": (4, ((0, 12), (5, 0), (10, 0), (35, 0), (40, 3), (45, 12), (50, 24), (55, 30), (60, 24), (65, 10),
                (70, 4), (80, 6), (90, 12))),
}
# fmt: on


@dataclass(frozen=True)
class Gait:
    """One person's way of walking: gains are factors on the textbook curves, angles are degrees, times are seconds."""

    period: float = normal(1.06, 0.07, 0.85, 1.3)  # of one cycle (two steps) at the person's own pace
    # legs
    hip_gain: float = normal(1.0, 0.12, 0.7, 1.3)
    hip_offset: float = normal(0.0, 4.0)
    hip_lead: float = normal(0.0, 0.015)  # cycles
    knee_gain: float = normal(1.0, 0.10, 0.75, 1.25)
    knee_offset: float = half_normal(4.0)
    knee_lead: float = normal(0.0, 0.015)  # cycles
    stance_flexion: float = uniform(0.4, 1.5)  # gain of the knee's bend under load
    ankle_gain: float = normal(1.0, 0.2, 0.5, 1.5)
    leg_asymmetry: float = normal(0.0, 0.05)  # left minus right, half of it on either side
    abduction: float = normal(-2.0, 1.0)  # of the legs; wider is positive
    toe_out: float = normal(7.0, 6.0)
    knee_valgus: float = normal(0.0, 2.0)
    # pelvis, trunk and head
    pelvis_rotation: float = normal(5.0, 2.5, 0.0, 11.0)
    pelvis_drop: float = normal(4.0, 1.5, 0.0, 8.0)
    pelvis_tilt: float = normal(2.0, 4.0)
    trunk_rotation: float = normal(6.0, 2.5, 0.0, 13.0)
    trunk_sway: float = normal(2.0, 1.2, 0.0, 6.0)
    lean: float = normal(3.0, 4.0)
    hunch: float = normal(4.0, 7.0, -8.0, 25.0)
    neck_forward: float = normal(5.0, 6.0)
    head_pitch: float = normal(4.0, 8.0)
    head_bob: float = half_normal(1.5)
    # arms
    shoulder_raise: float = normal(3.0, 3.0)
    arm_gain: float = normal(20.0, 8.0, 3.0, 45.0)  # amplitude of the swing
    arm_offset: float = normal(-7.0, 5.0)
    arm_lead: float = normal(0.0, 0.03)  # cycles
    arm_abduction: float = normal(7.0, 4.0, 0.0, 18.0)
    arm_inward: float = normal(4.0, 6.0)
    arm_asymmetry: float = normal(0.0, 0.18)
    elbow_flexion: float = normal(22.0, 9.0, 5.0, 60.0)
    elbow_swing: float = normal(12.0, 5.0, 0.0, 28.0)
    hand_twist: float = normal(0.0, 15.0)
    # departures of the first harmonics' amplitudes, (2 sides, OWN_HARMONICS)
    hip_harmonics: tuple[tuple[float, ...], ...] = ()
    knee_harmonics: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True)
class LegAngles:
    """Joint angles of one leg over time, degrees, each (T,)."""

    hip: Array
    knee: Array
    ankle: Array
    toe: Array


def draw_gait(seed: int, person: int) -> Gait:
    """Draw how a person walks."""
    rng = stream(Stream.GAIT, seed, person)
    hip = rng.normal(0.0, 0.06, (2, OWN_HARMONICS))
    knee = rng.normal(0.0, 0.05, (2, OWN_HARMONICS))
    return draw(
        Gait,
        rng,
        hip_harmonics=tuple(map(tuple, hip.tolist())),
        knee_harmonics=tuple(map(tuple, knee.tolist())),
    )


def leg_angles(gait: Gait, phase: Array, side: str, pace: float) -> LegAngles:
    """Angles of the leg on ``side`` ("L" or "R") at ``phase`` (T,), in cycles since that leg's heel strike.

    ``pace`` is the speed relative to the person's own; a faster walk has wider swings.
    """
    i, sign = ("L", "R").index(side), 1 if side == "L" else -1
    gain = 1 + sign * gait.leg_asymmetry
    hip = _evaluate(_own("hip", gait.hip_harmonics[i]), phase + gait.hip_lead) - 10
    hip = hip * gait.hip_gain * pace * gain + 10 + gait.hip_offset
    under_load = 12 * (gait.stance_flexion - 1) * np.exp(-0.5 * ((phase % 1 - 0.14) / 0.07) ** 2)
    knee = _evaluate(_own("knee", gait.knee_harmonics[i]), phase + gait.knee_lead)
    knee = knee * gait.knee_gain * (0.6 + 0.4 * pace) * gain + gait.knee_offset + under_load
    ankle = _evaluate(textbook("ankle"), phase) * gait.ankle_gain
    toe = _evaluate(textbook("toe"), phase)
    return LegAngles(hip, np.maximum(knee, 0), ankle, np.maximum(toe, 0))


@cache
def textbook(joint: str) -> Coefficients:
    """Complex Fourier coefficients (harmonics + 1,) of a joint's normal curve."""
    harmonics, curve = _CURVES[joint]
    percent, degrees = np.array([*curve, (100, curve[0][1])], dtype=np.float64).T
    grid = np.interp(np.arange(200) / 2, percent, degrees)
    return np.asarray(np.fft.rfft(grid)[: harmonics + 1] / 200)


def _own(joint: str, departures: tuple[float, ...]) -> Coefficients:
    coefficients = textbook(joint).copy()
    coefficients[1 : 1 + OWN_HARMONICS] *= 1 + np.array(departures)
    return coefficients


def _evaluate(coefficients: Coefficients, phase: Array) -> Array:
    """The real Fourier series at ``phase`` (T,), in cycles."""
    k = np.arange(1, len(coefficients))
    waves = np.exp(2j * np.pi * k[:, None] * phase)
    return np.asarray(coefficients[0].real + 2 * (coefficients[1:] @ waves).real)
