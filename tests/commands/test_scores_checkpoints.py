"""What a checkpoint remembers, what is refused or said where it does not fit, and checkpoints that are odd."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gaitdiff
from gaitdiff.cli import main
from gaitdiff.data.store import SequenceStore, StoreWriter
from gaitdiff.errors import UserError
from gaitdiff.evaluation.features import extract
from gaitdiff.evaluation.held_out import held_out_rows
from gaitdiff.training.checkpoint import read_checkpoint_info
from named_stores import GREW_ROWS, Names, named_store, refused, scored
from worlds import TINY_PRETRAIN, TINY_SCRATCH, make_store, without_digests

# --- what a checkpoint remembers ----------------------------------------------------------------------------------


def test_frames_of_another_height_are_refused_or_converted(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = GREW_ROWS[6:16]
    large = named_store(tmp_path / "large", rows, "grew", height=128)
    words = ["evaluate", run, "--data", large, "--device", "cpu"]
    sentence = refused(words, capsys)
    assert "64 px" in sentence
    assert "128 px" in sentence
    assert "--resize" in sentence
    assert main([str(word) for word in (*words, "--resize", "--save-features", tmp_path / "resized.npy")]) == 0
    halved = tmp_path / "halved"
    with StoreWriter(halved, source="test", dataset="grew") as writer:
        for sequence in SequenceStore(large):
            pooled = sequence.frames.reshape(4, 64, 2, 64, 2).astype(np.uint16).sum((2, 4))
            row = sequence.row
            where = {"condition": row.condition, "view": row.view, "sequence": row.sequence, "role": row.role}
            writer.add(((pooled + 2) // 4).astype(np.uint8), subject=row.subject, split="test", **where)
    other = [str(run), "--data", str(halved), "--save-features", str(tmp_path / "halved.npy")]
    assert main(["evaluate", "--device", "cpu", *other]) == 0
    ours, theirs = (np.load(tmp_path / name) for name in ("resized.npy", "halved.npy"))
    assert np.abs(ours - theirs).max() < 2e-2 * np.abs(theirs).max()  # a half is rounded to either side


def test_finetuning_refuses_frames_of_another_height(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[Names] = [(f"p{p}", "", f"v{k}", "train", "") for p in range(4) for k in range(2)]
    small, large = (named_store(tmp_path / f"{h}", rows, height=h) for h in (64, 128))
    once = ["--optim.iterations", "1", "--run.evaluate_every", "0"]
    assert main(["pretrain", *TINY_PRETRAIN, *once, "--data.store", str(small), "--out", str(tmp_path / "one")]) == 0
    words = ["finetune", *once, "--init", tmp_path / "one", "--out", tmp_path / "two", "--data.store", large]
    assert "--size 64" in refused([*words, "--batch.people", "2", "--batch.sequences", "2"], capsys)
    assert not (tmp_path / "two").exists()


def test_a_pretrained_checkpoint_has_features_and_no_embedding(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", test_people=0)
    flags = [*TINY_PRETRAIN, "--optim.iterations", "1", "--run.evaluate_every", "0", "--data.store", str(store)]
    assert main(["pretrain", *flags, "--out", str(tmp_path / "run")]) == 0
    clip = torch.rand(2, 3, 64, 44)
    with torch.no_grad():
        first, again = (gaitdiff.load_checkpoint(tmp_path / "run")(clip) for _ in range(2))
    assert torch.equal(first.feature, again.feature)
    assert first.logits is None
    with pytest.raises(UserError, match=r"\.feature"):
        _ = first.embedding


# --- checkpoints that are odd -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "changed", "sentence"),
    [
        ("state", {"step": "six"}, "its step is 'six'"),
        ("state", {"iterations": 2.5}, "its iterations is 2.5"),
        ("state", None, "state.json"),
        ("model", {"height": "tall"}, "its height is 'tall'"),
        ("model", {"height": 0}, "its height is 0"),
        ("model", {"height": 64.5}, "its height is 64.5"),
        ("model", {"distance": "manhattan"}, "its distance 'manhattan'"),
    ],
)
def test_damaged_documents_are_named(
    file: str,
    changed: dict[str, Any] | None,
    sentence: str,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    copy = shutil.copytree(run / "checkpoints" / "step-00000004", tmp_path / "copy")
    document = copy / f"{file}.json"
    content = "{" if changed is None else json.dumps({**json.loads(document.read_text()), **changed})
    document.write_text(content)
    without_digests(copy)
    store = named_store(tmp_path / "store", GREW_ROWS, "grew")
    message = refused(["evaluate", copy, "--data", store, "--device", "cpu"], capsys)
    assert sentence in message
    assert f"{file}.json" in message


def test_a_resized_score_says_so(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    large = named_store(tmp_path / "large", GREW_ROWS[6:16], "grew", height=128)
    written = tmp_path / "s.json"
    screen = scored([str(run), "--data", str(large), "--resize", "--json", str(written)], capsys)
    assert "frames 128 x 128, resized to a height of 64" in screen
    assert "resized" in json.loads(written.read_text())["embeddings"]["about"]["frames"]
    unknown = shutil.copytree(run / "checkpoints" / "step-00000004", tmp_path / "unknown")
    document = json.loads((unknown / "model.json").read_text())
    del document["height"]
    (unknown / "model.json").write_text(json.dumps(document))
    without_digests(unknown)
    message = refused(["evaluate", unknown, "--data", large, "--resize", "--device", "cpu"], capsys)
    assert "--resize has no size to go to" in message


def test_a_checkpoint_is_the_one_that_its_name_says(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that goes on writes a newer checkpoint after the first look: the score stays that of the older."""
    going = shutil.copytree(run, tmp_path / "going")
    newest = going / "checkpoints" / "step-00000004"
    newest.rename(tmp_path / "later")

    def load(path: Path, *rest: Any) -> Any:
        (tmp_path / "later").rename(newest)
        return gaitdiff.load_checkpoint(path, *rest)

    monkeypatch.setattr("gaitdiff.commands.evaluate.load_checkpoint", load)
    store = str(named_store(tmp_path / "store", GREW_ROWS, "grew"))
    words = [str(going), "--data", store, "--save-features", str(tmp_path / "going.npy")]
    assert "step 2 of 4" in scored(words, capsys)
    monkeypatch.undo()
    scored(
        [str(run / "checkpoints/step-00000002"), "--data", store, "--save-features", str(tmp_path / "two.npy")], capsys
    )
    assert np.array_equal(np.load(tmp_path / "going.npy"), np.load(tmp_path / "two.npy"))


