"""What a score is a score of: everything without which its number says nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gaitdiff.data.store import SequenceStore
from gaitdiff.datasets.conditions import setting_name
from gaitdiff.evaluation.protocols.selection import counts
from gaitdiff.evaluation.stored import AUTO, names_of, select_in_store, store_protocol
from gaitdiff.utils.text import counted
from gaitdiff.version import __version__


@dataclass(frozen=True)
class Origin:
    """Where features come from.

    Attributes:
        run: run folder or checkpoint; "" for features that no model made.
        step: training steps behind the checkpoint, None where it is not told.
        iterations: of the whole run, None where it is not told.
        ema: decay of the moving average that the weights are; 0 for weights as they were trained.
        precision: in which the features were computed, "float32" or "bfloat16".
    """

    run: str = ""
    step: int | None = None
    iterations: int | None = None
    ema: float = 0.0
    precision: str = "float32"

    @property
    def finished(self) -> bool | None:
        """Whether the run had ended; None where that is not told."""
        return None if self.step is None or self.iterations is None else self.step >= self.iterations

    def __str__(self) -> str:
        averaged = f", weights averaged (ema {self.ema:g})" if self.ema else ""
        averaged += "" if self.precision == "float32" else f", computed in {self.precision}"
        if self.step is None:
            return self.run + averaged
        of = "" if self.iterations is None else f" of {self.iterations}"
        return f"{self.run}, step {self.step}{of}{', unfinished' if self.finished is False else ''}{averaged}"


@dataclass(frozen=True)
class Compared:
    """Which sequences are compared, and how; the same for all features.

    Attributes:
        store, dataset: the store's folder and the data set in it.
        frames: their size in the store, and the height that they are resized to, if they are.
        protocol, setting: see ``gaitdiff.evaluation.evaluate``.
        conditions: the names of what is scored; the scores at the top are their mean, but for "Overall" alone.
        counts: people and sequences among the probes and in the gallery, and the probes without a match; None where
            the people are secret.
        missing: why a condition has no score, by name.
        split: "test" or "val".
    """

    store: str
    dataset: str
    frames: str
    protocol: str
    setting: str | None
    conditions: tuple[str, ...]
    counts: dict[str, Any]
    missing: dict[str, str]
    split: str = "test"

    def lines(self, metric: str) -> list[str]:
        """The same in words, for a terminal or a page."""
        setting = "" if self.setting is None else f", {self.setting}"
        sides = []
        for side in ("probe", "gallery"):
            sequences, people = self.counts[side]["sequences"], self.counts[side]["people"]
            whose = "people who are not told" if people is None else counted(people, "person", "people")
            sides.append(f"{counted(sequences, 'sequence')} of {whose}")
        alone = self.counts["without_match"]
        matched = "" if alone is None else f"; {counted(alone, 'probe')} without a possible match"
        shown = ("Overall",) if "Overall" in self.conditions else self.conditions
        mean = f"the scores above are those of {' and '.join(shown)}" if self.missing else ""
        return [
            f"store: {self.store} ({self.dataset or 'no named data set'}, {self.frames})",
            f"protocol: {self.protocol}{setting}; {metric} distance; gaitdiff {__version__}",
            f"{'' if self.split == 'test' else 'validation people: '}probes: {sides[0]}; gallery: {sides[1]}{matched}",
            *([mean] if mean else []),
            *(f"not scored: {name}: {reason}" for name, reason in self.missing.items()),
        ]


def compared(
    store: SequenceStore,
    rows: np.ndarray,
    protocol: str = AUTO,
    setting: str | None = None,
    resized: int | None = None,
) -> Compared:
    """Describe what ``evaluate_store`` will compare.

    Args:
        resized: the height that frames are resized to before features are made of them.

    Raises:
        UserError: see ``select_in_store``.
    """
    how = store_protocol(store, protocol)
    selected = select_in_store(store, rows, how.name, setting)
    labels = np.array(names_of(store, rows)[0])
    chosen = setting_name(setting) if setting is not None else how.settings[0] if how.settings else None
    frames = f"frames {store.height} x {store.width}"
    numbers = counts(list(selected.conditions.values()), labels)
    if how.secret:
        numbers["probe"]["people"] = numbers["without_match"] = None
    return Compared(
        str(store.path),
        store.header.dataset,
        frames if resized in (None, store.height) else f"{frames}, resized to a height of {resized}",
        how.name,
        how.remark or chosen,
        tuple(filter(None, selected.conditions)),
        numbers,
        selected.missing,
        store.rows[int(rows[0])].split if len(rows) else "test",
    )


def about(what: Compared, origin: Origin, features: str, metric: str | list[str]) -> dict[str, Any]:
    """All that names a score, as JSON holds it."""
    made = {"gaitdiff": __version__, **asdict(origin), "finished": origin.finished, "features": features}
    return {**made, "metric": metric, **asdict(what)}
