"""Folders, zip and tar archives show the same files and the same bytes."""

from __future__ import annotations

import gzip
import os
import random
import shutil
import socket
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gaitdiff.data.formats.sources import open_source, packed_inside
from gaitdiff.errors import UserError
from gaitdiff.utils.text import natural
from masks import Tree
from source_trees import FILES, FOLDERS, make_folder, make_tar, make_zip


def system_tar(path: Path, *options: str) -> Path:
    folder = make_folder(path.with_name("to pack"))
    subprocess.run(["tar", "cf", path, *options, "-C", folder, "."], check=True)
    shutil.rmtree(folder)
    return path


KINDS: dict[str, Callable[[Path], Path]] = {
    "folder": lambda path: make_folder(path / "source"),
    "zip": lambda path: make_zip(path / "s.zip"),
    "zip, stored": lambda path: make_zip(path / "s.ZIP", compression=zipfile.ZIP_STORED),
    "zip, lzma": lambda path: make_zip(path / "s.zip", compression=zipfile.ZIP_LZMA),
    "zip of another name": lambda path: make_zip(path / "download"),
    "tar, pax": lambda path: make_tar(path / "s.tar"),
    "tar, GNU": lambda path: make_tar(path / "s.TAR", form=tarfile.GNU_FORMAT),
    "tar of another name": lambda path: make_tar(path / "download"),
    "tar from inside": lambda path: make_tar(path / "s.tar", prefix="./"),
    "tar by tar": lambda path: system_tar(path / "s.tar"),
    "tar by tar, pax": lambda path: system_tar(path / "s.tar", "--format=posix"),
    "tar by tar, old GNU": lambda path: system_tar(path / "s.tar", "--format=oldgnu"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_shows_the_same(kind: str, tmp_path: Path) -> None:
    with open_source(KINDS[kind](tmp_path)) as source:
        assert sorted(source.files) == sorted(FILES)
        assert {*FOLDERS} <= {*source.folders}
        assert all(not name.startswith((".", "/")) for name in source.folders)
        assert {name: source.read(name) for name in source.files} == FILES
        assert {name: source.size(name) for name in source.files} == {name: len(data) for name, data in FILES.items()}
        assert source.packed == (kind != "folder")
        assert packed_inside(source) == ""


def test_order_is_natural_in_every_folder(tmp_path: Path) -> None:
    """Against the plain natural sort of each folder by itself, for alike and unlike names."""
    rng = random.Random(0)
    names = {
        f"p{rng.randrange(12)}/w{rng.randrange(120):0{rng.randrange(1, 4)}}/{rng.randrange(3000)}.png"
        for _ in range(2000)
    }
    names |= (
        {f"p3/{i:03}-b.png" for i in range(0, 300, 7)}
        | {f"p3/{i}x{i % 7}.PNG" for i in range(40)}
        | {"1.png", "p3/a.png"}
    )
    source = open_source(make_zip(tmp_path / "s.zip", dict.fromkeys(names, b"")))
    assert sorted(source.files) == sorted(names)
    folders = [name.rpartition("/")[0] for name in source.files]
    blocks = [folder for i, folder in enumerate(folders) if i == 0 or folders[i - 1] != folder]
    assert len(blocks) == len(set(blocks))  # each folder's files stand together
    for folder in blocks:
        inside = [name for name, at in zip(source.files, folders, strict=True) if at == folder]
        assert inside == sorted(inside, key=natural)
    assert [folder for folder in blocks if folder.startswith("p3/w")] == sorted(
        (folder for folder in blocks if folder.startswith("p3/w")), key=natural
    )


@pytest.mark.parametrize("make", [make_folder, make_zip, make_tar])
def test_many_threads_read_the_right_bytes(make: Callable[[Path, Tree], Path], tmp_path: Path) -> None:
    tree = {f"{i:03}.png": bytes([i]) * (1000 + 37 * i) for i in range(200)}
    with open_source(make(tmp_path / "source.x", tree)) as source, ThreadPoolExecutor(8) as pool:
        wanted = [random.Random(i).choice(source.files) for i in range(2000)]
        for name, data in zip(wanted, pool.map(source.read, wanted), strict=True):
            assert data == tree[name]


@pytest.mark.parametrize("make", [make_folder, make_zip, make_tar])
def test_limits(make: Callable[[Path, Tree], Path], tmp_path: Path) -> None:
    with open_source(make(tmp_path / "source.x", {"1.png": b"x" * 1000})) as source:
        assert source.read("1.png", limit=1000) == b"x" * 1000
        with pytest.raises(ValueError, match="has more than 999 bytes"):
            source.read("1.png", limit=999)


# Folders


def test_links_in_folders_are_followed_and_loops_end(tmp_path: Path) -> None:
    elsewhere = make_folder(tmp_path / "elsewhere", {"w/1.png": b"x"})
    root = make_folder(tmp_path / "source", {"a/1.png": b"y"})
    (root / "linked").symlink_to(elsewhere)
    (root / "a" / "back").symlink_to(root)
    (root / "a" / "itself").symlink_to("itself")
    (root / "a" / "nowhere.png").symlink_to(tmp_path / "nowhere")
    source = open_source(root)
    assert source.files == ["a/1.png", "a/itself", "a/nowhere.png", "linked/w/1.png"]
    assert source.read("linked/w/1.png") == b"x"
    for name in ("a/itself", "a/nowhere.png"):
        with pytest.raises(ValueError, match="cannot be read"):
            source.read(name)
        assert source.size(name) == 0


def test_people_who_are_links_to_others_are_people(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("p1/w/1.png", "p2/w/1.png"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_bytes(name.encode())
    (root / "p3").symlink_to("p1")
    (root / "p4").mkdir()
    (root / "p4" / "w").symlink_to("../p2/w")
    source = open_source(root)
    assert source.files == ["p1/w/1.png", "p2/w/1.png", "p3/w/1.png", "p4/w/1.png"]
    assert source.read("p3/w/1.png") == b"p1/w/1.png"


@pytest.mark.parametrize(
    ("links", "found"),
    [
        ({"a/x": "."}, ["a", "b"]),
        ({"x": ".."}, ["a", "b"]),
        ({"x": "/"}, ["a", "b"]),
        ({"a/x": ".."}, ["a", "b"]),
        ({"a/x": "../b"}, ["a", "a/x", "b"]),
        ({"a/x": "../b", "b/x": "../a"}, ["a", "a/x", "b", "b/x"]),
        ({"a/x": "../b/x", "b/x": "../a/x"}, ["a", "b"]),
    ],
    ids=str,
)
def test_a_folder_is_not_below_itself(tmp_path: Path, links: dict[str, str], found: list[str]) -> None:
    for name in ("a", "b"):
        (tmp_path / "root" / name).mkdir(parents=True)
        (tmp_path / "root" / name / "1.png").touch()
    for name, target in links.items():
        (tmp_path / "root" / name).symlink_to(target)
    files = open_source(tmp_path / "root").files
    assert sorted({name.rpartition("/")[0] for name in files if name.endswith("png")}) == found


def test_folders_that_all_link_to_each_other_end(tmp_path: Path) -> None:
    for i in range(15):
        (tmp_path / f"p{i}").mkdir()
        for j in range(15):
            (tmp_path / f"p{i}" / f"to{j}").symlink_to(f"../p{j}")
    with pytest.raises(UserError, match="more than 1000 ways through links"):
        open_source(tmp_path)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(tmp_path)  # names of sockets are short
        server.bind("socket.png")
        os.chdir(here)
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    source = open_source(tmp_path)
    assert source.files == ["pipe.png", "socket.png", "zero.png"]
    for name in source.files:
        with pytest.raises(ValueError, match=r"is no regular file|cannot be read"):
            source.read(name)


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path / "source") + b"/caf\xe9"
    os.makedirs(folder)
    with open(folder + b"/1.png", "wb") as file:
        file.write(b"x")
    subprocess.run(["tar", "cf", tmp_path / "s.tar", "-C", tmp_path / "source", "."], check=True)
    for path in (tmp_path / "source", tmp_path / "s.tar"):
        with open_source(path) as source:
            assert [os.fsencode(name) for name in source.files] == [b"caf\xe9/1.png"]
            assert source.read(source.files[0]) == b"x"


# Archives of archives


@pytest.mark.parametrize("make", [make_folder, make_zip, make_tar])
def test_archives_inside_get_the_command_that_unpacks_them(make: Callable[[Path, Tree], Path], tmp_path: Path) -> None:
    """The command of the sentence is run, and what it leaves can be imported."""
    packed = {}
    for person in ("001", "002"):
        tar = make_tar(tmp_path / "one.tar", {f"{person}/nm-01/000/1.png": person.encode()})
        packed[f"Gait silhouettes/{person}.tar.gz"] = gzip.compress(tar.read_bytes())
        tar.unlink()
    path = make(tmp_path / "the source", packed | {"readme.txt": b"x", "__MACOSX/._001.tar.gz": b"x"})
    with open_source(path) as source:
        sentence = packed_inside(source)
    assert str(path) in sentence
    assert "2 archives (such as Gait silhouettes/001.tar.gz)" in sentence
    command, folder = sentence.split("`")[1], sentence.rpartition("then import ")[2]
    if shutil.which("unzip") is None and command.startswith("unzip"):
        command = command.replace("unzip -q", "python3 -m zipfile -e").replace(" -d FOLDER", " FOLDER")
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True, capture_output=True)
    with open_source(tmp_path / folder.strip("'")) as source:
        assert packed_inside(source) == ""
        images = [name for name in source.files if name.endswith(".png")]
        assert images == [f"Gait silhouettes/{p}/nm-01/000/1.png" for p in ("001", "002")]
        assert [source.read(name) for name in images] == [b"001", b"002"]


def test_archives_beside_images_are_none_of_its_business(tmp_path: Path) -> None:
    for tree in ({"a.zip": b"x", "b/1.pkl": b"x"}, {"a.zip": b"x", "b/1.JPG": b"x"}, {"readme.txt": b"x"}, {}):
        root = make_folder(tmp_path / str(len(list(tmp_path.iterdir()))), tree)
        assert packed_inside(open_source(root)) == ""
    root = make_folder(tmp_path / "strays", {"a.zip": b"x", "._1.png": b"x"})
    assert "unzip -q" in packed_inside(open_source(root))
