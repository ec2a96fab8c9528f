"""What goes to stdout."""

from __future__ import annotations

import pytest
from rich.table import Table

from gaitdiff.utils.progress import answers


def test_a_table_that_is_piped_breaks_no_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    name = "finetuned-gait3d-smplgait-cosine-min-snr-with-[brackets]-and-a-hundred-letters-less-nine"
    table = Table("cell", "runs")
    table.add_row(name, "2 to do")
    answers().print(table)
    assert f"{name} " in capsys.readouterr().out
