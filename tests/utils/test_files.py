"""Files that appear whole or not at all, and nothing of anybody else's that is lost on the way."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gaitdiff.errors import UserError
from gaitdiff.utils import files
from gaitdiff.utils.files import NamesAndDrafts, atomic_file, atomic_folder, read_regular, require_new, write_whole


def write_folder(path: Path) -> None:
    with atomic_folder(path, replaces=True) as draft:
        (draft / "a").write_text("new")


WRITERS: dict[str, Callable[[Path], None]] = {
    "file": lambda path: write_whole(path, b"new"),
    "folder": write_folder,
}


def listing(folder: Path) -> dict[str, str]:
    """Every file below a folder with its content; links as where they lead."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def plant(folder: Path, name: str, kind: str, victim: Path) -> None:
    """Put something of a user's where a draft may be looked for."""
    path = folder / name
    if kind == "link":
        path.symlink_to(victim)
    elif kind == "file":
        path.write_text("mine")
    else:
        path.mkdir()
        (path / "thesis.tex").write_text("mine")


@pytest.mark.parametrize("kind", ["link", "file", "folder"])
@pytest.mark.parametrize("what", WRITERS)
def test_what_stands_at_a_drafts_place_stays(tmp_path: Path, what: str, kind: str) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "folder"
    victim.mkdir()
    folder.mkdir()
    (victim / "draft.lock").write_text("mine")
    for name in (".o.txt.partial", ".gaitdiff-abcd1234.partial"):
        plant(folder, name, kind, victim)
    before = listing(tmp_path)
    WRITERS[what](folder / "o.txt")
    after = listing(tmp_path)
    assert before.items() <= after.items()
    assert [after[name] for name in after.keys() - before.keys()] == ["new"]


def test_a_link_to_a_file_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / ".o.txt.partial").symlink_to(tmp_path / "victim")
    write_whole(tmp_path / "o.txt", b"new")
    assert listing(tmp_path) == {".o.txt.partial": str(tmp_path / "victim"), "o.txt": "new", "victim": "mine"}


@pytest.mark.parametrize("what", WRITERS)
def test_permissions_are_those_of_the_umask(tmp_path: Path, what: str) -> None:
    before = os.umask(0o027)
    try:
        WRITERS[what](tmp_path / "o")
    finally:
        os.umask(before)
    assert (tmp_path / "o").stat().st_mode & 0o777 == (0o640 if what == "file" else 0o750)


@pytest.mark.parametrize("atomic", [atomic_file, atomic_folder])
def test_an_error_leaves_what_was_there(tmp_path: Path, atomic: Callable) -> None:
    with pytest.raises(KeyError), atomic(tmp_path / "o"):
        raise KeyError
    with pytest.raises(UserError, match=r"o cannot be written \(no\): try again"), atomic(tmp_path / "o", "try again"):
        raise OSError("no")
    assert list(tmp_path.iterdir()) == []


KILLED = """
import sys
from pathlib import Path
from gaitdiff.utils import files
options = {"replaces": True} if sys.argv[1] == "atomic_folder" else {}
with getattr(files, sys.argv[1])(Path(sys.argv[2]), **options) as draft:
    (draft / "half" if draft.is_dir() else draft).write_text("half")
    print("writing", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("what", WRITERS)
def test_drafts_of_killed_processes_are_cleared_and_no_others(tmp_path: Path, what: str) -> None:
    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", KILLED, f"atomic_{what}", str(tmp_path / "o")]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        return process

    killed = start()
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    (left,) = (path.name for path in tmp_path.iterdir())
    assert left in NamesAndDrafts()
    at_work = start()
    WRITERS[what](tmp_path / "o")
    assert left not in {path.name for path in tmp_path.iterdir()}
    assert len(list(tmp_path.iterdir())) == 2
    at_work.communicate("")
    assert at_work.returncode == 0
    assert set(listing(tmp_path).values()) == {"half"}
    assert [path.name for path in tmp_path.iterdir()] == ["o"]


@pytest.mark.parametrize("many", [1000, 2])
def test_files_within_folders_are_on_disk_before_a_folder_takes_its_place(
    many: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[str] = []
    monkeypatch.setattr(files, "_MANY", many)
    monkeypatch.setattr(files, "sync", lambda path: waited.append(path.name))
    monkeypatch.setattr(os, "sync", lambda: waited.append("all"))
    with atomic_folder(tmp_path / "out") as draft:
        (draft / "person" / "walk").mkdir(parents=True)
        (draft / "person" / "walk" / "view.pkl").write_bytes(b"frames")
    *content, parent = waited
    assert parent == tmp_path.name
    assert sorted(content) == (["all"] if many == 2 else ["out", "person", "view.pkl", "walk"])


def test_what_another_process_has_written_meanwhile_stays(tmp_path: Path) -> None:
    def slower(**options: bool) -> None:
        with atomic_folder(tmp_path / "out", **options) as draft:
            (draft / "mine").write_text("mine")
            with atomic_folder(tmp_path / "out") as faster:
                (faster / "theirs").write_text("theirs")

    with pytest.raises(UserError, match="exists already"):
        slower()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "theirs"]
    shutil.rmtree(tmp_path / "out")
    slower(replaces=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine"]


def test_a_folder_that_cannot_be_written_is_said_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_new(tmp_path / "out")
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)  # root may write everywhere
    with pytest.raises(UserError, match="its folder is not writable"):
        require_new(tmp_path / "out")


def test_names_and_drafts() -> None:
    names = NamesAndDrafts({"a"})
    assert all(name in names for name in ("a", ".gaitdiff-abcd1234.partial"))
    assert not any(name in names for name in ("b", ".b.partial", ".gaitdiff-abcd1234.partial.txt", 0))


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"four")
    with pytest.raises(ValueError, match="no regular file"):
        read_regular(tmp_path / "pipe", 4)
    with pytest.raises(ValueError, match="more than 3 bytes"):
        read_regular(tmp_path / "file", 3)
    with pytest.raises(IsADirectoryError):
        read_regular(tmp_path, 4)
    assert read_regular(tmp_path / "file", 4) == b"four"


def test_a_folder_whose_place_cannot_be_taken_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    best = tmp_path / "best"
    for content in ("first", "second"):
        with atomic_folder(best, replaces=True) as draft:
            (draft / "file").write_text(content)
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    assert (best / "file").read_text() == "second"
    move = os.rename

    def refused(source: Path, target: Path) -> None:
        if Path(target) == best and Path(source).name == best.name:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        move(source, target)

    monkeypatch.setattr(os, "rename", refused)
    with pytest.raises(UserError, match="cannot be written"), atomic_folder(best, replaces=True) as draft:
        (draft / "file").write_text("third")
    assert (best / "file").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
