"""Curves of a report: small matplotlib charts as inline SVG that take their colours and fonts from the page."""

from __future__ import annotations

import html
import io
import itertools
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from gaitdiff.utils.files import atomic_file

#: Colours by name (Okabe & Ito's, which colour-blind people tell apart); the page sets its own for dark mode.
COLOURS = {
    "blue": "#0072b2",
    "red": "#d55e00",
    "green": "#009e73",
    "purple": "#9c4f86",
    "ink": "#1f2328",
    "muted": "#6b7280",
    "rule": "#d0d4da",
}

_WIDTH, _HEIGHT = 4.9, 3.0  # inches; about 490 pixels wide on a page, so that 9 pt text reads well
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9.3,
    "axes.edgecolor": COLOURS["rule"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": COLOURS["rule"],
    "ytick.color": COLOURS["rule"],
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.labelcolor": COLOURS["muted"],
    "text.color": COLOURS["ink"],
    "path.simplify": True,
}
_AXES = (0.14, 0.155, 0.605, 0.81)  # left, bottom, width and height, as shares of a chart
_STRIPS = 8.0  # inches, width of a figure of strips
_TITLE = 0.3  # inches above a chart for its title
_MOST_POINTS = 300  # raw points drawn of a longer series; its curve is smoothed from as many means
_LINE = 0.072  # height of a line of a direct label, as a share of the axes' height


@dataclass(frozen=True)
class Series:
    """One curve.

    Attributes:
        label: written at the curve's end, in its colour.
        steps, values: (n,) each; values that are not finite are left out.
        colour: a name of ``COLOURS``.
        error: (n,) half-widths of a light band around the curve.
        smooth: draw the values as faint points, and a smoothed curve over them.
    """

    label: str
    steps: Sequence[float]
    values: Sequence[float]
    colour: str
    error: Sequence[float] | None = None
    smooth: bool = False


@dataclass(frozen=True)
class Level:
    """A horizontal line to compare with; without a label it is a plain thin rule."""

    value: float
    label: str = ""


def chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    levels: Sequence[Level] = (),
    percent: bool = False,
    log_x: bool = False,
) -> str:
    """Draw curves over training steps.

    Args:
        title: said to screen readers, followed by where each curve begins and ends; it must be unique on its page.
        percent: keep the vertical axis within 0..100.
        log_x: a logarithmic horizontal axis, with a tick at each point.

    Returns:
        An ``<svg>`` element without references to anything outside it.
    """
    with _style(title):
        figure = _figure(series, x_label, y_label, levels, percent, log_x)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True)
    return _inline(out.getvalue(), f"{title}. {' '.join(_spoken(one) for one in series)}".strip())


