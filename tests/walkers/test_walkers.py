"""Walkers: deterministic, human, recognisable, and split as the protocol wants."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pytest

from gaitdiff.data.align import align_sequence
from gaitdiff.data.store import SequenceStore
from gaitdiff.errors import UserError
from gaitdiff.walkers import Preset, generate, list_presets, render_sequence
from gaitdiff.walkers.body import BONE, load_body_model
from gaitdiff.walkers.camera import Corner, Track, View, assign_camera, follow, place_cameras
from gaitdiff.walkers.degrade import degrade
from gaitdiff.walkers.draws import Stream, stream
from gaitdiff.walkers.gait import leg_angles
from gaitdiff.walkers.person import Person, draw_person
from gaitdiff.walkers.pose import pose_body, walking_phase
from gaitdiff.walkers.presets import get_preset
from gaitdiff.walkers.render import MARGIN, render_masks
from gaitdiff.walkers.walk import Flaws, Load, Manner, Occluder, Walk, draw_walk

SIDE_VIEW = Preset("side", cameras=2, yaw_spread=0, pitch=(0, 5), distance=(9, 11), height=(100, 120), strength=0)
PLAIN = Load(bag=None, coat=None, bulk=0.0, phone="", pockets="")
STEADY = Manner(pace=1, cadence=0, drift=0, phase=0, jitter=0, turn=0, arm_gain=1, lean=0, head_pitch=0, head_yaw=0)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SequenceStore:
    out = tmp_path_factory.mktemp("walkers") / "wild"
    assert generate(out, people=7, sequences=3, preset="wild", seed=5, frames=12, workers=1) == out
    return SequenceStore(out)


# --- determinism


def test_another_process_with_other_thread_settings_draws_the_same_bytes() -> None:
    code = (
        "import cv2, hashlib; from gaitdiff.walkers import render_sequence; cv2.setNumThreads(2); "
        "print(hashlib.sha256(b''.join(render_sequence(3, p, 1, 'wild', 20).tobytes() for p in range(4))).hexdigest())"
    )
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    other = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    here = hashlib.sha256(b"".join(render_sequence(3, p, 1, "wild", 20).tobytes() for p in range(4)))
    assert other.stdout.strip() == here.hexdigest()


def test_number_of_workers_changes_no_byte(store: SequenceStore, tmp_path: Path) -> None:
    out = generate(tmp_path / "two", people=7, sequences=3, preset="wild", seed=5, frames=12, workers=2)
    for name in ("frames.bin", "manifest.csv"):
        assert (out / name).read_bytes() == (store.path / name).read_bytes()


def test_render_sequence_draws_what_generate_writes(store: SequenceStore) -> None:
    for i in (0, 10, 20):
        row = store.rows[i]
        alone = render_sequence(5, int(row.subject[1:]), int(row.sequence[1:]), "wild", 12)
        assert np.array_equal(store[i].frames, alone)


def test_seeds_people_and_sequences_differ() -> None:
    names = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    assert len({render_sequence(*name, "lite", 4).tobytes() for name in names}) == len(names)


# --- frames


@pytest.mark.parametrize("preset", list_presets())
def test_frames_are_aligned_silhouettes(preset: str) -> None:
    frames = np.concatenate([render_sequence(1, person, 0, preset, 15) for person in range(8)])
    assert frames.dtype == np.uint8
    assert frames.shape[1:] == (64, 64)
    assert preset == "market" or len(frames) == 8 * 15
    filled = (frames > 0).any(axis=2)  # (N, 64): rows with foreground
    assert filled[:, :2].any(axis=1).mean() > 0.98
    assert filled[:, -2:].any(axis=1).mean() > 0.98
    mass = frames.sum(axis=1, dtype=np.int64).cumsum(axis=1)
    centre = (mass <= mass[:, -1:] / 2).sum(axis=1)
    assert (np.abs(centre - 32) <= 1).mean() > 0.98
    share = (frames > 127).mean(axis=(1, 2))
    assert 0.1 < share.mean() < 0.35


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Mean intersection over union of two rows of silhouettes, bool (T, 64, 64), each pair shifted for the best."""
    shifts = np.stack([np.roll(b, d, axis=2) for d in (-2, -1, 0, 1, 2)])
    iou = (a & shifts).sum(axis=(2, 3)) / (a | shifts).sum(axis=(2, 3))  # (5, T)
    return float(iou.max(axis=0).mean())


