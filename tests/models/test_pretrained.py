"""Weights that ship: they load by name, whatever is asked for beside them, and score what their cards say."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import gaitdiff
from gaitdiff.cli import main
from gaitdiff.data.store import SequenceStore
from gaitdiff.models import pretrained_card
from gaitdiff.models.pretrained import pretrained_folder, pretrained_model
from gaitdiff.training.checkpoint_files import latest_checkpoint
from gaitdiff.walkers import generate
from worlds import make_store

SHIPPED = gaitdiff.list_pretrained()
CARDS = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "make_card.py"))


def test_there_are_some_and_they_are_small() -> None:
    assert SHIPPED
    files = [file for name, model in SHIPPED for file in pretrained_folder(name, model).iterdir()]
    assert sum(file.stat().st_size for file in files) <= 5_000_000


@pytest.mark.parametrize(("name", "model"), SHIPPED)
def test_a_model_with_them_has_their_backbone_and_a_fresh_head(name: str, model: str) -> None:
    tensors = load_file(pretrained_folder(name, model) / "backbone.safetensors")
    theirs = pretrained_model(name, model)
    settings = {"preset": theirs["preset"], **theirs["config"]}
    for called, asked in ((name, {}), (f"{name}/{model}", settings)):
        torch.manual_seed(0)
        made = gaitdiff.create_model(model, num_classes=3, pretrained=called, **asked)
        torch.manual_seed(0)
        fresh = gaitdiff.create_model(model, num_classes=3, **settings)
        own = made.backbone.state_dict()
        assert own.keys() == tensors.keys()
        assert made.height == 64
        assert all(torch.equal(own[key], value) for key, value in tensors.items())
        assert all(torch.equal(a, b) for a, b in zip(made.head.parameters(), fresh.head.parameters(), strict=True))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ({"name": "smplgait", "pretrained": "walker"}, "did you mean 'walkers'"),
        ({"name": "smplgait", "preset": "gait3d", "pretrained": "walkers"}, "leave out preset and overrides"),
        ({"name": "smplgait", "pretrained": "walkers", "channels": (8, 16, 32)}, "leave out preset and overrides"),
        ({"name": "smplgait", "pretrained": True}, "name of weights"),
        ({"name": "gaitpart", "pretrained": "walkers"}, "of gaitpart"),
        ({"name": "smpl", "pretrained": "walkers"}, "no model 'smpl'"),
    ],
)
def test_what_does_not_fit_is_refused(call: dict[str, Any], says: str) -> None:
    with pytest.raises(gaitdiff.UserError, match=says):
        gaitdiff.create_model(**call)


def test_a_path_of_ones_own_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert latest_checkpoint(Path("walkers")) == pretrained_folder("walkers", "smplgait")
    assert latest_checkpoint(Path("walkers/smplgait")) == pretrained_folder("walkers", "smplgait")
    assert latest_checkpoint(Path("walkers/gaitgl")) == pretrained_folder("walkers", "gaitgl")
    with pytest.raises(gaitdiff.UserError, match="of gaitset"):
        latest_checkpoint(Path("walkers/gaitset"))
    (tmp_path / "walkers" / "checkpoints").mkdir(parents=True)
    with pytest.raises(gaitdiff.UserError, match="holds no checkpoint"):
        latest_checkpoint(Path("walkers"))


def test_fine_tuning_and_evaluation_take_them_by_name(tmp_path: Path) -> None:
    store, run = make_store(tmp_path / "store"), tmp_path / "run"
    flags = ["--batch.people", "3", "--batch.sequences", "2", "--data.frames", "2", "--optim.iterations", "1"]
    flags += ["--data.store", str(store), "--machine.device", "cpu", "--optim.lr", "1e-9", "--run.evaluate_every", "0"]
    assert main(["finetune", "--init", "walkers", *flags, "--out", str(run)]) == 0
    shipped = load_file(pretrained_folder("walkers", "smplgait") / "backbone.safetensors")
    trained = gaitdiff.load_checkpoint(run).backbone.state_dict()
    assert all(
        torch.allclose(trained[k], v, atol=1e-6)
        for k, v in shipped.items()
        if "running" not in k and "tracked" not in k
    )
    assert main(["evaluate", "walkers", "--data", str(store), "--json", str(tmp_path / "scores.json")]) == 0
    assert json.loads((tmp_path / "scores.json").read_text())["raw features"]["about"]["run"] == "walkers"


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> SequenceStore:
    """The walkers on whom all cards tell scores."""
    told = pretrained_card(*SHIPPED[0])["raw_features"]["walkers"]
    return SequenceStore(generate(tmp_path_factory.mktemp("probed") / "walks", **told))


@pytest.mark.parametrize(("name", "model"), SHIPPED)
def test_the_card_tells_what_they_score(name: str, model: str, probed: SequenceStore) -> None:
    card = pretrained_card(name, model)
    assert {"data", "steps", "licence", "limits", "command", "commit", "machine"} <= card.keys()
    told = card["raw_features"]
    assert told["walkers"] == pretrained_card(*SHIPPED[0])["raw_features"]["walkers"]
    found = CARDS["raw_scores"](model, name, probed)
    assert found == pytest.approx(told["pretrained"], abs=1.5)  # another CPU rounds some pixels and ranks otherwise
