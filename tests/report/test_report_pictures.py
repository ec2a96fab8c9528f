"""What the report shows: pictures hold their frames, charts can be read, and commands repeat their runs."""

from __future__ import annotations

import base64
import math
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict

import cv2
import numpy as np
import pytest
import torch

from gaitdiff.config.command_line import command, differences
from gaitdiff.config.flat import plain
from gaitdiff.config.recipe import parse_config
from gaitdiff.config.schema import FinetuneConfig, PretrainConfig
from gaitdiff.data.store import SequenceStore
from gaitdiff.diffusion.denoiser import Denoiser
from gaitdiff.report.animation import ADDED, REMOVED, changed_frames, heat_frames, strip, walk
from gaitdiff.report.examples import AUGMENTATIONS, augmented, latent_example
from gaitdiff.report.figures import Level, Series, chart, smoothed, standard_error
from gaitdiff.report.page import Report
from gaitdiff.training.run_folder import read_config
from report_world import FRAMES, blobs

# --- pictures --------------------------------------------------------------------------------------------------


def decode(markup: str) -> np.ndarray:
    found = re.search(r"data:image/png;base64,([A-Za-z0-9+/=]+)", markup)
    assert found is not None
    return cv2.imdecode(np.frombuffer(base64.b64decode(found[1]), np.uint8), cv2.IMREAD_UNCHANGED)


def test_sprites_hold_the_frames() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 64, 44), dtype=np.uint8)
    markup = walk(frames, 'a "walk"')
    sheet = decode(markup).reshape(64, 5, 44).swapaxes(0, 1)
    assert np.abs(sheet.astype(int) - frames).max() <= 9  # half a step of 16 grey levels
    assert set(np.unique(sheet)) == set(range(0, 256, 17))
    assert "--n:5;--ratio:44/64" in markup
    assert 'alt="a &quot;walk&quot;"' in markup


def test_strips_hold_the_frames() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    sheet = decode(strip(frames, "frames"))
    assert sheet.shape == (8, 3 * 12 - 4, 4)
    for i in range(3):
        assert (sheet[:, 12 * i : 12 * i + 8, 2::-1] == frames[i]).all()  # PNG files are read as BGR
    assert (sheet[..., 3] > 0).sum() == 3 * 64


def test_changes_are_coloured() -> None:
    before, after = np.array([[[0.0, 1.0, 0.0, 1.0]]]), np.array([[[0.0, 1.0, 1.0, 0.0]]])
    black, kept, more, less = changed_frames(before, after)[0, 0].tolist()
    assert black == [0, 0, 0]
    assert kept == [235, 235, 235]
    assert (more, less) == (list(ADDED), list(REMOVED))


def test_heat_maps_are_symmetric_about_zero() -> None:
    zero, high, low, beyond = (heat_frames(np.full((1, 1, 1), v), 2.0)[0] for v in (0.0, 2.0, -2.0, -9.0))
    assert zero.shape == (8, 8, 3)
    assert zero.min() > 240  # nearly white
    assert (low == beyond).all()
    assert high[0, 0, 0] > high[0, 0, 2]  # orange above zero
    assert low[0, 0, 2] > low[0, 0, 0]  # purple below


def test_augmentations_do_what_their_names_say() -> None:
    frames = blobs(8, np.random.default_rng(1))
    plain = frames.astype(np.float32) / 255
    drawn = {name: augmented(frames, (name,)) for name in AUGMENTATIONS}
    np.testing.assert_array_equal(drawn["flip"], plain[:, :, ::-1])
    assert (drawn["dilate"] >= plain).all()
    for name, result in drawn.items():
        assert result.shape == plain.shape
        assert np.abs(result - plain).mean() > 1e-3, name
    np.testing.assert_array_equal(drawn["affine"], augmented(frames, ("affine",)))


def test_latents_go_through_the_autoencoder(world: Report) -> None:
    store = SequenceStore(world.store)
    example = latent_example(world.pretraining, read_config(world.pretraining), store, 6, torch.device("cpu"))
    stored = store[6].frames.astype(np.float32) / 255
    start = next(s for s in range(FRAMES - 3) if np.allclose(stored[s : s + 4], example.frames))
    blocks = stored[start : start + 4].reshape(4, 8, 8, 8, 8).mean((2, 4))
    np.testing.assert_allclose(example.latents, np.broadcast_to(blocks, (4, 4, 8, 8)), atol=1e-6)
    decoded = blocks.repeat(8, 1).repeat(8, 2)
    np.testing.assert_allclose(example.decoded, decoded, atol=1e-6)
    both, either = (example.frames > 0.5) & (decoded > 0.5), (example.frames > 0.5) | (decoded > 0.5)
    assert example.iou == pytest.approx(both.sum() / either.sum())
    assert [level.t for level in example.levels] == [100, 500, 900]
    assert all(a.alpha_bar > b.alpha_bar for a, b in zip(example.levels, example.levels[1:], strict=False))


