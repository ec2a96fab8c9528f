"""Folders, zip and tar archives show the same files and the same bytes; hostile and damaged ones do no harm."""

from __future__ import annotations

import gzip
import io
import os
import random
import shutil
import socket
import struct
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gaitdiff.data.formats.images import MAX_BYTES
from gaitdiff.data.formats.sources import Source, open_source, packed_inside
from gaitdiff.errors import UserError
from gaitdiff.utils.text import natural

Tree = dict[str, bytes]

DEEP = "/".join(["a folder whose name is rather long"] * 8)
FILES: Tree = {
    "0001/camid0_videoid2/seq0/00001.png": b"one",
    "0001/camid0_videoid2/seq0/00002.png": b"two" * 1000,
    "0002/f9.png": b"nine",
    "0002/f10.png": b"",
    "0002/.DS_Store": b"\0" * 512,
    "Zoë Ω/散歩/1.png": bytes(range(256)) * 4,
    f"{DEEP}/00001.png": b"deep",
    "x" * 120 + "/" + "y" * 120 + ".png": b"long",
    "100%/a b'c\".png": b"quoted",
}
FOLDERS = ["empty", "0003/empty too"]


def make_folder(root: Path, tree: Tree = FILES) -> Path:
    for name, data in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    return root


def make_zip(path: Path, tree: Tree = FILES, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for folder in FOLDERS:
            archive.writestr(folder + "/", b"")
        for name, data in tree.items():
            archive.writestr(name, data)
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, **values: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    for key, value in values.items():
        setattr(info, key, value)
    return info


def make_tar(path: Path, tree: Tree = FILES, form: int = tarfile.PAX_FORMAT, prefix: str = "") -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        for folder in FOLDERS:
            archive.addfile(member(prefix + folder, tarfile.DIRTYPE))
        for name, data in tree.items():
            archive.addfile(member(prefix + name, size=len(data)), io.BytesIO(data))
    return path


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
        ({"a/x": "."}, {"a", "b"}),
        ({"x": ".."}, {"a", "b"}),
        ({"x": "/"}, {"a", "b"}),
        ({"a/x": ".."}, {"a", "b"}),
        ({"a/x": "../b"}, {"a", "b", "a/x"}),
        ({"a/x": "../b", "b/x": "../a"}, {"a", "b", "a/x", "b/x"}),
        ({"a/x": "../b/x", "b/x": "../a/x"}, {"a", "b"}),
    ],
    ids=str,
)
def test_a_folder_is_not_below_itself(tmp_path: Path, links: dict[str, str], found: set[str]) -> None:
    for name in ("a", "b"):
        (tmp_path / "root" / name).mkdir(parents=True)
        (tmp_path / "root" / name / "1.png").touch()
    for name, target in links.items():
        (tmp_path / "root" / name).symlink_to(target)
    assert {name.rpartition("/")[0] for name in open_source(tmp_path / "root").files if name.endswith("png")} == found


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


# Tar archives


def test_last_of_two_files_of_one_name_counts(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w") as archive:
        for name, data in (("a/1.png", b"old"), ("a/2.png", b"x"), ("./a//1.png", b"new one")):
            archive.addfile(member(name, size=len(data)), io.BytesIO(data))
    with open_source(path) as source:
        assert source.files == ["a/1.png", "a/2.png"]
        assert source.read("a/1.png") == b"new one"
        assert source.size("a/1.png") == 7


def test_links_devices_and_sparse_members_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "sparse.png").touch()
    os.truncate(tmp_path / "sparse.png", 1 << 20)
    (tmp_path / "plain.png").write_bytes(b"x")
    for number, form in enumerate(("gnu", "posix")):
        path = tmp_path / f"{number}.tar"
        files = ["sparse.png", "plain.png"]
        subprocess.run(["tar", "cSf", path, f"--format={form}", "-C", tmp_path, *files], check=True)
        with open_source(path) as source:
            assert source.read("plain.png") == b"x"
            unreadable = next(name for name in source.files if name.endswith("sparse.png"))
            with pytest.raises(ValueError, match="sparse file"):
                source.read(unreadable)
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w") as archive:
        archive.addfile(member("1.png", tarfile.SYMTYPE, linkname="/etc/passwd"))
        archive.addfile(member("2.png", tarfile.LNKTYPE, linkname="3.png"))
        archive.addfile(member("3.png", size=3), io.BytesIO(b"abc"))
        archive.addfile(member("4.png", tarfile.CHRTYPE, devmajor=1, devminor=5))
        archive.addfile(member("5.png", tarfile.FIFOTYPE))
    with open_source(path) as source:
        assert source.read("3.png") == b"abc"
        for name, reason in (("1.png", "link"), ("2.png", "link"), ("4.png", "device"), ("5.png", "pipe")):
            with pytest.raises(ValueError, match=reason):
                source.read(name)


