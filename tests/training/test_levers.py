"""Settings of stage 1 beyond the paper's: each does what it says, and a run with all of them resumes to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gaitdiff.cli import main
from gaitdiff.config.recipe import parse_config
from gaitdiff.config.schema import PretrainConfig
from gaitdiff.training.pretrain import PretrainStage, load_objective
from worlds import TINY_PRETRAIN, make_store, records

LEVERS = (
    *("--diffusion.projector", "8", "--diffusion.frames_apart", "true", "--optim.hold_backbone", "2"),
    *("--diffusion.log_snr", "[0, 1.5]", "--diffusion.contrast", "1", "--diffusion.weighting", "v"),
    *("--optim.backbone_eps", "1e-4"),
)


def stage(store: Path, *flags: str) -> PretrainStage:
    argv = [*TINY_PRETRAIN, "--data.store", str(store), "--out", "none", "--optim.iterations", "100", *flags]
    return PretrainStage(parse_config(PretrainConfig, "gaitdiff pretrain", argv), torch.device("cpu"), world_size=1)


def test_the_backbone_waits_and_then_learns_slowly_at_first(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    plain, held = stage(store), stage(store, "--optim.hold_backbone", "4")
    for step in range(100):
        usual, backbone = held.lr_factors(step)
        assert (usual, usual) == plain.lr_factors(step)
        assert backbone == pytest.approx(usual * min(max(step - 3, 0) / 4, 1.0))


def test_while_it_waits_no_weight_of_the_backbone_changes(tmp_path: Path) -> None:
    store, run = make_store(tmp_path / "store"), tmp_path / "run"
    words = ["pretrain", *TINY_PRETRAIN, "--data.store", str(store), "--out", str(run), "--optim.iterations", "3"]
    assert main([*words, "--optim.hold_backbone", "3", "--diffusion.projector", "8"]) == 0
    before = stage(store, "--diffusion.projector", "8").module
    after = load_objective(run, torch.device("cpu"))
    trained = dict(after.named_parameters())
    for name, value in before.named_parameters():
        same = torch.equal(value, trained[name])
        assert same == name.startswith("backbone.") or not value.requires_grad, name


def test_a_backbone_that_waits_for_the_most_part_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_store(tmp_path / "store")
    words = ["pretrain", *TINY_PRETRAIN, "--data.store", str(store), "--optim.iterations", "2"]
    words += ["--run.evaluate_every", "0", "--optim.hold_backbone"]
    for hold, says in (("1", ""), ("2", "the backbone never learns"), ("50", "the backbone never learns")):
        capsys.readouterr()
        assert main([*words, hold, "--out", str(tmp_path / f"run{hold}")]) == 0
        told = capsys.readouterr().err
        assert says in told if says else "the backbone" not in told
    assert main([*words, "50", "--objective", "contrastive", "--out", str(tmp_path / "contrastive"), "--dry-run"]) == 0
    assert "the backbone" not in capsys.readouterr().out


def test_with_all_of_them_a_run_goes_on_to_the_bit(tmp_path: Path) -> None:
    store, run, kept = make_store(tmp_path / "store"), tmp_path / "run", tmp_path / "kept"
    flags = [*TINY_PRETRAIN, *LEVERS, "--optim.iterations", "6", "--run.save_every", "3", "--run.evaluate_every", "3"]
    words = ["pretrain", *flags, "--run.log_every", "1", "--run.keep", "0", "--data.store", str(store)]
    assert main([*words, "--out", str(run)]) == 0
    before = records(run)
    (run / "checkpoints" / "step-00000006").rename(kept)  # as if it had been killed before
    assert main([*words, "--out", str(run)]) == 0
    assert records(run) == before
    for stem in ("backbone", "denoiser", "pooling", "optimizer"):
        one, other = (load_file(path / f"{stem}.safetensors") for path in (kept, run / "checkpoints" / "step-00000006"))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_numbers_that_are_none_are_written_as_null(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever they stand in what is measured: JSON has no NaN, and the run goes on."""
    monkeypatch.setattr(PretrainStage, "measure", lambda self: {"gap_by_noise": {"gap": [1.0, float("nan")]}})
    store, run = make_store(tmp_path / "store"), tmp_path / "run"
    words = ["pretrain", *TINY_PRETRAIN, "--data.store", str(store), "--out", str(run), "--optim.iterations", "1"]
    assert main(words) == 0
    assert [record["gap_by_noise"] for record in records(run) if "gap_by_noise" in record] == [{"gap": [1.0, None]}] * 2


def test_a_cpu_spares_the_backbone_clips_that_nobody_hears(tmp_path: Path) -> None:
    """A compiler wants batches of one size; accelerators get those too, see test_phantom.py."""
    store = make_store(tmp_path / "store")
    assert stage(store).module.spares
    assert not stage(store, "--machine.compile", "true").module.spares
