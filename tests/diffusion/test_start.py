"""A denoiser that starts from another one is that one without a condition, to the last digits, and then learns."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gaitdiff.cli import main
from gaitdiff.config.schema import DiffusionConfig
from gaitdiff.diffusion.denoiser import Denoiser
from gaitdiff.diffusion.schedule import make_schedule
from gaitdiff.diffusion.start import list_starts, shipped_start, start_from, without_condition
from gaitdiff.errors import UserError
from gaitdiff.models import create_model
from gaitdiff.training.pretexts import build_objective
from gaitdiff.training.pretrain import load_objective
from gaitdiff.training.run_folder import read_metrics
from worlds import TINY_PRETRAIN, make_store


def test_it_is_the_other_one_without_a_condition() -> None:
    torch.manual_seed(0)
    source = Denoiser.preset("walkers", 24)
    for parameter in source.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    made = Denoiser.preset("walkers", 40)
    null = made.null_condition.detach().clone()
    start_from(made, without_condition(source.state_dict()), "it")
    x, t = torch.randn(3, 4, 2, 8, 8), torch.tensor([10, 500, 990])
    with torch.no_grad():
        expected = source(x, t, torch.randn(3, 24), torch.ones(3, dtype=torch.bool))
        for condition in (torch.randn(3, 40), 9 * torch.randn(3, 40)):
            torch.testing.assert_close(made(x, t, condition), expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(made.null_condition, null)
    # A condition counts as soon as it has been learned from.
    made(x, t, torch.randn(3, 40)).square().mean().backward()
    assert all(block.modulation.weight.grad[:, -40:].abs().sum() > 0 for block in (made.middle_in, made.middle_out))


def test_the_one_that_ships_knows_walks_already(tmp_path: Path) -> None:
    assert list_starts() == ["walkers"]
    denoiser = Denoiser.preset("walkers", 8)
    start_from(denoiser, shipped_start("walkers"), "walkers")
    store = make_store(tmp_path / "store")
    first = {}
    for start in ("", "walkers"):
        words = [*TINY_PRETRAIN, "--data.store", str(store), "--out", str(tmp_path / f"run-{start}")]
        words += ["--optim.iterations", "1", "--run.evaluate_every", "0", "--diffusion.weighting", "uniform"]
        words += ["--diffusion.frames_apart", "true", "--diffusion.start", start]
        assert main(["pretrain", *words]) == 0
        first[start] = read_metrics(tmp_path / f"run-{start}")[0]["loss"]
    assert first["walkers"] < 0.7 * first[""]


def test_a_run_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, first, second = make_store(tmp_path / "store"), tmp_path / "first", tmp_path / "second"
    words = ["pretrain", *TINY_PRETRAIN, "--data.store", str(store), "--run.evaluate_every", "0"]
    assert main([*words, "--optim.iterations", "1", "--out", str(first)]) == 0
    start = [*words, "--diffusion.start", str(first), "--out", str(second)]
    assert main([*start, "--optim.iterations", "2", "--run.save_every", "1"]) == 0
    losses = [record["loss"] for record in read_metrics(second)]
    # Stopped after its first step, it needs the other run no longer.
    shutil.rmtree(second / "checkpoints" / "step-00000002")
    shutil.rmtree(first)
    assert main([*start, "--optim.iterations", "2", "--run.save_every", "1"]) == 0
    assert [record["loss"] for record in read_metrics(second)] == losses
    capsys.readouterr()
    assert main([*start[:-1], str(tmp_path / "third")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert main([*words, "--optim.iterations", "1", "--out", str(first), "--diffusion.schedule", "cosine"]) == 0
    assert main([*start[:-1], str(tmp_path / "fourth")]) == 2
    assert "schedule cosine, not inverted-cosine" in capsys.readouterr().err
    shutil.copytree(first / "checkpoints" / "step-00000001", first / "best")
    assert main([*words, "--diffusion.start", str(first / "best"), "--out", str(tmp_path / "fifth")]) == 2
    assert "schedule cosine, not inverted-cosine" in capsys.readouterr().err


def test_a_frozen_one_learns_to_listen_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, run = make_store(tmp_path / "store"), tmp_path / "run"
    words = ["pretrain", *TINY_PRETRAIN, "--data.store", str(store), "--run.evaluate_every", "0"]
    words += ["--optim.iterations", "3", "--run.save_every", "2", "--run.keep", "0", "--diffusion.freeze_start", "true"]
    assert main([*words, "--out", str(run)]) == 2
    assert "diffusion.start" in capsys.readouterr().err
    words += ["--diffusion.start", "walkers", "--out", str(run)]
    assert main(words) == 0
    end = run / "checkpoints" / "step-00000003"
    trained = load_file(end / "denoiser.safetensors")
    denoiser = Denoiser.preset("walkers", trained["null_condition"].numel())
    start_from(denoiser, shipped_start("walkers"), "walkers")
    for name, value in denoiser.state_dict().items():
        listens = name == "null_condition" or ".modulation." in name
        assert torch.equal(value, trained[name]) != listens, name
    fresh, learned = (load_file(end.with_name(f"step-0000000{step}") / "backbone.safetensors") for step in (2, 3))
    assert any(not torch.equal(fresh[name], learned[name]) for name in fresh)
    shutil.rmtree(end)  # as if it had been killed before
    assert main(words) == 0
    again = load_file(end / "denoiser.safetensors")
    assert all(torch.equal(trained[name], again[name]) for name in trained)


def test_who_starts_from_it_counts_as_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run of another schedule counts by the levels of the denoiser that ships, whatever lies about."""
    store, first = make_store(tmp_path / "store"), tmp_path / "first"
    words = ["pretrain", *TINY_PRETRAIN, "--data.store", str(store), "--run.evaluate_every", "0"]
    words += ["--optim.iterations", "1", "--diffusion.schedule", "cosine"]
    assert main([*words, "--diffusion.start", "walkers", "--out", str(first)]) == 0
    assert main([*words, "--diffusion.start", str(first), "--out", str(tmp_path / "second")]) == 2
    assert "schedule inverted-cosine, not cosine" in capsys.readouterr().err
    levels = make_schedule("cosine").snr(torch.arange(1, 1001)).log()
    for _ in range(2):
        counting = load_objective(first, torch.device("cpu")).counting
        assert counting is not None
        assert torch.equal(counting.levels(levels), make_schedule("inverted-cosine").levels(levels))
        monkeypatch.chdir(tmp_path)
        (tmp_path / "walkers").mkdir(exist_ok=True)


