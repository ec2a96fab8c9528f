"""Files that say more of their tensors than they hold take no memory, and pipes no time."""

from __future__ import annotations

import os
import pickle
import random
import shlex
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gaitdiff.cli import main
from gaitdiff.errors import UserError
from gaitdiff.exchange.opengait_checkpoint import read_opengait
from gaitdiff.exchange.torch_files import PICKLE_BYTES, load_torch_file
from opengait_files import small_file
from worlds import TINY_SCRATCH, make_store

#: Elements of a tensor that takes 8 GB.
MANY = 2_000_000_000


class Call:
    """Pickled as a call with these arguments, whose result is changed by a state."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, state: Any = None) -> None:
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


class Storage:
    """Pickled as torch pickles the numbers of a tensor."""

    def __init__(self, count: int) -> None:
        self.count = count


class Pickler(pickle.Pickler):
    """The pickler of torch.save; ``tail`` is what the older format says besides."""

    tail: tuple[Any, ...] = ()

    def persistent_id(self, thing: object) -> Any:
        return ("storage", torch.FloatStorage, "0", "cpu", thing.count, *self.tail) if type(thing) is Storage else None


class OldPickler(Pickler):
    tail = (None,)


def tensor(stored: int, size: int) -> Call:
    """A tensor of ``size`` elements, of numbers that are said to be ``stored``."""
    return Call(torch._utils._rebuild_tensor_v2, Storage(stored), 0, (size,), (1,), False, OrderedDict())


def old_file(path: Path, content: Any) -> Path:
    """The format from before 2020, with two floats in it."""
    with path.open("wb") as file:
        for head in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
            pickle.dump(head, file, 2)
        OldPickler(file, 2).dump(content)
        pickle.dump(["0"], file, 2)
        file.write(struct.pack("<qff", 2, 1.0, 2.0))
    return path


def archive(path: Path, content: Any, extra: str = "", method: int = zipfile.ZIP_STORED) -> Path:
    """The format of today, with two floats in it."""
    with path.with_suffix(".pkl").open("wb") as file:
        Pickler(file, 2).dump(content)
    with zipfile.ZipFile(path, "w", method) as made:
        made.write(path.with_suffix(".pkl"), "a/data.pkl")
        made.writestr("a/byteorder", "little")
        made.writestr("a/data/0", struct.pack("<ff", 1.0, 2.0))
        made.writestr("a/version", "3\n")
        if extra:
            made.writestr(extra, bytes(9))
    return path


def refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The sentence with which a file is refused, before torch sees it."""
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch was asked"))
    with pytest.raises(UserError) as caught:
        read_opengait(file)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("make", [old_file, archive])
def test_the_files_made_here_are_what_torch_reads(make: Callable[..., Path], tmp_path: Path) -> None:
    found = load_torch_file(make(tmp_path / "a.pt", {"model": {"x": tensor(2, 2)}}))
    assert found["model"]["x"].tolist() == [1, 2]