def test_motion_is_smooth() -> None:
    for person in range(4):
        frames = render_sequence(2, person, 0, SIDE_VIEW, 30) > 127
        alike = [overlap(frames[:-lag], frames[lag:]) for lag in (1, 3, 6)]
        assert alike[0] > 0.75
        assert alike[0] > alike[1] > alike[2]


# --- people


def test_gait_energy_image_recognises_people_and_wild_is_harder() -> None:
    people, sequences = 20, 4
    rank1 = {}
    for preset in list_presets():
        walks = [(p, s) for p in range(people) for s in range(sequences)]
        energy = np.stack([render_sequence(0, p, s, preset, 30).mean(axis=0).ravel() for p, s in walks])
        energy /= np.linalg.norm(energy, axis=1, keepdims=True)
        likeness = energy @ energy.T
        np.fill_diagonal(likeness, -1)
        label = np.arange(len(walks)) // sequences
        rank1[preset] = (label[likeness.argmax(axis=1)] == label).mean()
    chance = (sequences - 1) / (people * sequences - 1)
    assert rank1["lite"] > 10 * chance
    assert rank1["lite"] > rank1["wild"] > 3 * chance


def film(person: Person, yaw: float, phase: float, frames: int) -> np.ndarray:
    """A steady walk before a camera 10 m away, without any flaw, aligned: uint8 (T, 64, 64)."""
    model = load_body_model()
    view = View(yaw=yaw, pitch=5, distance=10, height=120)
    walk = Walk(replace(STEADY, phase=phase), "cam00", view, PLAIN, Flaws())
    body = model.body(person.shape)
    return align_sequence(render_masks(model, body, person, walk, frames, np.random.default_rng(0)))


def symmetric(person: Person) -> Person:
    hip, knee = person.gait.hip_harmonics[0], person.gait.knee_harmonics[0]
    both = {"hip_harmonics": (hip, hip), "knee_harmonics": (knee, knee)}
    return replace(person, gait=replace(person.gait, leg_asymmetry=0, arm_asymmetry=0, **both))


def test_legs_open_and_close_at_the_persons_cadence() -> None:
    for number in range(5):
        person = symmetric(draw_person(9, number, load_body_model().components))
        width = (film(person, 90, 0, 80)[:, 50:62] > 127).any(axis=1).sum(axis=1).astype(np.float64)
        spectrum = np.abs(np.fft.rfft((width - width.mean()) * np.hanning(len(width)), n=4096))
        steps_a_second = (spectrum[82:].argmax() + 82) / 4096 * 25  # from 0.5 a second: slower is passing by
        assert 2 / steps_a_second == pytest.approx(person.gait.period, rel=0.04)


def test_curves_have_the_landmarks_of_normal_gait() -> None:
    """Perry (1992): knee straight at heel strike, heel rise and push-off around 60 %, knee flexed by 60° in swing."""
    none = ((0.0,) * 3,) * 2
    plain = {"hip_gain": 1, "hip_offset": 0, "hip_lead": 0, "knee_gain": 1, "knee_offset": 0, "knee_lead": 0}
    plain |= {"stance_flexion": 1, "ankle_gain": 1, "leg_asymmetry": 0}
    gait = replace(draw_person(0, 0, 16).gait, **plain, hip_harmonics=none, knee_harmonics=none)
    leg = leg_angles(gait, np.arange(100) / 100, "L", pace=1.0)
    assert 55 < leg.knee.max() < 65
    assert 68 <= leg.knee.argmax() <= 78
    assert leg.knee[0] < 10
    assert -15 < leg.hip.min() < -5
    assert 45 <= leg.hip.argmin() <= 58
    assert -22 < leg.ankle.min() < -12
    assert 60 <= leg.ankle.argmin() <= 70


def test_feet_on_the_ground_move_back_and_arms_swing_against_legs() -> None:
    model = load_body_model()
    for number in range(6):
        person = draw_person(4, number, model.components)
        joints = model.body(person.shape).joints
        phase = walking_phase(person.gait, STEADY, 100, np.random.default_rng(0))
        places = pose_body(joints, person.gait, STEADY, PLAIN, phase).positions  # (22, T, 3), facing -y
        feet = places[[BONE["toeL"], BONE["toeR"]]]
        speed = np.diff(feet[..., 1], axis=1) * 25  # (2, T - 1), backwards, m/s
        lower = feet[:, :-1, 2].argmin(axis=0)
        assert 0.6 < np.median(speed[lower, np.arange(99)]) < 2.0
        for side in "LR":
            hand, foot = places[BONE["hand" + side], :, 1], places[BONE["foot" + side], :, 1]
            assert np.corrcoef(hand, foot)[0, 1] < -0.5


