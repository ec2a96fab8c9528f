"""Imports that are killed, stopped, repeated, or go on with other things than they began with."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from gaitdiff.cli import main
from gaitdiff.data.importers import import_data
from gaitdiff.data.store import SequenceStore

PEOPLE, WALKS, FRAMES = 6, 5, 12


def make_source(root: Path) -> Path:
    """Images of many sizes, some unreadable or empty, one sequence without anything usable."""
    rng = np.random.default_rng(0)
    for person in range(PEOPLE):
        for walk in range(WALKS):
            folder = root / f"p{person}" / f"w{walk}"
            folder.mkdir(parents=True)
            for i in range(FRAMES):
                mask = np.zeros((120 + person, 90), np.uint8)
                cv2.ellipse(mask, (45, 60), (8 + person + int(rng.integers(8)), 50), 0, 0, 360, 255, -1)
                (folder / f"{i}.png").write_bytes(cv2.imencode(".png", mask)[1].tobytes())
    (root / "p1" / "w1" / "3.png").write_bytes(b"no image")
    for i in range(FRAMES):
        (root / "p2" / "w2" / f"{i}.png").write_bytes(cv2.imencode(".png", np.zeros((9, 9), np.uint8))[1].tobytes())
    return root


def contents(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(store.iterdir())}


def command(source: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "gaitdiff.cli", "data", "import", str(source), "--out", str(out), "--workers", "2"]


#: An import that takes its time over each sequence, and saves what it has after each, so that a kill meets it at work.
SLOW = """
import sys, time
from gaitdiff.data.store import writer
writer._SAVE_BYTES = 1
done = writer.StoreWriter._done
def slowly(*args):
    time.sleep(0.03)
    return done(*args)
