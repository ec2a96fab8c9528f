"""The report: what is on the page, that it needs nothing beside it, and that it tells the truth."""

from __future__ import annotations

import base64
import json
import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from gaitdiff.config.flat import plain
from gaitdiff.config.recipe import parse_config
from gaitdiff.config.schema import (
    DiffusionConfig,
    ModelConfig,
    PretrainConfig,
    PretrainData,
    TransferConfig,
    TransferData,
    TransferOptim,
)
from gaitdiff.data.store import SequenceStore, StoreWriter
from gaitdiff.diffusion.autoencoder import Autoencoder
from gaitdiff.diffusion.denoiser import Denoiser
from gaitdiff.diffusion.objective import ConditionPooling
from gaitdiff.errors import UserError
from gaitdiff.evaluation.features import evaluate_store
from gaitdiff.models import create_model
from gaitdiff.report import examples
from gaitdiff.report.animation import ADDED, REMOVED, changed_frames, heat_frames, strip, walk
from gaitdiff.report.commands import command, differences
from gaitdiff.report.examples import AUGMENTATIONS, augmented, latent_example
from gaitdiff.report.figures import Level, Series, chart, smoothed, standard_error
from gaitdiff.report.neighbours import rank_gallery
from gaitdiff.report.page import BASELINE, QuickstartResult, write_report
from gaitdiff.training.checkpoint import load_checkpoint, model_document, save_checkpoint
from gaitdiff.training.run_folder import read_config

SECTIONS = ("scores", "transfer", "pretraining", "neighbours", "augmentations", "latents", "settings")
VOID = {"meta", "link", "br", "img", "input"}
FRAMES = 6


# --- a small world ---------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Pool(torch.nn.Module):
    """An autoencoder whose result is known: the mean of each 8×8 block, four times."""

    def encode_frames(self, frames: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(frames, 8).expand(-1, 4, -1, -1)

    def decode_frames(self, latents: torch.Tensor) -> torch.Tensor:
        return latents[:, :1].repeat_interleave(8, 2).repeat_interleave(8, 3).clamp(0, 1)


@pytest.fixture(autouse=True)
def _pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "load_autoencoder", lambda source, device: Autoencoder(Pool()).to(device))


def blobs(width: float, rng: np.random.Generator) -> np.ndarray:
    """Frames of a swaying ellipse: (T, 64, 64) uint8."""
    frames = np.zeros((FRAMES, 64, 64), np.uint8)
    for frame in frames:
        centre = (32 + int(rng.integers(-4, 5)), 32)
        cv2.ellipse(frame, centre, (max(2, round(width + rng.normal())), 29), 0, 0, 360, 255, -1)
    return frames


def make_store(path: Path, test_people: int = 8) -> Path:
    rng = np.random.default_rng(0)
    with StoreWriter(path, source="ellipses") as writer:
        for person in range(2 + test_people):
            split = "train" if person < 2 else "test"
            for i, view in enumerate(("cam0", "cam1", "cam2")):
                role = "" if split == "train" else "probe" if i == 0 else "gallery"
                writer.add(
                    blobs(5 + 0.8 * person, rng),
                    subject=f"p{person}",
                    condition="nm",
                    view=view,
                    sequence="s0",
                    split=split,
                    role=role,
                )
    return path


