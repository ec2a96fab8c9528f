"""One tree of files as a folder, a zip and a tar archive, that tests of sources share."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

from masks import Tree

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