def test_a_symmetric_walker_looks_mirrored_from_the_other_side_half_a_cycle_later() -> None:
    for number in range(3):
        person = symmetric(draw_person(6, number, load_body_model().components))
        left = film(person, 50, 0.0, 20) > 127
        right = film(person, 310, 0.5, 20)[:, :, ::-1] > 127
        unshifted = film(person, 310, 0.0, 20)[:, :, ::-1] > 127
        assert overlap(left, right) > 0.9
        assert overlap(left, unshifted) < 0.85


def test_the_asset_is_small_and_its_weights_sum_to_one() -> None:
    asset = files("gaitdiff.walkers") / "assets" / "body.npz"
    assert len(asset.read_bytes()) <= 300_000
    model = load_body_model()
    assert model.weights.sum(axis=1) == pytest.approx(1)
    body = model.body(np.zeros(model.components))
    assert 1.5 < np.ptp(body.points[:, 2]) < 2.0
    covered = np.concatenate([part.points for part in model.parts])
    assert sorted(covered) == list(range(len(model.weights)))


# --- what goes wrong


def boxes(frames: int = 30) -> np.ndarray:
    masks = np.zeros((frames, 100, 60), np.uint8)
    masks[:, MARGIN:-MARGIN, 20:40] = 255
    return masks


def test_no_flaws_change_nothing() -> None:
    masks = boxes()
    assert np.array_equal(degrade(masks, Flaws(), np.random.default_rng(0)), masks)


def test_cut_feet_are_gone_and_the_rest_stays() -> None:
    cut = degrade(boxes(), Flaws(feet_cut=0.25), np.random.default_rng(0))
    edge = MARGIN + int(0.75 * (100 - 2 * MARGIN))
    assert not cut[:, edge:].any()
    assert np.array_equal(cut[:, :edge], boxes()[:, :edge])


def test_a_pole_passes_once_across_the_picture() -> None:
    pole = Occluder(width=0.05, start=0.0, travel=1.0)
    hidden = boxes() != degrade(boxes(), Flaws(occluder=pole), np.random.default_rng(0))
    seen = hidden.any(axis=1)  # (T, w)
    centre = [np.flatnonzero(columns).mean() for columns in seen if columns.any()]
    assert 5 < len(centre) < 25
    assert (np.diff(centre) >= 0).all()


def test_small_pieces_drop_out_frame_by_frame() -> None:
    flaws = Flaws(ragged=0.9, holes=0.5, lost=1.0)
    rough = degrade(boxes(), flaws, np.random.default_rng(1))
    assert not np.array_equal(rough, boxes())
    for mask in rough:
        area = cv2.connectedComponentsWithStats(mask, connectivity=8)[2][1:, cv2.CC_STAT_AREA]
        assert len(area) >= 1
        assert area.min() >= 0.04 * area.max()


# --- the data set


def test_train_and_test_share_nobody_and_every_test_person_has_one_cross_camera_probe(store: SequenceStore) -> None:
    subjects = {split: {row.subject for row in store.rows if row.split == split} for split in ("train", "test")}
    assert len(subjects["train"]) == 5
    assert len(subjects["test"]) == 2
    assert not subjects["train"] & subjects["test"]
    assert all(row.role == "" for row in store.rows if row.split == "train")
    for subject in subjects["test"]:
        rows = [row for row in store.rows if row.subject == subject]
        probes = [row for row in rows if row.role == "probe"]
        gallery = [row for row in rows if row.role == "gallery"]
        assert len(probes) == 1
        assert len(gallery) == 2
        assert any(row.view != probes[0].view for row in gallery)


def test_rows_say_what_is_worn_and_have_the_frames_asked_for(store: SequenceStore) -> None:
    store.verify()
    assert {row.frames for row in store.rows} == {12}
    assert {row.condition for row in store.rows} <= {"nm", "bag", "coat", "bag+coat"}
    assert len({row.condition for row in store.rows}) > 1
    assert [row.subject for row in store.rows] == sorted(row.subject for row in store.rows)


@pytest.mark.parametrize("preset", list_presets())
def test_sequences_of_one_person_come_from_different_cameras(preset: str) -> None:
    cameras = place_cameras(0, get_preset(preset))
    for person in range(5):
        seen = [assign_camera(cameras, 0, person, s).name for s in range(len(cameras))]
        assert len(set(seen)) == len(cameras)
    spread = get_preset(preset).yaw_spread
    assert all(min(abs(camera.yaw - side) for side in (90, 270)) <= spread for camera in cameras)