def test_a_denoiser_that_knows_the_noise_gives_the_clip_back(world: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SequenceStore(world.store)
    config, device = read_config(world.pretraining), torch.device("cpu")
    clean = latent_example(world.pretraining, config, store, 6, device)
    latents = torch.from_numpy(clean.latents)[None]
    asked = []

    def forward(
        self: Denoiser, x: torch.Tensor, t: torch.Tensor, condition: torch.Tensor, drop: torch.Tensor
    ) -> torch.Tensor:
        asked.append((condition.shape, bool(drop.any())))
        alpha_bar = clean.levels[(100, 500, 900).index(int(t))].alpha_bar
        return (x - math.sqrt(alpha_bar) * latents) / math.sqrt(1 - alpha_bar)

    monkeypatch.setattr(Denoiser, "forward", forward)
    known = latent_example(world.pretraining, config, store, 6, device)
    for level in known.levels:
        np.testing.assert_allclose(level.predicted, known.decoded, atol=1e-4)
        assert np.abs(level.noised - known.decoded).mean() > 0.05
    assert not any(dropped for _, dropped in asked)


# --- figures and commands --------------------------------------------------------------------------------------


def test_standard_error() -> None:
    assert standard_error(50.0, 100) == pytest.approx(5.0)
    assert standard_error(0.0, 10) == 0.0
    flips = np.random.default_rng(0).binomial(40, 0.3, 200_000) / 40 * 100
    assert standard_error(30.0, 40) == pytest.approx(flips.std(), rel=0.01)


def test_smoothing_keeps_straight_lines_and_calms_noise() -> None:
    steps = np.array([*range(0, 975, 25), 958.0])  # the last two near each other
    line = 3.0 - 0.5 * steps
    np.testing.assert_allclose(smoothed(steps, line), line, atol=1e-9)
    for short in ([], [1.0], [1.0, 5.0]):
        np.testing.assert_array_equal(smoothed(np.arange(len(short)), np.array(short)), short)
    noise = np.random.default_rng(0).normal(size=300)
    assert smoothed(np.arange(300), noise).std() < 0.4 * noise.std()
    jump = np.zeros(40)
    jump[-1] = 1.0
    assert smoothed(steps, jump)[-1] < 0.6 < smoothed(np.arange(40), jump)[-1]


def test_long_series_stay_small() -> None:
    steps = np.arange(12_000)
    picture = chart("Long", [Series("noisy", steps, np.sin(steps), "blue", smooth=True)], x_label="x", y_label="y")
    assert len(picture) < 100_000


def test_chart_is_a_sound_picture_with_labels_apart() -> None:
    nan = float("nan")
    series = [
        Series("one", [0, 10, 20], [1.0, nan, 5.0], "blue", error=[1.0, 1.0, 1.0]),
        Series("two\nlines", [0, 10, 20], [2.0, 3.0, 5.001], "red"),
        Series("empty", [0, 10], [nan, nan], "green"),
    ]
    picture = chart("A <title>", series, x_label="steps", y_label="points", levels=[Level(5.0, "level"), Level(0.0)])
    root = ElementTree.fromstring(picture.replace("&nbsp;", " "))  # well-formed
    assert root.get("aria-label", "").startswith("A <title>. one: from 1 at 0 to 5 at 20.")
    assert "empty: no values." in root.get("aria-label", "")
    texts = ["".join(node.itertext()).strip() for node in root.iter("text")]
    assert {"steps", "points", "one", "level"} <= set(texts)
    assert "empty" not in texts
    places = [_height(root, name) for name in ("one", "level", "lines")]
    assert all(abs(a - b) > 9 for i, a in enumerate(places) for b in places[:i])  # points; the font has 9
    assert "nan" not in picture.lower()
    assert "var(--blue, " in picture  # colours follow the page
    assert "font-family" not in picture  # and so does the font


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_labels_stay_beside_the_axes(value: float) -> None:
    """All curves end in one corner: their labels stay apart, and between the axes' ends."""
    far = Series("far", [0, 1], [1.0 - value, 1.0 - value], "green")
    near = [Series(f"curve {i}", [0, 1], [value, value], "blue") for i in range(4)]
    picture = chart("Crowded", [far, *near], x_label="steps", y_label="points")
    root = ElementTree.fromstring(picture)
    places = sorted(_height(root, name) for name in ("curve 0", "curve 1", "curve 2", "curve 3"))
    assert min(np.diff(places)) > 9
    assert places[0] > 0
    assert places[-1] < _height(root, "0") - 5  # the first tick's label, below the axes


def _height(root: ElementTree.Element, name: str) -> float:
    node = next(node for node in root.iter("text") if "".join(node.itertext()).strip() == name)
    moved = re.search(r"translate\([-\d.]+ ([-\d.]+)\)", node.get("transform", ""))
    return float(moved[1]) if moved else float(node.get("y", "nan"))


def test_commands_repeat_their_runs(world: Report) -> None:
    pretrain, finetune = read_config(world.pretraining), read_config(world.supervised["fine-tuned"])
    words = " ".join(command(pretrain)).split()
    assert words[:2] == ["gaitdiff", "pretrain"]
    assert {"stage": "pretrain", **plain(asdict(parse_config(PretrainConfig, "gaitdiff", words[2:])))} == pretrain
    assert "--seed" not in words  # a default
    words = " ".join(command(finetune)).split()
    assert {"stage": "finetune", **plain(asdict(parse_config(FinetuneConfig, "gaitdiff", words[2:])))} == finetune


def test_settings_that_differ_are_named(world: Report) -> None:
    one, other = read_config(world.supervised["fine-tuned"]), read_config(world.supervised["from scratch"])
    assert differences(one, other) == ["optim.backbone_lr_ratio: 0.1, 1.0"]
    other["seed"] = 5
    assert differences(one, other)[1:] == ["seed: 0, 5"]