def test_it_is_told_noise_levels_as_it_counts_them() -> None:
    """Under another schedule it predicts at the same signal-to-noise ratio what it did under its own."""
    own, other = make_schedule("inverted-cosine"), make_schedule("cosine")
    diffusion = DiffusionConfig(denoiser="walkers", start="walkers", schedule="cosine", frames_apart=True)
    backbone = create_model("smplgait", "tiny").backbone
    objective = build_objective(backbone, diffusion).eval()
    start_from(objective.denoiser, shipped_start("walkers"), "walkers")
    t = torch.tensor([100, 400, 700])
    same = own.levels(other.snr(t).log())
    assert not torch.equal(same, t)
    torch.testing.assert_close(own.snr(same).log(), other.snr(t).log(), atol=0.05, rtol=0)
    noised, condition = torch.randn(3, 4, 1, 8, 8), torch.zeros(3, backbone.channels)
    expected = objective.denoiser(noised, same, condition, torch.zeros(3, dtype=torch.bool))
    torch.testing.assert_close(objective.predict(noised, t, condition), expected)
    assert build_objective(backbone, replace(diffusion, schedule="inverted-cosine")).counting is None
    assert build_objective(backbone, replace(diffusion, start="")).counting is None


def test_another_size_is_refused() -> None:
    with pytest.raises(UserError, match="of another size"):
        start_from(Denoiser.preset("small"), shipped_start("walkers"), "walkers")
