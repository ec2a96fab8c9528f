"""The report: what is on the page, that it needs nothing beside it, and that it tells the truth."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from gaitdiff.data.store import SequenceStore
from gaitdiff.errors import UserError
from gaitdiff.evaluation.stored import evaluate_store
from gaitdiff.report import examples
from gaitdiff.report.neighbours import rank_gallery
from gaitdiff.report.page import Report, write_report
from gaitdiff.training.checkpoint import load_checkpoint
from report_world import load_pool, make_store

SECTIONS = ("scores", "transfer", "pretraining", "neighbours", "augmentations", "latents", "settings")
VOID = {"meta", "link", "br", "img", "input"}


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
def text(world: Report, tmp_path_factory: pytest.TempPathFactory) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examples, "load_autoencoder", load_pool)
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


def test_table_holds_the_scores(page: Page, world: Report) -> None:
    rows = {cells[0]: cells for cells in page.cells[1:]}
    assert list(rows) == list(world.scores)
    for name, row in world.scores.items():
        share = row["rank1"] / 100
        error = 100 * math.sqrt(share * (1 - share) / row["probes"])
        first = f"{row['rank1']:.1f} ± {error:.1f}"
        assert rows[name][2:] == [first, "75.0", f"{row['mAP']:.1f}", "12.5", "8"]


def test_same_world_same_bytes(text: str, world: Report, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(text.replace("<title>", "<title>older "))
    assert write_report(tmp_path, world).read_text(encoding="utf-8") == text


@pytest.mark.parametrize("name", ["index.html", "store.json"])
def test_what_others_keep_is_not_written_over(name: str, world: Report, tmp_path: Path) -> None:
    mine = "<h1>my page on gaitdiff</h1>"
    (tmp_path / name).write_text(mine)
    with pytest.raises(UserError, match="is there and holds no report"):
        write_report(tmp_path, world)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == mine


def test_a_folder_that_cannot_be_written(world: Report, tmp_path: Path) -> None:
    (tmp_path / "report").write_text("a file")
    with pytest.raises(UserError, match=r"index.html cannot be written"):
        write_report(tmp_path / "report", world)


# --- what it leaves out ----------------------------------------------------------------------------------------


def test_runs_without_evaluation(world: Report, tmp_path: Path) -> None:
    def unevaluated(run: Path) -> Path:
        copy = tmp_path / run.name
        copy.mkdir()
        (copy / "config.yaml").write_text((run / "config.yaml").read_text())
        (copy / "checkpoints").symlink_to(run / "checkpoints")
        lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
        (copy / "metrics.jsonl").write_text("".join(line for line in lines if "evaluation" not in line))
        return copy

    runs = [
        unevaluated(run)
        for run in (world.pretraining, world.supervised["fine-tuned"], world.supervised["from scratch"])
    ]
    bare = replace(world, pretraining=runs[0], supervised={"fine-tuned": runs[1], "from scratch": runs[2]}, scores={})
    page = Page(write_report(tmp_path / "all", bare).read_text(encoding="utf-8"))
    assert "No run was evaluated while it trained" in page.sections["transfer"]
    assert "Raw features were not scored during pretraining" in page.sections["pretraining"]
    assert sum("aria-label" in image for image in page.images) == 4  # loss, gap, distances, ratio

    half = replace(world, supervised=world.supervised | {"from scratch": runs[2]})
    page = Page(write_report(tmp_path / "half", half).read_text(encoding="utf-8"))
    assert "The run from scratch was not evaluated" in page.sections["transfer"]
    assert "fine-tuned" in page.sections["transfer"]


def test_scores_that_some_evaluations_lack_are_left_out(world: Report, tmp_path: Path) -> None:
    """GREW's protocol gives no mAP, and a probe may be switched off where a run goes on."""

    def without(run: Path, lacks: Callable[[str, int], bool]) -> Path:
        (copy := tmp_path / run.name).mkdir()
        (copy / "config.yaml").write_text((run / "config.yaml").read_text())
        (copy / "checkpoints").symlink_to(run / "checkpoints")
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        evaluated = [record for record in records if "evaluation" in record]
        for number, record in enumerate(evaluated):
            kept = {key: value for key, value in record["evaluation"].items() if not lacks(key, number)}
            record["evaluation"] = kept
        (copy / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        return copy

    pretraining = without(world.pretraining, lambda key, number: "mAP" in key or (number > 0 and "whitened" in key))
    tuned = without(world.supervised["fine-tuned"], lambda key, number: key == "mAP")
    some = replace(world, pretraining=pretraining, supervised={"fine-tuned": tuned})
    page = Page(write_report(tmp_path / "report", some).read_text(encoding="utf-8"))
    for section in ("transfer", "pretraining"):
        assert "Rank-1" in page.sections[section]
        assert "mAP o" not in page.sections[section]


def test_scores_by_the_number_of_labels(world: Report, tmp_path: Path) -> None:
    """They stand in place of the runs' curves, numbers as they are and arms by their names."""
    table = [
        {
            "people": people,
            **{
                score: {
                    "scratch": {"scores": [40.0, 42.0]},
                    "mine": {"scores": [45.0, 48.0], "difference": 5.5, "interval": [-1.25, 8.0]},
                }
                for score in ("rank1", "mAP")
            },
        }
        for people in (5, 40)
    ]
    page = Page(write_report(tmp_path, replace(world, labels=table)).read_text(encoding="utf-8"))
    rows = [row for row in page.cells if row[1:2] and row[1].startswith("from")]
    assert [row[:2] for row in rows] == [
        ["5 labelled people", "from scratch"],
        ["", "from mine"],
        ["40 labelled people", "from scratch"],
        ["", "from mine"],
    ]
    assert rows[1][2:] == ["46.5", "+5.5 (-1.2 to +8.0)"] * 2
    charts = [image["aria-label"] for image in page.images if "held-out people" in image.get("aria-label", "")]
    assert len(charts) == 2
    assert all("mine" in chart and "46.5" in chart for chart in charts)


def test_store_without_test_split(world: Report, tmp_path: Path) -> None:
    alone = replace(world, store=make_store(tmp_path / "store", test_people=0))
    page = Page(write_report(tmp_path / "report", alone).read_text(encoding="utf-8"))
    assert "no test sequences" in page.sections["neighbours"]
    assert page.shown == []
    assert "held-out walk" not in page.sections["latents"]


def test_run_without_checkpoint(world: Report, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text((world.pretraining / "config.yaml").read_text())
    page = Page(write_report(tmp_path / "out", replace(world, pretraining=tmp_path)).read_text(encoding="utf-8"))
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


def test_marks_agree_with_brute_force(page: Page, world: Report) -> None:
    store = SequenceStore(world.store)
    truth = {
        "fine-tuned": brute_force(world.supervised["fine-tuned"], store),
        "from scratch": brute_force(world.supervised["from scratch"], store),
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


def test_probes_are_picked_by_the_rule(page: Page, world: Report) -> None:
    store = SequenceStore(world.store)
    tuned, scratch = (
        {probe: ranked[0][1] for probe, ranked in brute_force(run, store).items()}
        for run in (world.supervised["fine-tuned"], world.supervised["from scratch"])
    )
    rights, wrongs = ([p for p in tuned if tuned[p] is hit] for hit in (True, False))
    assert rights  # the world has both, or this test would test little
    assert wrongs
    expected = [rights[0], wrongs[0]]
    expected += [p for p in tuned if tuned[p] != scratch[p] and p not in expected][:1]
    assert list(dict.fromkeys(probe for probe, *_ in page.shown)) == expected


@pytest.mark.parametrize("protocol", ["gait3d", "leave-one-out"])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_ranking_agrees_with_evaluation(world: Report, protocol: str, metric: str) -> None:
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
def test_nobody_to_find(world: Report, protocol: str) -> None:
    store = SequenceStore(world.store)
    rows = store.select(role="probe")  # one sequence a person, so nobody else's is anyone's
    with pytest.raises(UserError, match="gives no score"):
        rank_gallery(torch.ones(len(rows), 2, 1), rows, store, protocol, "cosine")
