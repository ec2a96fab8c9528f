"""Pictures of a report: neighbours of probes, augmentations, latents and noise, each a function to HTML."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from gaitdiff.data.clips import crop_sides
from gaitdiff.data.store import SequenceStore
from gaitdiff.evaluation.features import extract
from gaitdiff.evaluation.held_out import held_out_rows, scored_split
from gaitdiff.report.animation import (
    ADDED,
    REMOVED,
    heat_frames,
    heat_scale,
    strip,
    to_bytes,
    walk,
)
from gaitdiff.report.examples import Denoised, each_augmented, latent_example
from gaitdiff.report.neighbours import Ranking, pick_probes, rank_gallery
from gaitdiff.training.checkpoint import load_checkpoint
from gaitdiff.training.run_folder import read_config

_FRAMES = 30  # of an animated walk
_STRIP = 6  # frames of a strip


def neighbours(store_path: Path, runs: Mapping[str, Path], device: torch.device) -> str:
    """Probes with their five nearest gallery sequences by the first run, and by the second if there is one."""
    store = SequenceStore(store_path)
    names = list(runs)[:2]
    config = read_config(runs[names[0]])
    protocol, metric = config["run"]["protocol"], config["loss"]["distance"]
    split = scored_split(store)
    rows, whose = held_out_rows(store, split), " of validation people" if split == "val" else ""
    rankings = {
        name: rank_gallery(
            extract(load_checkpoint(runs[name], device), store, rows, device), rows, store, protocol, metric
        )
        for name in names
    }
    first, last = rankings[names[0]], rankings[names[-1]]
    chosen = pick_probes(first, last, names[0])
    blocks = "\n".join(_probe(store, place, why, rankings) for place, why in chosen)
    others = "".join(f", {html.escape(name)} {int(rankings[name].right[:, 0].sum()):,}" for name in names[1:])
    return (
        f"<p>A probe on the left, and the five gallery sequences nearest to it by {html.escape(metric)} distance of "
        f"the embeddings, nearest first. <b>✓</b> marks the right person, <b>✗</b> a wrong one; the number is the "
        f"distance. Of {len(first.probes):,} probes{whose} the model {html.escape(names[0])} gets "
        f"{int(first.right[:, 0].sum()):,} right{others}. The probes shown were picked by a rule, in the "
        f"order of the store’s manifest, not by their looks.</p>\n{blocks}"
    )


def augmentations(store_path: Path, pretrain_run: Path) -> str:
    """One sequence under each augmentation, and under all of them."""
    store = SequenceStore(store_path)
    shares = read_config(pretrain_run)["augment"]
    row = int(store.select(split="train")[0])
    frames = store.clip(row, np.arange(min(_FRAMES, store.rows[row].frames)))
    tiles = [_tile(walk(frames, "the sequence as it is"), "<b>as it is</b>", "")]
    for name, changed in each_augmented(frames):
        picture = walk(changed, f"the same sequence after: {name}")
        often = f"<br>{100 * shares[name]:.0f} % of clips" if name in shares else ""
        tiles.append(_tile(picture, f"<b>{name}</b>{often}", ""))
    return (
        "<p>In training, a clip draws its augmentations and their strengths once, for all its frames. Shown is a "
        "typical draw of each (of median strength among fifteen), then all five at once. "
        f"{_key(ADDED)} pixels that it adds, {_key(REMOVED)} pixels that it takes away.</p>\n"
        f'<div class="augmented">{"".join(tiles)}</div>'
    )


def latents(store_path: Path, pretrain_run: Path, device: torch.device) -> str:
    """A clip through the autoencoder and back; noised, and predicted from the noise."""
    store, config = SequenceStore(store_path), read_config(pretrain_run)
    held_out = store.select(split="test")
    row = int(held_out[0]) if len(held_out) else 0
    example = latent_example(pretrain_run, config, store, row, device)
    shown = np.unique(np.linspace(0, len(example.frames) - 1, _STRIP).round().astype(int))
    limit = max(0.5, float(np.ceil(2 * np.abs(example.latents).max()) / 2))
    height, width = example.frames.shape[1:]
    lines = [
        (_label("silhouettes", f"{height} × {width}"), strip(to_bytes(example.frames[shown]), "frames of the clip"))
    ]
    for channel, values in enumerate(example.latents, start=1):
        heat = strip(heat_frames(values[shown], limit), f"latent channel {channel} of these frames, as heat maps")
        label = _label(f"latent channel {channel}", f"{height // 8} × {width // 8}")
        lines.append((label + _scale(limit) if channel == len(example.latents) else label, heat))
    lines.append(
        (_label("decoded", f"IoU {example.iou:.3f}"), strip(to_bytes(example.decoded[shown]), "the frames, decoded"))
    )
    held = "held-out " if len(held_out) else ""
    return (
        "<p>The denoiser does not see silhouettes but latents: a frozen autoencoder "
        f"({html.escape(str(config['diffusion']['autoencoder']))}) turns each frame into "
        f"4 × {height // 8} × {width // 8} numbers. This is a {held}walk ({html.escape(store.rows[row].name)}): "
        "its frames, their latents, and the frames decoded from these; IoU is the overlap of the two silhouettes, "
        "1 being a perfect match.</p>\n"
        f'<div class="strips">{"".join(f"<p>{label}</p>{picture}" for label, picture in lines)}</div>\n'
        "<h3>Noise, and what the denoiser makes of it</h3>\n"
        "<p>The same latents with noise, decoded, and the clean latents that the pretrained denoiser predicts from "
        "them in a single step, guided by the gait feature of another clip of this walk, decoded. Where almost all "
        "is noise, one step can only give an average of what it considers possible.</p>\n"
        f'<div class="levels"><p class="level"></p><p class="muted">noised</p><p class="muted">predicted</p>'
        f"{''.join(_level(level, shown) for level in example.levels)}</div>"
    )


def _probe(store: SequenceStore, place: int, why: str, rankings: Mapping[str, Ranking]) -> str:
    probe = int(next(iter(rankings.values())).probes[place])
    asked = _tile(_walk_of(store, probe), f"<b>probe</b><br>{_who(store, probe)}", "asked")
    rows = "".join(
        f'<div class="row" data-model="{html.escape(name)}"><h3>{html.escape(name)}</h3>'
        f"{_nearest(store, place, ranking)}</div>"
        for name, ranking in rankings.items()
    )
    return (
        f'<div class="probe" data-probe="{probe}"><p><b>{html.escape(store.rows[probe].subject)}</b>: '
        f"{html.escape(why)}.</p>{asked}<div>{rows}</div></div>"
    )


def _nearest(store: SequenceStore, place: int, ranking: Ranking) -> str:
    tiles = []
    for row, distance, right in zip(
        ranking.nearest[place], ranking.distances[place], ranking.right[place], strict=True
    ):
        mark, kind, said = ("✓", "right", "the right person") if right else ("✗", "wrong", "a wrong person")
        caption = f"<b>{mark} {kind}</b><br>{_who(store, int(row))}<br>{distance:.3f}"
        tiles.append(_tile(_walk_of(store, int(row), said), caption, kind, f' data-row="{int(row)}"'))
    return "".join(tiles)


def _tile(picture: str, caption: str, kind: str, data: str = "") -> str:
    return f'<figure class="tile {kind}"{data}>{picture}<figcaption>{caption}</figcaption></figure>'


def _walk_of(store: SequenceStore, row: int, said: str = "the probe") -> str:
    frames = store.clip(row, np.arange(min(_FRAMES, store.rows[row].frames)))
    if store.width == store.height:
        frames = crop_sides(frames)
    return walk(frames, f"{store.rows[row].subject} walking, {said}")


def _who(store: SequenceStore, row: int) -> str:
    subject, view = store.rows[row].subject, store.rows[row].view
    return html.escape(f"{subject}, {view}" if view else subject)


def _level(level: Denoised, shown: np.ndarray) -> str:
    what = f"at noise level {level.t}"
    return (
        f'<p class="level">t = {level.t} <br><span class="muted">ᾱ = {level.alpha_bar:.2f}</span></p>'
        f"{strip(to_bytes(level.noised[shown]), f'the noised latents {what}, decoded')}"
        f"{strip(to_bytes(level.predicted[shown]), f'the denoiser’s prediction {what}, decoded')}"
    )


def _label(name: str, detail: str) -> str:
    return f'{name} <br><span class="muted">{detail}</span>'


def _scale(limit: float) -> str:
    return (
        f'<span class="scale" style="background:{heat_scale()}"></span>'
        f'<span class="ends"><span>−{limit:g}</span><span>0</span><span>+{limit:g}</span></span>'
    )


def _key(colour: tuple[int, int, int]) -> str:
    return f'<span class="key" style="background:rgb{colour}"></span>'
