"""The contact sheet's labels, whatever the names are."""

from __future__ import annotations

import cv2
import pytest

from gaitdiff.data.quality import inspect as module


def cut_letter_by_letter(text: str, scale: float, width: int) -> str:
    """What the label should be: the longest of beginning and end that fits."""
    for kept in range(len(text), 1, -1):
        shown = text if kept == len(text) else f"{text[: kept - kept // 2]}..{text[len(text) - kept // 2 :]}"
        if cv2.getTextSize(shown, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0][0] <= width:
            return shown
    return f"{text[:1]}..{text[-1:]}"


@pytest.mark.parametrize("text", ["short", "m" * 40, "i" * 400, "".join(map(str, range(300)))])
@pytest.mark.parametrize("scale", [0.36, 0.45])
def test_labels_keep_both_ends(text: str, scale: float) -> None:
    assert module._shorten(text, scale, 178) == cut_letter_by_letter(text, scale, 178)


def test_a_very_long_name_is_cut_before_it_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []
    original = cv2.getTextSize

    def note(text: str, *rest: object) -> object:
        measured.append(len(text))
        return original(text, *rest)

    monkeypatch.setattr(cv2, "getTextSize", note)
    shown = module._shorten("a" + "i" * 60_000 + "z", 0.36, 178)
    assert (shown[0], shown[-1]) == ("a", "z")
    assert sum(measured) < 100_000