@contextmanager
def _style(salt: str) -> Iterator[None]:
    """How charts look; names in letters that the font lacks are no reason for a warning, browsers have others."""
    with rc_context(_STYLE | {"svg.hashsalt": salt}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def save_chart(path: Path, series: Sequence[Series], *, x_label: str, y_label: str, log_x: bool = False) -> None:
    """Write curves in percent as ``path`` with ".png" and with ".svg"."""
    with _style(path.name):
        _save(_figure(series, x_label, y_label, (), True, log_x), path)


def save_panels(
    path: Path, panels: Mapping[str, Sequence[Series]], *, x_label: str, y_label: str, percent: bool, columns: int
) -> None:
    """Write charts side by side, each below its title, as ``path`` with ".png" and with ".svg".

    Args:
        columns: at most so many abreast.
    """
    abreast = min(columns, len(panels))
    rows = -(-len(panels) // abreast)
    with _style(path.name):
        figure = Figure(figsize=(_WIDTH * abreast, (_HEIGHT + _TITLE) * rows))
        for place, (title, series) in enumerate(panels.items()):
            row, column = divmod(place, abreast)
            tall = _HEIGHT / (_HEIGHT + _TITLE)
            left, bottom, width, height = _AXES
            box = ((left + column) / abreast, (tall * bottom + rows - 1 - row) / rows, width / abreast)
            axes = figure.add_axes((*box, tall * height / rows))
            _fill(axes, series, x_label, y_label, (), percent, False)
            axes.set_title(title, loc="left", fontsize=10.5, color=COLOURS["ink"])
        _save(figure, path)


def save_strips(path: Path, strips: Mapping[str, np.ndarray], note: str) -> None:
    """Write pictures (H, W, 3), uint8, all of one size, below each other as ``path`` with ".png" and with ".svg".

    Args:
        strips: by the name that stands on its left.
        note: stands below.
    """
    height, width = next(iter(strips.values())).shape[:2]
    with _style(path.name):
        tall = 0.88 * _STRIPS * height / width  # inches of a strip
        figure = Figure(figsize=(_STRIPS, tall * len(strips) + _TITLE))
        for place, (name, picture) in enumerate(strips.items()):
            bottom = 1 - tall * (place + 1) / figure.get_figheight()
            axes = figure.add_axes((0.12, bottom, 0.88, 0.97 * tall / figure.get_figheight()))
            axes.imshow(picture, interpolation="nearest", aspect="auto")
            axes.set_axis_off()
            figure.text(0.005, bottom + tall / 2 / figure.get_figheight(), name, va="center", color=COLOURS["ink"])
        figure.text(0.12, 0.4 * _TITLE / figure.get_figheight(), note, va="center", color=COLOURS["muted"])
        _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    for suffix in (".png", ".svg"):
        with atomic_file(path.with_name(path.name + suffix), "choose another --out") as draft:
            figure.savefig(draft, format=suffix[1:], dpi=200, metadata={"Date": None} if suffix == ".svg" else None)


def _figure(
    series: Sequence[Series], x_label: str, y_label: str, levels: Sequence[Level], percent: bool, log_x: bool
) -> Figure:
    figure = Figure(figsize=(_WIDTH, _HEIGHT))
    _fill(figure.add_axes(_AXES), series, x_label, y_label, levels, percent, log_x)
    return figure


def _fill(
    axes: Axes,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    levels: Sequence[Level],
    percent: bool,
    log_x: bool,
) -> None:
    ends = [end for one in series if (end := _draw(axes, one))]
    for level in levels:
        dashes = (0, (4, 3)) if level.label else "-"
        axes.axhline(level.value, color=COLOURS["muted"], lw=1.0, ls=dashes)
        if level.label:
            ends.append((level.value, level.label, "muted"))
    _dress(axes, x_label, y_label, percent)
    if log_x:
        axes.set_xscale("log")
        axes.set_xticks(sorted({float(step) for one in series for step in one.steps}), minor=False)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        axes.xaxis.set_minor_locator(NullLocator())
    _label_ends(axes, ends)


def standard_error(percentage: float, count: float) -> float:
    """Binomial standard error of a percentage counted over ``count`` cases, in percentage points."""
    share = min(max(percentage / 100.0, 0.0), 1.0)
    return 100.0 * float(np.sqrt(share * (1.0 - share) / count))


def smoothed(steps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Local straight lines, their neighbours weighted by a Gaussian an eighteenth of the series wide; (n,) → (n,).

    Unlike a moving mean it follows a steep beginning.

    Args:
        steps: (n,), ascending; a run's last two may lie nearer to each other than the others.
        values: (n,).
    """
    if len(values) < 3:
        return values
    apart = (steps[None, :] - steps[:, None]) / (np.median(np.diff(steps)) or 1.0)
    weights = np.exp(-0.5 * (apart / max(len(values) / 18.0, 0.7)) ** 2)
    s0, s1, s2 = (np.sum(weights * apart**power, axis=1, keepdims=True) for power in range(3))
    fit: np.ndarray = (weights * (s2 - s1 * apart)) @ values / (s0 * s2 - s1**2)[:, 0]
    return fit


def _draw(axes: Axes, one: Series) -> tuple[float, str, str] | None:
    """Draw a curve; its last value, label and colour, None if there is nothing to draw."""
    steps, values = _curve(one)
    if len(steps) == 0:
        return None
    colour = COLOURS[one.colour]
    if one.smooth:
        raw_steps, raw = _finite(one)
        keep = np.unique(np.linspace(0, len(raw) - 1, min(len(raw), _MOST_POINTS)).round().astype(int))
        axes.plot(raw_steps[keep], raw[keep], ls="", marker="o", ms=2.4, mew=0, color=colour, alpha=0.35)
    axes.plot(steps, values, color=colour, lw=1.9, marker="" if one.smooth else "o", ms=3.5, solid_capstyle="round")
    if one.error is not None:
        error = np.asarray(one.error, float)[np.isfinite(np.asarray(one.values, float))]
        axes.fill_between(steps, values - error, values + error, color=colour, alpha=0.13, lw=0)
    return float(values[-1]), one.label, one.colour


def _finite(one: Series) -> tuple[np.ndarray, np.ndarray]:
    steps, values = np.asarray(one.steps, float), np.asarray(one.values, float)
    keep = np.isfinite(values)
    return steps[keep], values[keep]


def _curve(one: Series) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of the line that is drawn."""
    steps, values = _finite(one)
    if not one.smooth or len(steps) == 0:
        return steps, values
    bins = min(len(steps), _MOST_POINTS)
    means = [np.array([part.mean() for part in np.array_split(column, bins)]) for column in (steps, values)]
    return means[0], smoothed(*means)


def _dress(axes: Axes, x_label: str, y_label: str, percent: bool) -> None:
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.margins(x=0.02, y=0.12)
    if percent:
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, 0.0), min(high, 100.0))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.grid(axis="y", color=COLOURS["rule"], lw=0.6, alpha=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=3, width=0.6)


def _label_ends(axes: Axes, ends: list[tuple[float, str, str]]) -> None:
    """Write labels beside the curves' ends, moved apart where they would touch."""
    low, high = axes.get_ylim()
    ends = sorted(ends, key=lambda end: end[0])
    wanted = [float(np.clip((value - low) / (high - low), 0.02, 0.98)) for value, _, _ in ends]
    heights = [_LINE * (1 + label.count("\n")) for _, label, _ in ends]
    for place, (_, label, colour) in zip(_apart(wanted, heights), ends, strict=True):
        text = axes.text(
            1.025, place, label, color=COLOURS[colour], va="center", transform=axes.transAxes, linespacing=1.15
        )
        text.set_parse_math(False)  # names may hold dollars


def _apart(wanted: list[float], heights: list[float]) -> list[float]:
    """Centres of labels of these heights that do not overlap, near the wanted ones and in their (ascending) order."""
    gaps = [(a + b) / 2 for a, b in itertools.pairwise(heights)]
    places = list(wanted)
    for i, gap in enumerate(gaps):  # upwards: each above the one before
        places[i + 1] = max(places[i + 1], places[i] + gap)
    for i in reversed(range(len(places))):  # back down: none above the axes
        ceiling = 1.0 if i == len(gaps) else places[i + 1] - gaps[i]
        places[i] = min(places[i], ceiling)
    return places


def _spoken(one: Series) -> str:
    steps, values = _curve(one)
    if len(steps) == 0:
        return f"{one.label}: no values."
    name = one.label.replace("\n", " ")
    return f"{name}: from {values[0]:.3g} at {steps[0]:,.0f} to {values[-1]:.3g} at {steps[-1]:,.0f}."


def _inline(svg: str, label: str) -> str:
    """Turn matplotlib's SVG file into an element for a page: no prologue, the page's fonts and colours, unique ids."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace("xlink:href=", "href=")
    svg = re.sub(r"font: ?([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    svg = re.sub(r"font-family: ?[^;\"]*;? ?", "", svg)
    view_box = re.search(r'viewBox="([^"]+)"', svg)
    assert view_box is not None  # matplotlib always writes one
    opening = f'<svg class="chart" viewBox="{view_box[1]}" role="img" aria-label="{html.escape(label, quote=True)}">'
    svg = re.sub(r"<svg[^>]*>", lambda _: opening, svg, count=1, flags=re.DOTALL)
    for name, value in COLOURS.items():
        svg = svg.replace(value, f"var(--{name}, {value})")
    return re.sub(r"\n\s*", "\n", svg).strip()