def make_run(path: Path, stage: str, config: PretrainConfig | TransferConfig, records: list[dict], seed: int) -> Path:
    """A run folder as training leaves it, with weights fresh from their initialisation."""
    path.mkdir()
    resolved = {"stage": stage, **plain(asdict(config))}
    (path / "config.yaml").write_text(yaml.safe_dump(resolved, sort_keys=False), encoding="utf-8")
    (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    torch.manual_seed(seed)
    model = create_model("smplgait", "walkers", 2)
    tensors = {"backbone": model.backbone.state_dict()}
    if stage == "pretrain":
        pooling = ConditionPooling("mean", model.backbone.channels, model.backbone.parts, False)
        tensors |= {
            "pooling": pooling.state_dict(),
            "denoiser": Denoiser.preset("walkers", pooling.width).state_dict(),
        }
    else:
        tensors["head"] = model.head.state_dict()
    document = model_document("smplgait", "walkers", 2, {})
    save_checkpoint(path, 10, tensors, {"model": document}, keep=1)
    return path


def scored(rank1: float) -> dict[str, float]:
    return {"rank1": rank1, "rank5": 75.0, "rank10": 87.5, "mAP": rank1 / 2, "mINP": 12.5, "probes": 8}


def pretrain_records() -> list[dict]:
    gap = {"gap_shuffled": 0.001, "gap_dropped": 0.02, "gap_loss": 0.5}
    logged = [
        {"step": step, "loss": 1 / step, **gap, "ap": 0.1, "an": 0.1 + step / 100, "lr": [1e-4, 5e-4]}
        for step in (5, 10)
    ]
    both = {f"{key}_{metric}": value for key, value in scored(25.0).items() for metric in ("cosine", "euclidean")}
    return [
        {"step": 0, "evaluation": {**both, "probes": 8}},
        *logged,
        {"step": 10, "evaluation": {**both, "probes": 8}},
    ]


def supervised_records(scores: tuple[float, ...]) -> list[dict]:
    evaluated = [{"step": 5 * i, "evaluation": scored(rank1)} for i, rank1 in enumerate(scores)]
    return [{"step": 5, "loss": 0.2, "violated": 0.5}, *evaluated]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> QuickstartResult:
    folder = tmp_path_factory.mktemp("world")
    store = make_store(folder / "store")
    model = ModelConfig("smplgait", "walkers")
    stage1 = PretrainConfig(
        str(folder / "pre"),
        PretrainData(str(store), latent_frames=4, gait_frames=4),
        model,
        DiffusionConfig(denoiser="walkers"),
    )
    stage2 = TransferConfig(
        str(folder / "fine"),
        TransferData(str(store)),
        "finetune",
        str(folder / "pre"),
        optim=TransferOptim(iterations=10),
    )
    scratch = replace(stage2, out=str(folder / "scratch"), mode="scratch", init="", model=model)
    return QuickstartResult(
        title="Test <of> the report",
        store=store,
        pretrain_run=make_run(folder / "pre", "pretrain", stage1, pretrain_records(), 0),
        finetuned_run=make_run(folder / "fine", "finetune", stage2, supervised_records((12.5, 37.5, 62.5)), 1),
        scratch_run=make_run(folder / "scratch", "finetune", scratch, supervised_records((0.0, 25.0, 50.0)), 2),
        scores={BASELINE: scored(37.5), "from scratch": scored(50.0), "fine-tuned": scored(62.5)},
        verdict="Fine-tuned & scratch: too few probes to tell.",
        facts={"people": "10", "machine <cores>": "2"},
    )


# --- reading a page --------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a test wants to know of a page; fails on tags that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sections: dict[str, str] = {}  # id → text
        self.links: list[str] = []  # values of attributes that could load something
        self.images: list[dict[str, str]] = []
        self.cells: list[list[str]] = []
        self.shown: list[tuple[int, str, int, str, str]] = []  # probe, model, row, class, text of each neighbour
        self._open: list[tuple[str, dict[str, str]]] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.links += [found[name] for name in ("src", "href", "srcset", "data", "xlink:href") if name in found]
        self.links += re.findall(r"url\(([^)]*)\)", found.get("style", "") + found.get("clip-path", ""))
        if tag == "img" or found.get("role") == "img":
            self.images.append(found)
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")
        if "data-row" in found:
            self.shown.append(
                (int(self._of("data-probe")), self._of("data-model"), int(found["data-row"]), found["class"], "")
            )
        if tag not in VOID and not self.get_starttag_text().endswith("/>"):
            self._open.append((tag, found))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_data(self, data: str) -> None:
        for tag, attrs in self._open:
            if tag in ("section", "header"):
                self.sections[attrs["id"]] = self.sections.get(attrs["id"], "") + data
        if any(tag in ("td", "th") for tag, _ in self._open):
            self.cells[-1][-1] += data
        if any("data-row" in attrs for _, attrs in self._open):
            self.shown[-1] = (*self.shown[-1][:4], self.shown[-1][4] + data)
        if self._open and self._open[-1][0] == "style":
            self.links += re.findall(r"url\(([^)]*)\)|@import (.*?);", data)

    def _of(self, name: str) -> str:
        return next(attrs[name] for _, attrs in reversed(self._open) if name in attrs)


@pytest.fixture(scope="module")
def text(world: QuickstartResult, tmp_path_factory: pytest.TempPathFactory) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examples, "load_autoencoder", lambda source, device: Autoencoder(Pool()).to(device))
        path = write_report(tmp_path_factory.mktemp("report") / "new", world)
    assert path.name == "index.html"
    assert [entry.name for entry in path.parent.iterdir()] == ["index.html"]
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


