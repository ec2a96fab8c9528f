"""OpenGait's checkpoint files: in and out again without a bit changed, and nothing in them executed."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import gaitdiff
from gaitdiff.cli import main
from gaitdiff.errors import UserError
from gaitdiff.exchange import opengait_weights as opengait
from gaitdiff.exchange.opengait_checkpoint import export_opengait, import_opengait, parse_overrides, read_opengait
from gaitdiff.models import create_model, list_models
from gaitdiff.training.checkpoint import model_document, read_checkpoint_info
from gaitdiff.training.checkpoint_files import save_checkpoint
from opengait_files import NARROW, imported, small_file, trained, weights
from reference import filled, golden_arrays, golden_document
from worlds import TINY_SCRATCH, make_store

CASES = [(name, NARROW[name]) for name in list_models() if name in NARROW]
CASES += [
    ("gaitgl", {"channels": [4, 8, 8], "bn_neck": True}),
    ("deepgaitv2", {**NARROW["deepgaitv2"], "mode": "2d"}),
    ("deepgaitv2", {**NARROW["deepgaitv2"], "mode": "3d"}),
]


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return list(one) == list(other) and all(
        one[key].dtype == other[key].dtype and one[key].shape == other[key].shape and one[key].equal(other[key])
        for key in one
    )


def refused(file: Path, out: Path, name: str = "smplgait", **options: Any) -> str:
    """The sentence with which a file is refused; nothing is left behind."""
    with pytest.raises(UserError) as caught:
        imported(file, out, name, **options)
    assert not out.exists()
    assert not list(out.parent.glob(".*"))
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize(("name", "overrides"), CASES)
def test_round_trips_change_no_bit(name: str, overrides: dict[str, Any], tmp_path: Path) -> None:
    model = trained(name, **overrides)
    file = small_file(tmp_path / "a.pt", {"model": opengait.state_dict(model), "iteration": 180000})
    first = imported(file, tmp_path / "first", name, overrides=overrides)
    again = export_opengait(tmp_path / "first", tmp_path / "b.pt")
    was, now = (torch.load(path, weights_only=True) for path in (file, again))
    assert now["iteration"] == 180000
    assert same(was["model"], now["model"])
    second = imported(again, tmp_path / "second", name, overrides=overrides)
    clip = torch.rand(2, 4, 64, 44)
    with torch.no_grad():
        outputs = [m(clip) for m in (model, first, second)]
    for output in outputs[1:]:
        assert output.embedding.equal(outputs[0].embedding)
        assert model.head.num_classes == 0 or output.logits.equal(outputs[0].logits)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_training_file_gives_the_golden_embeddings(
    optimizer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = golden_document("models")
    state = {key: filled(key, shape, golden["salt"]) for key, shape in golden["models"]["plain_bnneck"]["state_dict"]}
    parameters = [torch.nn.Parameter(torch.ones(3))]
    kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimizer]
    optim = kind(parameters, lr=np.float64(0.1), weight_decay=np.float32(5e-4))  # type: ignore[arg-type]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optim, milestones=[1, 2], gamma=0.1)  # its state holds a Counter
    for _ in range(3):
        parameters[0].sum().backward()
        optim.step()
        schedule.step()
    content = {"model": state, "optimizer": optim.state_dict(), "scheduler": schedule.state_dict(), "iteration": 7}
    file = small_file(tmp_path / "SMPLGait-60000.pt", content)
    out = tmp_path / "imported"
    assert main(["import-opengait", str(file), "--model", "smplgait", "--preset", "grew", "--out", str(out)]) == 0
    assert capsys.readouterr() == (f"{out}\n", "")
    model = gaitdiff.load_checkpoint(out)
    clip = torch.from_numpy((golden_arrays("silhouettes")["fixed"] / 255.0).astype(np.float32))
    with torch.no_grad():
        got = model(clip).embedding[:, ::9].numpy()
    want = golden_arrays("model_plain_bnneck")["fixed/embedding"]
    assert np.abs(got - want).max() < 1e-4 * np.sqrt((want**2).mean())


def test_imported_checkpoints_are_evaluated_finetuned_and_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, out = make_store(tmp_path / "store"), tmp_path / "imported"
    words = [f"--override={key}={str(value).replace(' ', '')}" for key, value in NARROW["smplgait"].items()]
    file = small_file(tmp_path / "a.pt")
    assert main(["import-opengait", str(file), "--model", "smplgait", *words, "--out", str(out)]) == 0
    assert main(["evaluate", str(out), "--data", str(store), "--device", "cpu"]) == 0
    assert "embeddings" in capsys.readouterr().out
    flags = [*TINY_SCRATCH, "--mode", "finetune", "--model.name", "", "--model.preset", "gait3d"]
    flags += ["--model.overrides", "{}", "--init", str(out), "--data.store", str(store)]
    assert main(["finetune", *flags, "--optim.iterations", "1", "--out", str(tmp_path / "run")]) == 0
    back = tmp_path / "b.pt"
    assert main(["export-opengait", str(tmp_path / "run"), "--out", str(back)]) == 0
    content = torch.load(back, weights_only=True)
    assert content["iteration"] == 1
    assert content["model"].keys() == weights().keys()
    assert content["model"]["BNNecks.fc_bin"].shape[2] == 4  # the people of this store


@pytest.mark.parametrize("kind", ["bare", "data parallel", "old format", "safetensors", "unknown iteration"])
def test_other_ways_to_keep_the_same_weights(kind: str, tmp_path: Path) -> None:
    state = weights()
    file = tmp_path / "a.pt"
    if kind == "bare":
        small_file(file, state)
    elif kind == "data parallel":
        small_file(file, {"model": {f"module.{key}": value for key, value in state.items()}})
    elif kind == "old format":
        small_file(file, _use_new_zipfile_serialization=False)
    elif kind == "safetensors":
        file = tmp_path / "a.safetensors"
        save_file(state, file)
    else:
        small_file(file, {"model": state, "iteration": "latest"})
    assert same(opengait.state_dict(imported(file, tmp_path / "out")), state)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32_with_a_note(
    kind: torch.dtype, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = {key: value.to(kind) if value.is_floating_point() else value for key, value in weights().items()}
    model = imported(small_file(tmp_path / "a.pt", {"model": state}), tmp_path / "out")
    assert f"converted weights from {str(kind)[6:]} to float32" in capsys.readouterr().err
    found = opengait.state_dict(model)
    assert same(found, {key: value.to(found[key].dtype) for key, value in state.items()})


def test_classifiers_can_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = small_file(tmp_path / "a.pt")
    whole = imported(file, tmp_path / "whole")
    assert whole.head.num_classes == 5
    model = imported(file, tmp_path / "out", drop_classifier=True)
    assert "dropped BNNecks.fc_bin (31, 8, 5)" in capsys.readouterr().err
    clip = torch.rand(1, 3, 64, 44)
    with torch.no_grad():
        output = model(clip)
        assert output.logits is None
        assert output.embedding.equal(whole(clip).embedding)
    back = torch.load(export_opengait(tmp_path / "out", tmp_path / "b.pt"), weights_only=True)["model"]
    kept = {key: value for key, value in weights().items() if key != "BNNecks.fc_bin"}
    assert same(back, kept)
    assert imported(tmp_path / "b.pt", tmp_path / "again").head.num_classes == 0


@pytest.mark.parametrize(
    ("name", "preset", "overrides", "fits"),
    [
        ("gaitpart", "casia-b", {}, "gaitpart (gait3d, casia-b)"),
        ("gaitgl", "casia-b", {"bn_neck": True}, "gaitgl (gait3d, casia-b) with bn_neck = True"),
        ("deepgaitv2", "casia-b", {"mode": "3d"}, "deepgaitv2 (casia-b, oumvlp) with mode = 3d"),
        ("smplgait", "gait3d", NARROW["smplgait"], "they fit no preset of another model either"),
    ],
)
def test_wrong_models_are_told_what_would_fit(
    name: str, preset: str, overrides: dict[str, Any], fits: str, tmp_path: Path
) -> None:
    model = create_model(name, preset, 3, **overrides)
    file = small_file(tmp_path / "a.pt", {"model": opengait.state_dict(model)})
    sentence = refused(file, tmp_path / "out", "smplgait", overrides={})
    assert fits in sentence
    if name != "smplgait":
        assert "is missing" in sentence
    else:
        assert "is (4, 1, 5, 5) and not (64, 1, 5, 5)" in sentence


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.marker), "w")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("entry", ["model", "scheduler"])
def test_nothing_is_executed(entry: str, zipped: bool, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    content = {"model": weights(), entry: Hostile(marker)}
    file = small_file(tmp_path / "a.pt", content, _use_new_zipfile_serialization=zipped)
    assert "'io.open', which loading would have to execute" in refused(file, tmp_path / "out")
    assert not marker.exists()


def test_damaged_files(tmp_path: Path) -> None:
    file, out = small_file(tmp_path / "a.pt"), tmp_path / "out"
    data = file.read_bytes()
    bad = tmp_path / "bad.pt"
    for content in (data[: len(data) // 2], data[:-30], b"", b"not a checkpoint\n" * 99, b"\x80\x02garbage"):
        bad.write_bytes(content)
        assert "is no checkpoint, or a damaged one" in refused(bad, out)
    flipped = bytearray(data)
    with zipfile.ZipFile(file) as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
    flipped[largest.header_offset + largest.file_size // 2] ^= 1
    bad.write_bytes(flipped)
    assert "is damaged in its part" in refused(bad, out)
    (tmp_path / "bad.safetensors").write_bytes(data)
    assert "is no checkpoint, or a damaged one" in refused(tmp_path / "bad.safetensors", out)
    assert "No such file" in refused(tmp_path / "nowhere.pt", out)
    assert "Is a directory" in refused(tmp_path, out)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"optimizer": {"state": {}}, "iteration": 5}, "it holds the entries ['optimizer', 'iteration']"),
        ([1, 2], "it holds a list"),
        ({}, "no weights under 'model'"),
        ({"model": {}}, "no weights under 'model'"),
        ({"model": {"x": "y"}}, "no weights under 'model'"),
        ({"model": {"x": torch.zeros(2, dtype=torch.complex64)}}, "other than plain float weights in 'x'"),
        ({"model": {"x": torch.zeros(2).to_sparse()}}, "other than plain float weights in 'x'"),
        ({"model": {"x": torch.zeros(2, device="meta")}}, "other than plain float weights in 'x'"),
        ({"model": {"x": torch.zeros(1).expand(10**15)}}, "other than plain float weights in 'x'"),
        ({"model": {"x": torch.tensor([1.0, float("nan")])}}, "NaN or infinite numbers in 'x'"),
        ({"model": {"x": torch.tensor([1e300], dtype=torch.float64)}}, "numbers in 'x' that float32 cannot hold"),
        ({"model": {"x": torch.zeros(2, dtype=torch.int64)}}, "other than plain float weights in 'x'"),
        (torch.nn.Linear(2, 2), "holds a whole object"),
    ],
)
def test_files_that_hold_no_weights(content: Any, sentence: str, tmp_path: Path) -> None:
    assert sentence in refused(small_file(tmp_path / "a.pt", content), tmp_path / "out")


def test_mistakes_in_the_command(tmp_path: Path) -> None:
    file, out = small_file(tmp_path / "a.pt"), tmp_path / "out"
    assert "did you mean 'smplgait'" in refused(file, out, "smplgate")
    assert "did you mean 'channels'" in refused(file, out, overrides={"chanels": [1, 2, 3]})
    assert "OpenGait" in refused(file, out, preset="walkers")
    with pytest.raises(UserError, match="KEY=VALUE"):
        parse_overrides(["channels"])
    assert parse_overrides(["mode=2d", "channels=[1,2]", "bn_neck=true"]) == {
        "mode": "2d",
        "channels": [1, 2],
        "bn_neck": True,
    }
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    for there in (tmp_path / "mine", file):
        with pytest.raises(UserError, match="exists already"):
            import_opengait(file, there, "smplgait", overrides=NARROW["smplgait"])
    with pytest.raises(UserError, match="its folder does not exist"):
        import_opengait(file, file / "below", "smplgait", overrides=NARROW["smplgait"])
    out.mkdir()  # an empty folder is as good as none
    imported(file, out)


def checkpoint(run: Path, preset: str, stems: tuple[str, ...]) -> Path:
    model = create_model("smplgait", preset, 3, **NARROW["smplgait"])
    run.mkdir()
    documents = {"state": {"step": 9}, "model": model_document("smplgait", preset, 3, NARROW["smplgait"])}
    return save_checkpoint(run, 9, {stem: getattr(model, stem).state_dict() for stem in stems}, documents, keep=0)


def test_checkpoints_that_opengait_cannot_have(tmp_path: Path) -> None:
    out = tmp_path / "a.pt"
    pretrained = checkpoint(tmp_path / "pretrained", "gait3d", ("backbone",))
    with pytest.raises(UserError, match="without a trained head"):
        export_opengait(pretrained, out)
    narrow = checkpoint(tmp_path / "narrow", "walkers", ("backbone", "head"))
    with pytest.raises(UserError, match="OpenGait"):
        export_opengait(narrow, out)
    good = checkpoint(tmp_path / "good", "gait3d", ("backbone", "head"))
    with pytest.raises(UserError, match="cannot be written"):
        export_opengait(good, tmp_path / "nowhere" / "a.pt")
    assert not out.exists()
    assert read_opengait(export_opengait(good, out))[1:] == (9, [])
    with pytest.raises(UserError, match="exists already"):
        export_opengait(good, out)


def test_states_in_memory_may_come_from_data_parallel_training_or_lack_counters() -> None:
    state = weights("gaitbase", **NARROW["gaitbase"])
    bare = {f"module.{key}": value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    model = create_model("gaitbase", num_classes=5, **NARROW["gaitbase"])
    assert "counters" in opengait.load_state_dict(model, bare)[0]
    assert all(value.equal(state[key]) for key, value in opengait.state_dict(model).items() if "tracked" not in key)
    assert opengait.load_state_dict(model, state) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda state: {**state, "Head.fc_bin": state["Head.fc_bin"].numpy()}, "'Head.fc_bin' holds ndarray"),
        (lambda state: {**state, "Head.fc_bin": state["Head.fc_bin"] + 0j}, "complex"),
        (lambda state: {**state, "Head.fc_bin": state["Head.fc_bin"][:3]}, "and not"),
        (lambda state: {**state, "Head.fc_bin": state["Head.fc_bin"] * torch.nan}, "'Head.fc_bin' holds NaN"),
        (lambda state: None, "must be a dictionary"),
    ],
)
def test_a_wrong_state_changes_nothing(change: Any, sentence: str) -> None:
    model = create_model("gaitset", **NARROW["gaitset"])
    before = opengait.state_dict(model)
    with pytest.raises(UserError, match=sentence):
        opengait.load_state_dict(model, change(weights("gaitset", 0, **NARROW["gaitset"])))
    assert same(before, opengait.state_dict(model))


def test_a_stem_that_opengait_has_not_is_not_exported() -> None:
    with pytest.raises(UserError, match="stem_stride of 2"):
        opengait.state_dict(create_model("gaitset", stem_stride=2))


@pytest.mark.parametrize(
    ("told", "step"),
    [
        (torch.tensor(60000), 60000),
        (np.int64(9), 9),
        ("60000", None),
        (-1, None),
        (torch.tensor([1, 2]), None),
        (None, None),
    ],
)
def test_the_step_is_what_the_file_tells(told: Any, step: int | None, tmp_path: Path) -> None:
    content = {"model": weights(), **({} if told is None else {"iteration": told})}
    _, found, notes = read_opengait(small_file(tmp_path / "a.pt", content))
    assert found == step
    assert len(notes) == (told is not None and step is None)
    assert imported(tmp_path / "a.pt", tmp_path / "out")
    assert read_checkpoint_info(tmp_path / "out").origin.step == step


def test_the_suffix_of_safetensors_may_be_in_capitals(tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "A.SAFETENSORS")
    found, expected = read_opengait(tmp_path / "A.SAFETENSORS")[0], weights()
    assert same({key: found[key] for key in expected}, expected)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_plain_pickle_is_told_from_a_file_of_torch(protocol: int, tmp_path: Path) -> None:
    file = tmp_path / "a.pt"
    file.write_bytes(pickle.dumps({"model": weights()}, protocol))
    with pytest.raises(UserError, match=r"written by pickle, not by torch\.save"):
        read_opengait(file)