@pytest.mark.parametrize(
    ("people", "given", "held_out"), [(2, None, 0), (4, None, 2), (10, None, 3), (40, None, 12), (4, 0, 0)]
)
def test_number_of_test_people(tmp_path: Path, people: int, given: int | None, held_out: int) -> None:
    out = generate(tmp_path / "x", people=people, sequences=2, frames=1, test_people=given, workers=1)
    assert len({row.subject for row in SequenceStore(out).rows if row.split == "test"}) == held_out


def test_streams_are_independent_of_each_other() -> None:
    draws = {(kind, name): stream(kind, 0, name).random() for kind in Stream for name in (0, 1)}
    assert len(set(draws.values())) == len(draws)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"people": 1}, "people"),
        ({"sequences": 1}, "sequences"),
        ({"frames": 0}, "frames"),
        ({"frames": 1001}, "frames is 1001, but walkers walk for at most 1000"),
        ({"sequences": 2501}, "at most 2500 of 40 frames are made of a person"),
        ({"seed": -1}, "seed"),
        ({"workers": 0}, "workers"),
        ({"workers": 100_000}, "workers is 100000, but must be at most"),
        ({"preset": "wlid"}, "'wild'"),
        ({"test_people": 1}, "test_people"),
        ({"test_people": 5}, "test_people"),
    ],
)
def test_wrong_arguments_are_named_and_nothing_is_written(tmp_path: Path, wrong: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        generate(tmp_path / "x", **{"people": 4, "sequences": 2, "workers": 1, **wrong})
    assert not list(tmp_path.iterdir())


def test_an_existing_target_stays(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(UserError, match="exists"):
        generate(tmp_path / "x", people=2, sequences=2, workers=1)
    assert not list((tmp_path / "x").iterdir())


def test_a_market_sees_people_again(tmp_path: Path) -> None:
    store = SequenceStore(generate(tmp_path / "m", people=6, sequences=6, preset="market", frames=12, test_people=4))
    assert len(store) == 6 * 6 + 2
    rows = {name: [row for row in store.rows if row.subject == name] for name in {row.subject for row in store.rows}}
    for person in range(6):
        cameras = [row.view for row in rows[f"p{person:04d}"]]
        assert len(set(cameras)) == 3
        assert cameras[:3] == cameras[3:]
    probes = [row for row in store.rows if row.role == "probe"]
    assert [row.subject for row in probes] == ["p0002", "p0003", "p0004", "p0005"]
    for probe in probes:  # the gallery has its camera
        assert any(row.view == probe.view and row.role == "gallery" for row in rows[probe.subject])
    for name in ("p0006", "p0007"):
        assert [(row.split, row.role) for row in rows[name]] == [("test", "gallery")]
    lengths = [row.frames for row in store.rows]
    assert min(lengths) >= 4
    assert max(lengths) <= 33
    assert 8 <= np.median(lengths) <= 17
    assert len(set(lengths)) > 8


def seen_from(track: Track) -> np.ndarray:
    """Degrees between where the walker goes and the camera, over time."""
    right = track.axes[:, 0]
    return np.rad2deg(np.unwrap(np.arctan2(right[:, 1], right[:, 0])))


def test_a_walker_turns_around_a_corner() -> None:
    """Far from the camera, bearing is heading; a corner of no angle is a straight way past it."""
    far = follow(View(yaw=30.0, pitch=0.0, distance=1e6, height=100), 101, 0.0, Corner(80.0, middle=0.0, length=2.0))
    assert seen_from(far)[[0, 25, 50, 75, 100]] == pytest.approx([-10, -10, 30, 70, 70], abs=1.7)
    assert np.all(np.diff(seen_from(far)) > -1e-6)
    past = follow(View(yaw=90.0, pitch=0.0, distance=5.0, height=100), 101, 0.0, Corner(0.0, middle=0.0, length=2.0))
    along = 1.25 * (np.arange(101) - 50) / 25
    assert past.distance == pytest.approx(np.hypot(5.0, along))
    assert seen_from(past) == pytest.approx(90 + np.rad2deg(np.arctan2(along, 5.0)))


def test_in_a_market_alone_people_turn() -> None:
    cameras = {name: place_cameras(0, get_preset(name)) for name in list_presets()}
    walks = {name: draw_walk(0, 1, 2, cameras[name][0], get_preset(name)) for name in list_presets()}
    assert [name for name, walk in walks.items() if walk.corner is not None] == ["market"]