writer.StoreWriter._done = slowly
from gaitdiff.cli import main
sys.exit(main(sys.argv[1:]))
"""


def start_slowly(source: Path, out: Path, workers: int = 1) -> subprocess.Popen[str]:
    verb = ["data", "import", str(source), "--out", str(out), "--workers", str(workers)]
    return subprocess.Popen([sys.executable, "-c", SLOW, *verb], stderr=subprocess.PIPE, text=True)


def wait_for_progress(out: Path, process: subprocess.Popen[str], lines: int) -> None:
    """Wait until the journal of the store in the making has so many lines."""
    journal = out.with_name(f".{out.name}.partial") / "journal.jsonl"
    while process.poll() is None:
        if journal.exists() and journal.read_bytes().count(b"\n") >= lines:
            return
        time.sleep(0.01)
    raise AssertionError(f"the import ended before it could be stopped: {process.communicate()[1]}")


def kill_at_work(source: Path, out: Path, lines: int) -> None:
    """Leave an import killed when its journal has so many lines."""
    process = start_slowly(source, out)
    wait_for_progress(out, process, lines)
    process.kill()
    process.communicate()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "stopped"])
def test_an_import_that_is_ended_goes_on(tmp_path: Path, how: signal.Signals) -> None:
    source = make_source(tmp_path / "source")
    whole = str(import_data(source, tmp_path / "whole" / "store", workers=2))
    out = tmp_path / "out" / "store"
    for lines in (3, 11, 20):
        process = start_slowly(source, out)
        wait_for_progress(out, process, lines)
        os.kill(process.pid, how)
        said = process.communicate(timeout=60)[1]
        assert process.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 130)
        if how == signal.SIGINT:
            assert "the same command continues it" in said
        assert not out.exists()
    done = subprocess.run(command(source, out), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    after = int(done.stderr.split("going on after ")[1].split()[0])
    assert 19 <= after < PEOPLE * WALKS  # the first line of the journal says whose it is
    assert contents(out) == contents(tmp_path / "whole" / "store")
    assert [path.name for path in out.parent.iterdir()] == ["store"]
    assert done.stdout.strip() == whole.replace(str(tmp_path / "whole"), str(tmp_path / "out"))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds worker processes in /proc")
def test_a_killed_worker_loses_nothing(tmp_path: Path) -> None:
    source, out = make_source(tmp_path / "source"), tmp_path / "out" / "store"
    process = start_slowly(source, out, workers=2)
    wait_for_progress(out, process, 5)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    worker = next(child for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes())
    os.kill(int(worker), signal.SIGKILL)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 2
    assert re.search("worker process ended too early.* is kept .* sequences.: the same command", said)
    done = subprocess.run(command(source, out), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stderr.split("going on after ")[1].split()[0]) >= 4
    import_data(source, tmp_path / "whole" / "store")
    assert contents(out) == contents(tmp_path / "whole" / "store")


def test_a_second_call_has_nothing_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_source(tmp_path / "source")
    words = ["data", "import", str(source), "--out", str(tmp_path / "store")]
    assert main(words) == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").iterdir()}
    capsys.readouterr()
    assert main(words) == 0
    assert "holds this import already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store").iterdir()} == before
    for other in (["--split", "train"], ["--size", "128"], ["--seed", "1"]):
        assert main([*words, *other]) == 2
        assert "other files or options" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store").iterdir()} == before


def test_another_source_begins_anew(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    out = tmp_path / "out" / "store"
    kill_at_work(source, out, 5)
    (source / "p0" / "w0" / "0.png").unlink()
    done = subprocess.run(command(source, out), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "going on" not in done.stderr
    import_data(source, tmp_path / "whole" / "store")
    assert contents(out) == contents(tmp_path / "whole" / "store")


def archive(source: Path, kind: str) -> Path:
    """The folder itself, or an archive of it beside it."""
    return source if kind == "folder" else Path(shutil.make_archive(str(source), kind, source))


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_changed_masks_are_noticed(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_source(tmp_path / "source")
    mask = folder / "p0" / "w0" / "0.png"
    words = ["data", "import", str(archive(folder, kind)), "--out", str(tmp_path / "store")]
    assert main(words) == 0
    before = contents(tmp_path / "store")
    assert main(words) == 0
    assert "holds this import already" in capsys.readouterr().out
    os.utime(mask, (10**9, 10**9))
    if kind == "zip":  # which has checksums: other times alone are no change
        archive(folder, kind)
        assert main(words) == 0
    mask.write_bytes((folder / "p0" / "w0" / "1.png").read_bytes())
    os.utime(mask, (11 * 10**8, 11 * 10**8))
    archive(folder, kind)
    capsys.readouterr()
    assert main(words) == 2
    assert "files have changed since: choose another --out, or remove it" in capsys.readouterr().err
    assert contents(tmp_path / "store") == before


def test_masks_that_changed_are_not_mixed_with_others(tmp_path: Path) -> None:
    source, out = make_source(tmp_path / "source"), tmp_path / "out" / "store"
    kill_at_work(source, out, 5)
    (source / "p0" / "w0" / "0.png").write_bytes((source / "p0" / "w0" / "1.png").read_bytes())
    done = subprocess.run(command(source, out), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "going on" not in done.stderr
    import_data(source, tmp_path / "whole" / "store")
    assert contents(out) == contents(tmp_path / "whole" / "store")


def test_the_store_of_an_older_version_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its source does not say of which state of the files it is."""
    source = make_source(tmp_path / "source")
    words = ["data", "import", str(source), "--out", str(tmp_path / "store")]
    assert main(words) == 0
    file = tmp_path / "store" / "store.json"
    text = re.sub(r", files [0-9a-f]{16}", "", file.read_text())
    assert re.search(r"frames of source, import [0-9a-f]{16}\"", text)
    file.write_text(text)
    capsys.readouterr()
    assert main(words) == 0
    assert "holds this import already" in capsys.readouterr().out


def test_another_division_of_people_loses_nothing(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    out = tmp_path / "out" / "store"
    kill_at_work(source, out, 8)
    done = subprocess.run([*command(source, out), "--split", "test"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "going on after" in done.stderr
    import_data(source, tmp_path / "whole" / "store", split="test")
    assert contents(out) == contents(tmp_path / "whole" / "store")


def test_a_dry_run_only_looks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_source(tmp_path / "source")
    assert main(["data", "import", str(source), "--out", str(tmp_path / "out" / "store"), "--dry-run"]) == 0
    said = capsys.readouterr().err
    assert f"{PEOPLE} people, {PEOPLE * WALKS} sequences, {PEOPLE * WALKS * FRAMES} frames" in said
    assert not (tmp_path / "out").exists()


def test_a_stray_cut_sequence_does_not_end_a_long_import(tmp_path: Path) -> None:
    source = tmp_path / "source"
    rng = np.random.default_rng(0)
    for i in range(30):
        folder = source / f"{i:03d}" / "nm-01" / "090"
        folder.mkdir(parents=True)
        width = 44 if i == 1 else 64
        frames = np.zeros((4, 64, width), np.uint8)
        frames[:, :, width // 2 - 8 - int(rng.integers(3)) : width // 2 + 8] = 255
        (folder / "090.pkl").write_bytes(pickle.dumps(frames))
    report = import_data(source, tmp_path / "store", kind="opengait")
    assert report.sequences == 29
    assert "1 sequences that are cut already, unlike the others: 001/nm-01/090" in report.skipped.lines()
    assert {row.subject for row in SequenceStore(tmp_path / "store").rows} == {f"{i:03d}" for i in range(30) if i != 1}