def test_links_in_zips_are_no_files(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("1.png")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with open_source(tmp_path / "s.zip") as source, pytest.raises(ValueError, match="is a link"):
        source.read("1.png")


def test_large_sizes_and_global_attributes(tmp_path: Path) -> None:
    """A member of 9 GiB, whose size no octal field holds, as holes of the file; what follows it is found."""
    path = tmp_path / "s.tar"
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(path, "w", format=form, pax_headers={"comment": "for all"}) as archive:
            archive.addfile(member("1.png", size=9 << 30))
            assert archive.fileobj is not None
            archive.fileobj.seek(9 << 30, os.SEEK_CUR)
            archive.offset += 9 << 30
            archive.addfile(member("2.png", size=4), io.BytesIO(b"last"))
        with open_source(path) as source:
            assert source.size("1.png") == 9 << 30
            assert source.read("2.png") == b"last"
            with pytest.raises(ValueError, match=f"more than {MAX_BYTES} bytes"):
                source.read("1.png")


def test_archive_cut_short_while_it_is_read(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "s.tar", {"1.png": b"x" * 5000})
    with open_source(path) as source:
        os.truncate(path, 2500)
        with pytest.raises(ValueError, match="cut short"):
            source.read("1.png")


def tar_bytes(*infos: tarfile.TarInfo, form: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for info in infos:
            archive.addfile(info, io.BytesIO(bytes(info.size)))
    return file.getvalue()


def zip_bytes(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return file.getvalue()


def signed(header: bytes) -> bytes:
    """Give an edited header its right sum."""
    header = header[:148] + b" " * 8 + header[156:]
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]


def with_size(field: bytes) -> bytes:
    data = tar_bytes(member("1.png", size=600))
    return signed(data[:124] + field + data[136:512]) + data[512:]


def attributes(record: bytes) -> bytes:
    header = tar_bytes(member("x", tarfile.XHDTYPE, size=len(record)), form=tarfile.USTAR_FORMAT)[:512]
    return header + record.ljust(512, b"\0") + tar_bytes(member("1.png"))


GOOD = tar_bytes(member("a/1.png", size=600), member("a/2.png", size=600))

REFUSED: dict[str, tuple[str, bytes, str]] = {
    "gzip": ("s.tar.gz", gzip.compress(GOOD), r"compressed, .* unpack it \(`tar xf .*/s.tar.gz`\), import the folder"),
    "gzip of a name with spaces": ("my s.tgz", gzip.compress(GOOD), r"`tar xf '.*/my s.tgz'`"),
    "gzip that calls itself tar": ("s.tar", gzip.compress(GOOD), "compressed"),
    "gzip that calls itself zip": ("s.zip", gzip.compress(GOOD), "compressed"),
    "bzip2": ("s.tar.bz2", b"BZh91AY&SY", "compressed"),
    "xz": ("s.tar.xz", b"\xfd7zXZ\0\0\x04", "compressed"),
    "zstandard": ("s.tar.zst", b"\x28\xb5\x2f\xfd\x04", "compressed"),
    "7z": ("s.7z", b"7z\xbc\xaf\x27\x1c", r"`7z x .*/s.7z`"),
    "rar": ("s.rar", b"Rar!\x1a\x07\x00", r"`7z x .*/s.rar`"),
    "a text": ("s.txt", b"text", "neither a folder nor a .zip or .tar archive"),
    "nothing": ("s", b"", "neither a folder nor a .zip or .tar archive"),
    "an empty tar": ("s.tar", b"", "as a tar archive .it is empty."),
    "a text that calls itself tar": ("s.tar", b"text" * 1000, "header at byte 0 is damaged"),
    "a short text that calls itself tar": ("s.tar", b"text", "header at byte 0 is cut short"),
    "a tar without its end": ("s.tar", GOOD[:2300], "ends before what its header at byte 1536 announces"),
    "a tar that ends in a header": ("s.tar", GOOD[:1700], "header at byte 1536 is cut short"),
    "a tar with a damaged header": ("s.tar", GOOD[:1540] + b"?" + GOOD[1541:], "header at byte 1536 is damaged"),
    "a size that is no number": ("s.tar", with_size(b"12345678x90\0"), "header at byte 0 is damaged"),
    "a negative size": ("s.tar", with_size(b"\xff" * 12), "header at byte 0 is damaged"),
    "a small negative size": ("s.tar", with_size(b"-0000000200\0"), "header at byte 0 is damaged"),
    "a huge size": ("s.tar", with_size(b"\x80\0\0\0\0" + b"\xff" * 7), "ends before what its header at byte 0"),
    "attributes without a length": ("s.tar", attributes(b"path=x\n"), "header at byte 0 is damaged"),
    "attributes of length 0": ("s.tar", attributes(b"0 path=x\n"), "header at byte 0 is damaged"),
    "attributes that go on too long": ("s.tar", attributes(b"999 path=x\n"), "header at byte 0 is damaged"),
    "attributes of a negative size": ("s.tar", attributes(b"12 size=-10\n"), "header at byte 1024 is damaged"),
    "attributes of a huge size": ("s.tar", attributes(b"22 size=99999999999999\n"), "damaged|announces"),
    "endless attributes": ("s.tar", tar_bytes(member("x", tarfile.XHDTYPE, size=2 << 20)), "byte 0 is damaged"),
    "an endless name": ("s.tar", tar_bytes(member("x", tarfile.GNUTYPE_LONGNAME, size=2 << 20)), "byte 0 is damaged"),
    "a tar that climbs": ("s.tar", tar_bytes(member("../1.png")), "'../1.png', which leads out of it"),
    "a tar that climbs inside": ("s.tar", tar_bytes(member("a/../../1.png")), "leads out of it"),
    "a tar that climbs in attributes": ("s.tar", attributes(b"18 path=../../1.png\n"), "damaged|leads out of it"),
    "a tar with absolute names": ("s.tar", tar_bytes(member("/etc/1.png")), "leads out of it"),
    "a folder that climbs": ("s.tar", tar_bytes(member("..", tarfile.DIRTYPE)), "leads out of it"),
    "a zip that climbs": ("s.zip", zip_bytes("a/../../1.png"), "leads out of it"),
    "an empty zip": ("s.zip", b"", "cannot be read as a zip"),
    "a zip without its end": ("s.zip", zip_bytes("a/1.png")[:-10], "cannot be read as a zip"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, tmp_path: Path) -> None:
    file_name, data, sentence = REFUSED[name]
    (tmp_path / file_name).write_bytes(data)
    with pytest.raises(UserError, match=sentence) as caught:
        open_source(tmp_path / file_name)
    assert str(tmp_path / file_name) in str(caught.value)
    assert str(caught.value).isprintable()
    assert [path.name for path in tmp_path.iterdir()] == [file_name]


def test_nothing_there_and_nothing_readable(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to import"):
        open_source(tmp_path / "x.tar")
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(UserError, match="neither a folder nor"):
        open_source(tmp_path / "pipe.tar")  # and does not wait for somebody to write to it


def test_zip_bomb_is_not_inflated(tmp_path: Path) -> None:
    """Of an entry with a false size, no more is inflated than it says; of one with a true one, nothing."""
    with zipfile.ZipFile(tmp_path / "s.zip", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("1.png", "w") as file:
        for _ in range(MAX_BYTES // (1 << 20) + 1):
            file.write(bytes(1 << 20))
    with open_source(tmp_path / "s.zip") as source, pytest.raises(ValueError, match="has more than"):
        source.read("1.png")
    data = bytearray((tmp_path / "s.zip").read_bytes())
    directory = data.index(b"PK\x01\x02")
    data[directory + 24 : directory + 28] = struct.pack("<I", 1000)
    (tmp_path / "s.zip").write_bytes(data)
    with open_source(tmp_path / "s.zip") as source, pytest.raises(ValueError, match="cannot be read"):
        source.read("1.png")


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_damage_never_raises_anything_else(kind: str, tmp_path: Path) -> None:
    tree = {"a/1.png": b"x" * 700, "b" * 150: b"y", "ä/2.png": b""}
    path = (make_tar if kind == "tar" else make_zip)(tmp_path / f"s.{kind}", tree)
    whole = path.read_bytes()
    rng = random.Random(1)
    refused = 0
    for _ in range(400):
        data = bytearray(whole[: rng.choice((len(whole), rng.randrange(len(whole))))])
        for _ in range(rng.randrange(1, 20)):
            data[rng.randrange(len(data) + 1) - 1 :][:1] = bytes([rng.randrange(256)])
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        try:
            with open_source(path) as source:
                refused += sum(_unreadable(source, name) for name in source.files)
        except UserError:
            refused += 1
    assert refused > 100


def _unreadable(source: Source, name: str) -> bool:
    assert source.size(name) >= 0
    try:
        source.read(name)
    except ValueError:
        return True
    return False


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