@pytest.mark.parametrize("make", [old_file, archive])
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (tensor(MANY, MANY), "tensors take 8,000,000,000 bytes"),
        (tensor(2, MANY), "_rebuild_tensor_v2 with what torch.save never writes"),
        (tensor(2, -1), "_rebuild_tensor_v2 with what torch.save never writes"),
        (tensor(-1, 2), "how large its tensors are"),
        (Call(bytearray, MANY), "bytearray', which loading would have to execute"),
        (Call(torch.Tensor, MANY), "Tensor"),
        (Call(torch.FloatStorage, MANY), "'torch.FloatStorage', which loading would have to execute"),
        (Call(np.dtype, f"V{MANY}"), "numpy.dtype with what torch.save never writes"),
        (Call(torch._utils._rebuild_parameter, tensor(2, 2), True, OrderedDict(), state=(1,)), "after they were made"),
        ({((),): 1}, "no simple name"),
    ],
)
def test_what_would_take_memory_is_refused(
    make: Callable[..., Path], content: Any, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make(tmp_path / "a.pt", {"model": {"x": tensor(2, 2)}, "optimizer": content})
    assert file.stat().st_size < 2000
    assert sentence in refused(file, monkeypatch)


def test_archives_hold_what_tensors_need_uncompressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, file = {"x": tensor(2, 2)}, tmp_path / "a.pt"
    assert "is compressed" in refused(archive(file, content, method=zipfile.ZIP_DEFLATED), monkeypatch)
    assert "no tensor needs its part 'a/data/1'" in refused(archive(file, content, "a/data/1"), monkeypatch)
    large = {"x": tensor(2, 2), "text": "x" * PICKLE_BYTES}
    assert "more than 4,194,304" in refused(archive(file, large), monkeypatch)
    good = archive(file, content).read_bytes()
    file.write_bytes(b"PK\x03\x04" + good)
    assert "do not begin where the file does" in refused(file, monkeypatch)


def test_archives_have_few_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as made:
        made.writestr("a/data.pkl", b"")
        for i in range(80):
            made.writestr(f"{i:060000}", b"")
    assert "the list of its parts takes 4," in refused(tmp_path / "a.pt", monkeypatch)


def test_parts_of_an_archive_do_not_share_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = small_file(tmp_path / "a.pt", {"model": {str(i): torch.rand(1000) for i in range(8)}})
    with zipfile.ZipFile(file) as made:
        offsets = {entry.filename: entry.header_offset for entry in made.infolist()}
        end = made.start_dir
    data = bytearray(file.read_bytes())
    at = end
    while data[at : at + 4] == b"PK\x01\x02":  # each part is said to be the whole file
        name, more, note = struct.unpack("<3H", data[at + 28 : at + 34])
        data[at + 20 : at + 28] = struct.pack("<2I", len(data), len(data))
        at += 46 + name + more + note
    assert len(offsets) > 8
    file.write_bytes(data)
    assert "overlap" in refused(file, monkeypatch)


def test_an_old_file_with_an_archive_behind_it_is_weighed_as_an_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = old_file(tmp_path / "a.pt", {"model": {"x": tensor(MANY, MANY)}})
    file.write_bytes(file.read_bytes() + archive(tmp_path / "b.pt", {"x": tensor(2, 2)}).read_bytes())
    assert "tensors take 8,000,000,000 bytes" in refused(file, monkeypatch)


@pytest.mark.parametrize("name", ["a file.pt", "a.pth", "a.safetensors"])
def test_a_file_in_place_of_a_checkpoint_is_told_how_it_becomes_one(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, store = small_file(tmp_path / name), make_store(tmp_path / "store", frames=2)
    init = ["finetune", *TINY_SCRATCH, "--mode", "finetune", "--init", str(file), "--out", str(tmp_path / "run")]
    for words in (["evaluate", str(file), "--data", str(store)], [*init, "--data.store", str(store)]):
        assert main(words) == 2
        assert f"gaitdiff import-opengait {shlex.quote(str(file))} --model" in capsys.readouterr().err


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_bytes_give_weights_or_a_sentence(zipped: bool, tmp_path: Path) -> None:
    file, rng = tmp_path / "a.pt", random.Random(0)
    content = {"model": {"x": torch.rand(3, 4), "y": torch.rand(5)}, "iteration": 5}
    whole = small_file(file, content, _use_new_zipfile_serialization=zipped).read_bytes()
    for _ in range(200):
        data, place = bytearray(whole), rng.randrange(len(whole))
        data[place : place + rng.randrange(3)] = rng.randbytes(rng.randrange(1, 3))
        file.write_bytes(data)
        with suppress(UserError):
            assert read_opengait(file)[0]


def test_pipes_are_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "a.pt")
    assert "pipe or a device" in refused(tmp_path / "a.pt", monkeypatch)
    assert "pipe or a device" in refused(Path("/dev/zero"), monkeypatch)


def test_other_kinds_of_numbers_still_come_through(tmp_path: Path) -> None:
    content = {
        "half": torch.rand(3).half(),
        "wide": torch.arange(3).to(torch.uint16),
        "empty": torch.zeros(0, 4),
        "view": torch.arange(12.0).view(3, 4)[:, 1:3].T,
        "shared": (shared := torch.arange(6.0))[2:4],
        "whole": shared,
        "parameter": torch.nn.Parameter(torch.rand(2)),
    }
    for zipped in (True, False):
        content = (
            content if zipped else {key: value for key, value in content.items() if key != "wide"}
        )  # torch's limit
        file = small_file(tmp_path / "a.pt", content, _use_new_zipfile_serialization=zipped)
        found = load_torch_file(file)
        assert all(torch.equal(found[key], value) for key, value in content.items())
