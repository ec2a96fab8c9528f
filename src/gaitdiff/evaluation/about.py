"""What a score is a score of: everything without which its number says nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gaitdiff import __version__
from gaitdiff.data.store import SequenceStore
from gaitdiff.datasets.conditions import CONDITIONS, setting_name
from gaitdiff.evaluation.features import names_of, select_in_store, store_protocol
from gaitdiff.evaluation.protocols.registry import AUTO
from gaitdiff.evaluation.protocols.selection import counts


@dataclass(frozen=True)
class Origin:
    """Where features come from.

    Attributes:
        run: run folder or checkpoint; "" for features that no model made.
        step: training steps behind the checkpoint, None where it is not told.
        iterations: of the whole run, None where it is not told.
    """

    run: str = ""
    step: int | None = None
    iterations: int | None = None

    @property
    def finished(self) -> bool | None:
        """Whether the run had ended; None where that is not told."""
        return None if self.step is None or self.iterations is None else self.step >= self.iterations

    def __str__(self) -> str:
        if self.step is None:
            return self.run
        of = "" if self.iterations is None else f" of {self.iterations}"
        return f"{self.run}, step {self.step}{of}{', unfinished' if self.finished is False else ''}"


@dataclass(frozen=True)
class Compared:
    """Which sequences are compared, and how; the same for all features.

    Attributes:
        store, dataset: the store's folder and the data set in it.
        protocol, setting: see ``gaitdiff.evaluation.evaluate``.
        counts: people and sequences among the probes and in the gallery, and the probes without a match.
        missing: why a condition has no score, by name.
    """

    store: str
    dataset: str
    frames: str
    protocol: str
    setting: str | None
    counts: dict[str, Any]
    missing: dict[str, str]

    def lines(self, metric: str) -> list[str]:
        """The same in words, for a terminal or a page."""
        setting = "" if self.setting is None else f", {self.setting}"
        sides = [
            f"{self.counts[side]['sequences']:,} sequences of {self.counts[side]['people']:,} people"
            for side in ("probe", "gallery")
        ]
        alone = self.counts["without_match"]
        return [
            f"store: {self.store} ({self.dataset or 'no named data set'}, {self.frames})",
            f"protocol: {self.protocol}{setting}; {metric} distance; gaitdiff {__version__}",
            f"probes: {sides[0]}; gallery: {sides[1]}; {alone:,} probes without a possible match",
            *(f"not scored: {name}: {reason}" for name, reason in self.missing.items()),
        ]


def compared(store: SequenceStore, rows: np.ndarray, protocol: str = AUTO, setting: str | None = None) -> Compared:
    """Describe what ``evaluate_store`` will compare.

    Raises:
        UserError: see ``select_in_store``.
    """
    name = store_protocol(store, protocol)
    selected = select_in_store(store, rows, name, setting)
    labels = np.array(names_of(store, rows)[0])
    settings = [known for known in CONDITIONS.get(name, {}) if known]
    chosen = setting_name(setting) if setting is not None else settings[0] if settings else None
    return Compared(
        str(store.path),
        store.header.dataset,
        f"frames {store.height} x {store.width}",
        name,
        "local check (types 02 among 01)" if name == "grew" else chosen,
        counts(list(selected.conditions.values()), labels),
        selected.missing,
    )


def about(what: Compared, origin: Origin, features: str, metric: str | list[str]) -> dict[str, Any]:
    """All that names a score, as JSON holds it."""
    made = {"gaitdiff": __version__, **asdict(origin), "finished": origin.finished, "features": features}
    return {**made, "metric": metric, **asdict(what)}