def test_a_backbone_too_refuses_frames_of_another_height(tmp_path: Path) -> None:
    """As a pretrained model's features are made; and a height that is not told is said."""
    small, large = (SequenceStore(named_store(tmp_path / f"{h}", GREW_ROWS, height=h)) for h in (64, 128))
    model = gaitdiff.create_model("smplgait", "tiny").eval()
    model.height = 128
    rows, cpu = held_out_rows(small), torch.device("cpu")
    assert len(extract(model.backbone, large, rows[:2], cpu)) == 2
    with pytest.raises(UserError, match="trained on frames 128 px high"):
        extract(model.backbone, small, rows[:2], cpu)
    assert len(extract(model.backbone, small, rows[:2], cpu, height=128)) == 2


def test_a_height_that_is_not_told_is_said(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy, store = tmp_path / "run", named_store(tmp_path / "store", GREW_ROWS)
    shutil.copytree(run, copy)
    for file in copy.glob("checkpoints/*/model.json"):
        file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "height"}))
        without_digests(file.parent)
    assert main(["evaluate", str(copy), "--data", str(store), "--device", "cpu"]) == 0
    assert "does not say on frames of which height it was trained" in " ".join(capsys.readouterr().err.split())
    flags = [*TINY_SCRATCH, "--optim.iterations", "1", "--run.evaluate_every", "0", "--data.store", str(store)]
    words = [*flags, "--mode", "finetune", "--init", str(copy), "--out", str(tmp_path / "more")]
    assert main(["finetune", *words]) == 0
    assert "does not say on frames of which height it was trained" in " ".join(capsys.readouterr().err.split())


def test_a_checkpoint_elsewhere_in_a_run_folder_is_not_the_runs(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "kept").mkdir()
    shutil.copytree(next((run / "checkpoints").iterdir()), copy / "kept" / "one")
    state = copy / "kept" / "one" / "state.json"
    state.write_text(json.dumps({"step": 2, "pending": []}))
    without_digests(state.parent)
    origin = read_checkpoint_info(copy / "kept" / "one").origin
    assert (origin.step, origin.iterations, origin.finished) == (2, None, None)
