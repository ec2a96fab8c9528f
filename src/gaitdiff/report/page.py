"""A report of runs: one HTML file that needs nothing beside it, neither network nor scripts."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import torch

from gaitdiff.errors import UserError
from gaitdiff.evaluation.features import BASELINE
from gaitdiff.report import curves, pictures
from gaitdiff.report.figures import standard_error
from gaitdiff.report.pieces import left_out
from gaitdiff.report.settings import settings
from gaitdiff.utils.files import NamesAndDrafts, write_whole


@dataclass(frozen=True)
class Report:
    """What is to be reported.

    Attributes:
        title: heading of the page.
        store: sequence store.
        pretraining: run folder of ``gaitdiff pretrain``; None where there is none.
        supervised: run folders of ``gaitdiff finetune`` by name; the first two are compared probe by probe.
        scores: row of the table → ``rank1``, ``rank5``, ``mAP``, ``mINP`` in percent, and ``probes``; the row
            ``"gait energy image"``, if there, is drawn into the figures.
        verdict: what the numbers do and do not show.
        facts: settings worth knowing, by name.
        named: what the scores are of: runs and steps, store, protocol, distance, how many were compared.
        labels: scores by the number of labelled people, see ``gaitdiff.commands.label_curve.LabelCurve``; they stand
            in place of the runs' curves.
    """

    title: str
    store: Path
    pretraining: Path | None
    supervised: Mapping[str, Path]
    scores: dict[str, dict[str, float]]
    verdict: str
    facts: dict[str, str]
    named: tuple[str, ...] = ()
    labels: Sequence[Mapping[str, Any]] = ()


def write_report(folder: Path, result: Report, device: torch.device | str = "cpu") -> Path:
    """Write ``folder/index.html``.

    What cannot be shown (a run without evaluations, a store without a test split) is left out, with a sentence in its
    place that says so.

    Args:
        device: where embeddings and latents are computed.

    Raises:
        UserError: the page cannot be written, or the folder holds something else.
    """
    _refuse_foreign(folder)
    parts = _parts(result, torch.device(device))
    content = {
        "title": html.escape(result.title),
        "style": _asset("page.css"),
        "verdict": html.escape(result.verdict),
        "scores": score_table(result.scores, result.named) if result.scores else "",
        "contents": " ".join(f'<a href="#{name}">{heading}</a>' for name, heading, _ in parts),
        "sections": "\n".join(
            f'<section id="{name}">\n<h2>{heading}</h2>\n{_built(build)}\n</section>' for name, heading, build in parts
        ),
    }
    return _write(folder, Template(_asset("page.html")).substitute(content))


def _parts(result: Report, place: torch.device) -> list[tuple[str, str, Callable[[], str]]]:
    """Sections of the page: name, heading, and what builds it."""
    store, pretraining, supervised = result.store, result.pretraining, result.supervised
    baseline, labels = result.scores.get(BASELINE), result.labels
    parts: list[tuple[str, str, Callable[[], str]]] = []
    if labels:
        parts.append(("transfer", "With and without pretraining", lambda: curves.by_labels(labels, baseline)))
    elif supervised:
        heading = "With and without pretraining" if len(supervised) > 1 else "What recognition learned"
        parts.append(("transfer", heading, lambda: curves.transfer(supervised, baseline)))
    if pretraining is not None:
        parts.append(("pretraining", "What pretraining did", lambda: curves.pretraining(pretraining, baseline)))
    if supervised:
        heading = "Who the models take for whom" if len(supervised) > 1 else "Who the model takes for whom"
        parts.append(("neighbours", heading, lambda: pictures.neighbours(store, supervised, place)))
    if pretraining is not None:
        parts.append(("augmentations", "Augmentations", lambda: pictures.augmentations(store, pretraining)))
        parts.append(("latents", "Latents and noise", lambda: pictures.latents(store, pretraining, place)))
    runs = [*([pretraining] if pretraining else []), *supervised.values()]
    parts.append(("settings", "Settings, commands, words", lambda: settings(result.facts, runs, store)))
    return parts


def score_table(scores: dict[str, dict[str, float]], named: Sequence[str] = ()) -> str:
    """Scores by what was compared, as an HTML table, and below it what they are of.

    Rank-1 has its binomial standard error.
    """
    heads = "".join(f"<th>{name}</th>" for name in ("rank-1", "rank-5", "mAP", "mINP", "probes"))
    rows = "\n".join(_score_row(name, row) for name, row in scores.items())
    return (
        '<div class="scroll"><table>\n'
        f'<thead><tr><th>features</th><th class="whisker"><span class="muted">rank-1, 0 to 100 %</span></th>'
        f"{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>\n"
        '<p class="note">Percent, on people held out from training. ± is one binomial standard error over the '
        "probes; differences below about twice as much may be chance.</p>"
        + (f'<p class="note">{"<br>".join(map(html.escape, named))}</p>' if named else "")
    )


def _score_row(name: str, row: dict[str, float]) -> str:
    error = standard_error(row["rank1"], row["probes"])
    low, high = max(row["rank1"] - error, 0.0), min(row["rank1"] + error, 100.0)
    picture = (
        '<svg viewBox="-4 0 188 16" aria-hidden="true">'
        '<path d="M0 8H180" stroke="var(--rule)"/>'
        f'<path d="M{1.8 * low:.1f} 8H{1.8 * high:.1f}" stroke="var(--blue)" stroke-width="4" opacity=".35"/>'
        f'<circle cx="{1.8 * row["rank1"]:.1f}" cy="8" r="4" fill="var(--blue)"/></svg>'
    )
    first = f'{row["rank1"]:.1f} <span class="error">± {error:.1f}</span>'
    others = (f"{row[key]:.1f}" if key in row else "" for key in ("rank5", "mAP", "mINP"))
    numbers = (first, *others, f"{int(row['probes'])}")
    return (
        f'<tr><th scope="row">{html.escape(name)}</th><td class="whisker">{picture}</td>'
        f"{''.join(f'<td>{number}</td>' for number in numbers)}</tr>"
    )


def _built(build: Callable[[], str]) -> str:
    try:
        return build()
    except UserError as error:
        return left_out(str(error))


def _asset(name: str) -> str:
    return (resources.files("gaitdiff.report") / name).read_text(encoding="utf-8")


def _refuse_foreign(folder: Path) -> None:
    """Refuse a folder that holds anything but a page of ours, which is written anew, or what a kill left of one."""
    left = NamesAndDrafts()
    if not folder.is_dir() or all(entry.name in left for entry in folder.iterdir()):
        return
    page = folder / "index.html"
    if not page.is_file() or not _is_ours(page):
        raise UserError(f"{folder} is there and holds no report: choose another --out")


def _is_ours(page: Path) -> bool:
    with page.open("rb") as content:
        return b'<meta name="generator" content="gaitdiff">' in content.read(1024)


def _write(folder: Path, page: str) -> Path:
    target, remedy = folder / "index.html", "fix the folder or choose another"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{target} cannot be written ({error.strerror}): {remedy}") from error
    write_whole(target, page.encode("utf-8"), remedy)
    return target
