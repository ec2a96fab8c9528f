"""The command line as a whole: every mistake is one line and exit code 2, whatever the terminal and the names."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gaitdiff import cli
from gaitdiff.cli import main
from gaitdiff.version import __version__

_LONG = "n" * 300  # longer than any file system takes


def _only_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize(
    "words",
    [
        ["data", "import", _LONG, "--out", "store"],
        ["data", "import", ".", "--out", _LONG],
        ["data", "inspect", _LONG],
        ["data", "verify", _LONG],
        ["data", "export", _LONG, "--out", "out"],
        ["data", "walkers", "--people", "2", "--sequences", "2", "--frames", "4", "--workers", "1", "--out", _LONG],
        ["export", _LONG, "--out", "model.onnx"],
        ["evaluate", _LONG, "--data", "store"],
    ],
    ids=" ".join,
)
def test_a_name_that_is_too_long_is_a_mistake_as_others_are(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p1" / "walk").mkdir(parents=True)
    assert main(words) == 2
    line = _only_line(capsys)
    assert line.startswith("gaitdiff: ")
    assert "Traceback" not in line


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (
            OSError(36, "File name too long", "here/there"),
            2,
            "gaitdiff: here/there cannot be used (File name too long): choose another\n",
        ),
        (
            OSError(5, "Input/output error"),
            2,
            "gaitdiff: a file or standard output cannot be used (Input/output error): choose another\n",
        ),
        (BrokenPipeError(32, "Broken pipe"), 0, ""),
    ],
    ids=["with a name", "without", "closed pipe"],
)
def test_errors_of_the_operating_system_become_a_sentence(
    error: OSError, code: int, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setitem(cli.VERBS, "models", fail)
    assert main(["models"]) == code
    assert capsys.readouterr().err == sentence


def test_a_mistake_is_one_line_whatever_the_names_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "inspect", str(tmp_path / "two\nlines\x1b[2J\r")]) == 2
    line = _only_line(capsys)
    assert "two\N{REPLACEMENT CHARACTER}lines" in line
    assert line.isprintable()


@pytest.mark.parametrize("encoding", ["ascii:strict", "utf-8:strict"])
def test_a_terminal_without_the_characters_of_a_name_shows_them_escaped(encoding: str, tmp_path: Path) -> None:
    store = tmp_path / "walkers-\u00e9-\udcff"
    words = ["data", "walkers", "--people", "2", "--sequences", "2", "--frames", "4", "--workers", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "gaitdiff", *words, "--out", os.fsencode(store)],
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "1"},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.strip() == str(store).encode(encoding.partition(":")[0], "backslashreplace")
    assert store.is_dir()


def test_an_empty_source_is_not_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p1" / "walk").mkdir(parents=True)
    assert main(["data", "import", "", "--out", "../store"]) == 2
    assert "the source is an empty name" in _only_line(capsys)


_HUGE = "9" * 400


@pytest.mark.parametrize(
    "words",
    [
        ["data", "walkers", "--people", _HUGE, "--sequences", "2", "--out", "s"],
        ["pretrain", "--recipe", "walkers/pretrain", "--data", "s", "--out", "r", "--seed", _HUGE],
        ["finetune", "--recipe", "walkers/finetune", "--data", "s", "--out", "r", "--optim.iterations", _HUGE],
        ["pretrain", "--recipe", "seed.yaml", "--data", "s", "--out", "r"],
        ["pretrain", "--recipe", "rate.yaml", "--data", "s", "--out", "r"],
        ["quickstart", "--small", "--seed", "-1", "--out", "q"],
    ],
)
def test_numbers_that_no_machine_holds(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("seed.yaml").write_text(f"seed: 1{':59' * 200}\n")
    Path("rate.yaml").write_text(f"optim: {{lr: 1{':59' * 200}.5}}\n")
    assert main(words) == 2
    assert len(_only_line(capsys)) < 400
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rate.yaml", "seed.yaml"]


def test_a_stop_within_an_import_is_a_stop(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Modules that are being imported may make an error of their own of it."""

    def importing() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            while True:
                time.sleep(0.01)
        except KeyboardInterrupt:
            raise ImportError("cannot load module more than once per process") from None

    monkeypatch.setitem(cli.VERBS, "models", importing)
    assert main(["models"]) == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "gaitdiff: stopped\n"

    def failing() -> None:
        raise ImportError("another")

    monkeypatch.setitem(cli.VERBS, "models", failing)
    with pytest.raises(ImportError, match="another"):
        main(["models"])


@pytest.mark.parametrize("verb", ["pretrain", "finetune", "evaluate", "submit", "data import"])
def test_help_loads_no_torch(verb: str) -> None:
    """It is asked for often, and torch takes seconds."""
    words = [*verb.split(), "--help"]
    code = f"import sys; from gaitdiff.cli import main\ntry: main({words})\nexcept SystemExit as end: print(end.code)\n"
    code += "print([name for name in ('torch', 'diffusers', 'accelerate', 'matplotlib') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ["0", "[]"], done.stdout


@pytest.mark.parametrize("word", ["-V", "--version", "version"])
def test_version(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize("words", [[], ["recipes"], ["pretrain", "--help"]], ids=" ".join)
def test_a_reader_that_stops_early_is_no_error(words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "gaitdiff", *words], stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")
def test_output_that_cannot_be_written_is_said() -> None:
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "wb") as full:
        words = [sys.executable, "-m", "gaitdiff", "version"]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, env=buffered, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(b"gaitdiff: standard output cannot be used")
    assert done.stderr.count(b"\n") == 1


def test_a_flag_that_is_given_twice_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = str(tmp_path / "a"), str(tmp_path / "b")
    words = ["data", "walkers", "--people", "4", "--sequences", "2", "--frames", "2", "--workers", "1"]
    assert main([*words, "--out", first, "--out", second]) == 0
    assert "--out is given 2 times: the last one counts" in capsys.readouterr().err
    assert not Path(first).exists()
    assert main(["pretrain", "--data", first, "--data.store", second, "--out", "x", "--seed", "x"]) == 2
    assert "--data is given 2 times: the last one counts" in capsys.readouterr().err
    merged = ["--optim", "{lr: 0.1}", "--optim", "{batch: 4}", "--recipe", "x", "--recipe", "y"]
    assert main(["pretrain", *merged]) == 2
    assert "the last one counts" not in capsys.readouterr().err


@pytest.mark.parametrize("columns", ["0", "-5", "wide"])
def test_a_width_that_is_none_is_as_if_it_were_not_told(columns: str) -> None:
    done = [
        subprocess.run(
            [sys.executable, "-m", "gaitdiff", "recipes"],
            env={**os.environ, "COLUMNS": width},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for width in (columns, "80")
    ]
    assert done[0] == done[1] != ""
