"""A step in micro-batches has the gradient of the whole batch, where nothing couples its samples."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gaitdiff.cli import main
from gaitdiff.config.recipe import parse_config
from gaitdiff.config.schema import PretrainConfig
from gaitdiff.diffusion.objective import Noised
from gaitdiff.training.accumulate import in_micro_batches, micro_batches
from gaitdiff.training.pretrain import PretrainStage
from refusals import refused
from worlds import TINY_PRETRAIN, records

FLOAT = (*TINY_PRETRAIN, "--machine.precision", "float32", "--optim.batch", "6")
UNCOUPLED = (*FLOAT, "--model.overrides.batch_norm", "false")


def test_inputs_are_split_by_samples() -> None:
    x, t, drop = torch.randn(6, 2), torch.arange(12), torch.rand(6) < 0.5
    parts = micro_batches((x, Noised(t, x, drop)), 3)
    assert len(parts) == 3
    for i, (some, noised) in enumerate(parts):
        assert torch.equal(some, x[2 * i : 2 * i + 2])
        assert isinstance(noised, Noised)
        assert noised.t.tolist() == list(range(4 * i, 4 * i + 4))
        assert torch.equal(noised.drop, drop[2 * i : 2 * i + 2])


@pytest.mark.parametrize("parts", [1, 2, 3, 6])
def test_gradients_of_a_model_that_couples_nothing(parts: int) -> None:
    """In double precision; processes share their gradients at the last micro-batch alone."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1)).double()
    inputs, shared = (torch.randn(6, 4, dtype=torch.double),), []

    def alone() -> nullcontext[None]:
        shared.append(False)
        return nullcontext()

    def backward(some: tuple[Tensor, ...]) -> Tensor:
        loss = model(*some).square().mean() / parts
        loss.backward()
        return loss.detach()

    whole = model(*inputs).square().mean()
    want = torch.autograd.grad(whole, list(model.parameters()))
    loss = in_micro_batches(backward, parts, alone)(inputs)
    assert len(shared) == parts - 1
    torch.testing.assert_close(loss, whole.detach(), atol=1e-14, rtol=1e-12)
    for parameter, gradient in zip(model.parameters(), want, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-14, rtol=1e-12)


@pytest.mark.parametrize("apart", ["false", "true"])
def test_gradients_of_the_diffusion_objective(apart: str, store: Path) -> None:
    """Noise is drawn for the whole batch."""
    argv = [*UNCOUPLED, "--diffusion.frames_apart", apart, "--data.store", str(store), "--out", "none"]
    stage = PretrainStage(parse_config(PretrainConfig, "gaitdiff pretrain", argv), torch.device("cpu"), world_size=1)
    inputs = stage.inputs(stage.make_batch(0, 0), 0, 0)
    found = []
    for parts in (1, 3):

        def backward(some: tuple[Tensor, ...], parts: int = parts) -> Tensor:
            loss = stage.module(*some) / parts
            loss.backward()
            return loss.detach()

        stage.module.zero_grad()
        loss = in_micro_batches(backward, parts, nullcontext)(inputs)
        found.append((loss, {name: p.grad for name, p in stage.module.named_parameters() if p.grad is not None}))
    torch.testing.assert_close(found[1][0], found[0][0])
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], gradient, atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("objective", ["diffusion", "contrastive"])
def test_a_run_in_micro_batches(objective: str, store: Path, tmp_path: Path) -> None:
    """Diffusion goes through the same numbers; contrast has fewer negatives, and so another loss."""
    losses = []
    for parts in ("1", "3"):
        run = tmp_path / parts
        flags = ["--optim.accumulate", parts, "--optim.iterations", "4", "--run.log_every", "1"]
        words = ["pretrain", *UNCOUPLED, *flags, "--run.evaluate_every", "0", "--data.store", str(store)]
        assert main([*words, "--objective", objective, "--out", str(run)]) == 0
        losses.append([record["loss"] for record in records(run) if "loss" in record])
    assert (losses[1] == pytest.approx(losses[0], rel=1e-4)) == (objective == "diffusion")


@pytest.mark.parametrize("parts", ["4", "6", "7"])
def test_batches_that_cannot_be_split(parts: str, store: Path, out: Path) -> None:
    sentence = refused("pretrain", "--data.store", store, "--out", out, *FLOAT, "--optim.accumulate", parts)
    assert f"optim.accumulate is {parts}, but optim.batch 6 cannot be split" in sentence
    assert not out.exists()