# --- the page --------------------------------------------------------------------------------------------------


def test_every_section_is_there(page: Page) -> None:
    assert set(page.sections) == set(SECTIONS)
    assert all(len(words.split()) > 20 for words in page.sections.values())
    assert {link for link in page.links if link.startswith("#") and link[1:] in SECTIONS} == {
        f"#{name}" for name in SECTIONS[1:]
    }


def test_nothing_is_loaded_from_elsewhere(page: Page, text: str) -> None:
    assert page.links
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert "<script" not in text
    assert "http://" not in text
    assert "https://" not in text
    assert len(text) < 3_000_000


def test_every_picture_is_described(page: Page) -> None:
    assert len(page.images) > 40
    assert all(len(image.get("alt", "") + image.get("aria-label", "")) > 10 for image in page.images)


def test_ids_are_unique_and_references_resolve(text: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    used = re.findall(r'href="#([^"]+)"', text) + re.findall(r"url\(#([^)]+)\)", text)
    assert used
    assert set(used) <= set(ids)


def test_words_are_escaped(text: str) -> None:
    assert "<h1>Test &lt;of&gt; the report</h1>" in text
    assert "Fine-tuned &amp; scratch" in text
    assert "<dt>machine &lt;cores&gt;</dt><dd>2</dd>" in text


def test_table_holds_the_scores(page: Page, world: QuickstartResult) -> None:
    rows = {cells[0]: cells for cells in page.cells[1:]}
    assert list(rows) == list(world.scores)
    for name, row in world.scores.items():
        share = row["rank1"] / 100
        error = 100 * math.sqrt(share * (1 - share) / row["probes"])
        first = f"{row['rank1']:.1f} ± {error:.1f}"
        assert rows[name][2:] == [first, "75.0", f"{row['mAP']:.1f}", "12.5", "8"]


def test_same_world_same_bytes(text: str, world: QuickstartResult, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("an older report")
    assert write_report(tmp_path, world).read_text(encoding="utf-8") == text


def test_a_folder_that_cannot_be_written(world: QuickstartResult, tmp_path: Path) -> None:
    (tmp_path / "report").write_text("a file")
    with pytest.raises(UserError, match=r"index.html cannot be written"):
        write_report(tmp_path / "report", world)


# --- what it leaves out ----------------------------------------------------------------------------------------


def test_runs_without_evaluation(world: QuickstartResult, tmp_path: Path) -> None:
    def unevaluated(run: Path) -> Path:
        copy = tmp_path / run.name
        copy.mkdir()
        (copy / "config.yaml").write_text((run / "config.yaml").read_text())
        (copy / "checkpoints").symlink_to(run / "checkpoints")
        lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
        (copy / "metrics.jsonl").write_text("".join(line for line in lines if "evaluation" not in line))
        return copy

    runs = [unevaluated(run) for run in (world.pretrain_run, world.finetuned_run, world.scratch_run)]
    bare = replace(world, pretrain_run=runs[0], finetuned_run=runs[1], scratch_run=runs[2], scores={})
    page = Page(write_report(tmp_path / "all", bare).read_text(encoding="utf-8"))
    assert "Neither run was evaluated while it trained" in page.sections["transfer"]
    assert "Raw features were not scored during pretraining" in page.sections["pretraining"]
    assert sum("aria-label" in image for image in page.images) == 4  # loss, gap, distances, ratio

    half = replace(world, scratch_run=runs[2])
    page = Page(write_report(tmp_path / "half", half).read_text(encoding="utf-8"))
    assert "The run from scratch was not evaluated" in page.sections["transfer"]
    assert "fine-tuned" in page.sections["transfer"]


def test_store_without_test_split(world: QuickstartResult, tmp_path: Path) -> None:
    alone = replace(world, store=make_store(tmp_path / "store", test_people=0))
    page = Page(write_report(tmp_path / "report", alone).read_text(encoding="utf-8"))
    assert "no test sequences" in page.sections["neighbours"]
    assert page.shown == []
    assert "held-out walk" not in page.sections["latents"]


def test_run_without_checkpoint(world: QuickstartResult, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text((world.pretrain_run / "config.yaml").read_text())
    page = Page(write_report(tmp_path / "out", replace(world, pretrain_run=tmp_path)).read_text(encoding="utf-8"))
    assert "holds no checkpoint" in page.sections["latents"]
    assert "logged no losses" in page.sections["pretraining"]


# --- neighbours ------------------------------------------------------------------------------------------------


def brute_force(run: Path, store: SequenceStore) -> dict[int, list[tuple[int, bool]]]:
    """Each probe's gallery by cosine distance of the embeddings, one pair and one part at a time."""
    model = load_checkpoint(run)
    embedded = {}
    for i in store.select(split="test"):
        clip = store[i].frames[:, :, 10:54].astype(np.float32) / 255
        with torch.no_grad():
            embedded[int(i)] = model(torch.from_numpy(clip)[None]).embedding[0].numpy().astype(np.float64)
    found = {}
    for probe in store.select(role="probe"):
        distances = []
        for other in store.select(role="gallery"):
            a, b = embedded[int(probe)], embedded[int(other)]
            parts = [1 - x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x, y in zip(a.T, b.T, strict=True)]
            distances.append((float(np.mean(parts)), int(other)))
        person = store.rows[probe].subject
        found[int(probe)] = [(row, store.rows[row].subject == person) for _, row in sorted(distances)]
    return found


def test_marks_agree_with_brute_force(page: Page, world: QuickstartResult) -> None:
    store = SequenceStore(world.store)
    truth = {
        "fine-tuned": brute_force(world.finetuned_run, store),
        "from scratch": brute_force(world.scratch_run, store),
    }
    assert {model for _, model, *_ in page.shown} == set(truth)
    for model, ranked in truth.items():
        for probe in {probe for probe, name, *_ in page.shown if name == model}:
            shown = [(row, kind, words) for p, name, row, kind, words in page.shown if (p, name) == (probe, model)]
            assert [row for row, _, _ in shown] == [row for row, _ in ranked[probe][:5]]
            for (_, kind, words), (row, right) in zip(shown, ranked[probe], strict=False):
                assert kind == ("tile right" if right else "tile wrong")
                assert words.startswith("✓ right" if right else "✗ wrong")
                assert store.rows[row].subject in words


def test_probes_are_picked_by_the_rule(page: Page, world: QuickstartResult) -> None:
    store = SequenceStore(world.store)
    tuned, scratch = (
        {probe: ranked[0][1] for probe, ranked in brute_force(run, store).items()}
        for run in (world.finetuned_run, world.scratch_run)
    )
    rights, wrongs = ([p for p in tuned if tuned[p] is hit] for hit in (True, False))
    assert rights  # the world has both, or this test would test little
    assert wrongs
    expected = [rights[0], wrongs[0]]
    expected += [p for p in tuned if tuned[p] != scratch[p] and p not in expected][:1]
    assert list(dict.fromkeys(probe for probe, *_ in page.shown)) == expected


@pytest.mark.parametrize("protocol", ["gait3d", "leave-one-out"])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_ranking_agrees_with_evaluation(world: QuickstartResult, protocol: str, metric: str) -> None:
    store = SequenceStore(world.store)
    rows = store.select(split="test")
    features = torch.randn(len(rows), 3, 2, generator=torch.Generator().manual_seed(0))
    ranking = rank_gallery(features, rows, store, protocol, metric)
    scores = evaluate_store(features, store, rows, protocol, metric)
    assert 100 * ranking.right[:, 0].mean() == pytest.approx(scores["rank1"])
    assert 100 * ranking.right.any(1).mean() == pytest.approx(scores["rank5"])
    assert len(ranking.probes) == scores["probes"]
    assert (np.diff(ranking.distances, axis=1) >= 0).all()
    assert all(probe not in nearest for probe, nearest in zip(ranking.probes, ranking.nearest, strict=True))


@pytest.mark.parametrize("protocol", ["gait3d", "leave-one-out"])
def test_nobody_to_find(world: QuickstartResult, protocol: str) -> None:
    store = SequenceStore(world.store)
    rows = store.select(role="probe")  # one sequence a person, so nobody else's is anyone's
    with pytest.raises(UserError, match="gives no score"):
        rank_gallery(torch.ones(len(rows), 2, 1), rows, store, protocol, "cosine")


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


def test_latents_go_through_the_autoencoder(world: QuickstartResult) -> None:
    store = SequenceStore(world.store)
    example = latent_example(world.pretrain_run, read_config(world.pretrain_run), store, 6, torch.device("cpu"))
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


def test_a_denoiser_that_knows_the_noise_gives_the_clip_back(
    world: QuickstartResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SequenceStore(world.store)
    config, device = read_config(world.pretrain_run), torch.device("cpu")
    clean = latent_example(world.pretrain_run, config, store, 6, device)
    latents = torch.from_numpy(clean.latents)[None]
    asked = []

    def forward(
        self: Denoiser, x: torch.Tensor, t: torch.Tensor, condition: torch.Tensor, drop: torch.Tensor
    ) -> torch.Tensor:
        asked.append((condition.shape, bool(drop.any())))
        alpha_bar = clean.levels[(100, 500, 900).index(int(t))].alpha_bar
        return (x - math.sqrt(alpha_bar) * latents) / math.sqrt(1 - alpha_bar)

    monkeypatch.setattr(Denoiser, "forward", forward)
    known = latent_example(world.pretrain_run, config, store, 6, device)
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
    line = 3.0 - 0.5 * np.arange(40)
    np.testing.assert_allclose(smoothed(line), line, atol=1e-9)
    for short in ([], [1.0], [1.0, 5.0]):
        np.testing.assert_array_equal(smoothed(np.array(short)), short)
    noise = np.random.default_rng(0).normal(size=300)
    assert smoothed(noise).std() < 0.4 * noise.std()


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


def test_commands_repeat_their_runs(world: QuickstartResult) -> None:
    pretrain, finetune = read_config(world.pretrain_run), read_config(world.finetuned_run)
    words = " ".join(command(pretrain)).split()
    assert words[:2] == ["gaitdiff", "pretrain"]
    assert {"stage": "pretrain", **plain(asdict(parse_config(PretrainConfig, "gaitdiff", words[2:])))} == pretrain
    assert "--seed" not in words  # a default
    words = " ".join(command(finetune)).split()
    assert {"stage": "finetune", **plain(asdict(parse_config(TransferConfig, "gaitdiff", words[2:])))} == finetune


def test_settings_that_differ_are_named(world: QuickstartResult) -> None:
    one, other = read_config(world.finetuned_run), read_config(world.scratch_run)
    assert differences(one, other) == ["optim.backbone_lr_ratio: 0.1, 1.0"]
    other["seed"] = 5
    assert differences(one, other)[1:] == ["seed: 0, 5"]
