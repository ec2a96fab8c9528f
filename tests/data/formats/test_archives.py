"""Archives that are odd, hostile or damaged do no harm, and what cannot be read is named."""

from __future__ import annotations

import gzip
import io
import os
import random
import struct
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from gaitdiff.data.formats.images import MAX_BYTES
from gaitdiff.data.formats.sources import Source, open_source
from gaitdiff.errors import UserError
from source_trees import make_tar, make_zip, member


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
