"""The denoiser against golden vectors of the reference, and what a U-Net of its kind must keep to."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gaitdiff.diffusion.attention import attend
from gaitdiff.diffusion.denoiser import PRESETS, Denoiser
from gaitdiff.diffusion.denoiser_reference import load_reference_state_dict, reference_state_dict
from gaitdiff.errors import UserError
from reference import RECORDED

GOLDEN = RECORDED / "denoiser"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def filled(key: str, shape: list[int]) -> Tensor:
    """The golden vectors' rule that makes each weight from its key."""
    draw = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(key.encode())))
    if key.endswith("freqs"):
        return 10000.0 ** -(torch.arange(0, 2 * shape[0], 2).float() / (2 * shape[0]))
    if key.endswith("gamma"):
        return 1 + 0.1 * draw
    if key.endswith("bias"):
        return 0.1 * draw
    if "null_cond_emb" in key or "relative_attention_bias" in key:
        return draw
    return draw / np.sqrt(np.prod(shape[1:]))


def golden(dim: int) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
    meta = json.loads((GOLDEN / f"denoiser_dim{dim}.json").read_text())
    arrays = {k: torch.from_numpy(v) for k, v in np.load(GOLDEN / f"denoiser_dim{dim}.npz").items()}
    state = {key: filled(key, shape) for key, shape, _ in meta["state"]}
    return meta, arrays, state


def relative_error(got: Tensor, expected: Tensor) -> float:
    return ((got - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("dim", [32, 64])
def test_golden_vectors(dim: int) -> None:
    meta, z, state = golden(dim)
    denoiser = Denoiser(dim=dim, cond_dim=meta["cond_dim"])
    load_reference_state_dict(denoiser, state)
    condition = z["cond"].requires_grad_()
    eps = denoiser(z["x"], z["t"], condition)
    assert relative_error(eps, z["eps"]) < 1e-4
    loss = eps.double().square().mean()
    assert loss.item() == pytest.approx(z["loss"].item(), rel=1e-4)
    loss.backward()
    assert condition.grad is not None
    assert relative_error(condition.grad, z["grad_cond"]) < 1e-4
    with torch.no_grad():
        null = denoiser(z["x"], z["t"], condition, drop=torch.ones(2, dtype=torch.bool))
    assert relative_error(null, z["eps_null"]) < 1e-4


@pytest.mark.parametrize(("name", "parameters"), [("small", 3_655_316), ("base", 11_576_084), ("large", 40_215_572)])
def test_published_sizes(name: str, parameters: int) -> None:
    with torch.device("meta"):
        denoiser = Denoiser.preset(name)
    assert sum(p.numel() for p in denoiser.parameters()) == parameters


def small(**changes: Any) -> Denoiser:
    torch.manual_seed(0)
    return Denoiser(**{"dim": 8, "cond_dim": 12, "dim_mults": (1, 2), "heads": 2, "head_dim": 8, **changes})


def inputs(B: int = 3, T: int = 5, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    t = torch.randint(1, 1001, (B,), generator=g)
    return torch.randn(B, 4, T, 8, 8, generator=g), t, torch.randn(B, 12, generator=g)


def test_drop_puts_the_null_vector_in_the_condition_s_place() -> None:
    denoiser = small()
    x, t, condition = inputs()
    drop = torch.tensor([True, False, True])
    null = denoiser.null_condition.detach().expand(3, -1)
    with torch.no_grad():
        mixed, kept, gone = denoiser(x, t, condition, drop), denoiser(x, t, condition), denoiser(x, t, null)
    torch.testing.assert_close(mixed, torch.where(drop.view(-1, 1, 1, 1, 1), gone, kept), rtol=1e-5, atol=1e-6)
    assert (kept - gone).abs().max() > 1e-3


def test_dropped_conditions_get_no_gradient_and_the_null_vector_does() -> None:
    denoiser = small()
    x, t, condition = inputs()
    condition.requires_grad_()
    denoiser(x, t, condition, torch.tensor([True, False, True])).square().mean().backward()
    assert condition.grad is not None
    assert condition.grad.abs().amax(dim=1).gt(0).tolist() == [False, True, False]
    assert denoiser.null_condition.grad is not None
    assert denoiser.null_condition.grad.abs().max() > 0


def test_samples_do_not_see_each_other() -> None:
    denoiser = small()
    x, t, condition = inputs(B=4)
    with torch.no_grad():
        together = denoiser(x, t, condition)
        alone = torch.cat([denoiser(x[i : i + 1], t[i : i + 1], condition[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_every_parameter_learns_but_the_rotary_frequencies() -> None:
    denoiser = small()
    x, t, condition = inputs()
    denoiser(x, t, condition, torch.tensor([True, False, False])).square().mean().backward()
    idle = [n for n, p in denoiser.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert idle == ["rotary_frequencies"]


def test_one_frame_and_many_frames() -> None:
    denoiser = small()
    for frames in (1, 40):
        x, t, condition = inputs(B=2, T=frames)
        with torch.no_grad():
            assert denoiser(x, t, condition).shape == x.shape


def test_one_level_for_all_and_no_condition() -> None:
    denoiser = small()
    x, _, condition = inputs(B=2)
    all_dropped = torch.ones(2, dtype=torch.bool)
    with torch.no_grad():
        want = denoiser(x, torch.tensor([7, 7]), condition, all_dropped)
        for level in (7, torch.tensor(7), torch.tensor([7.0])):
            torch.testing.assert_close(denoiser(x, level, None), want)


def test_what_does_not_fit_is_one_sentence() -> None:
    denoiser = small()
    x, t, condition = inputs(B=2)
    for call, says in (
        ((x[:, :3], t, condition), "noisy latents"),
        ((x[..., :-1], t, condition), "divisible by"),
        ((x, t[:1].repeat(3), condition), r"noise levels must have the shape \(2,\)"),
        ((x, t, condition[:, :-1]), "conditions"),
    ):
        with pytest.raises(UserError, match=says):
            denoiser(*call)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_kinds_of_numbers(dtype: torch.dtype) -> None:
    denoiser = small()
    x, t, condition = inputs(B=2, T=3)
    with torch.no_grad():
        want = denoiser(x, t, condition)
        found = denoiser.to(dtype)(x.to(dtype), t, condition.to(dtype))
    assert found.dtype == dtype
    near = 1e-4 if dtype == torch.float64 else 0.05
    assert (found - want).abs().max() < near * want.abs().max()


def test_float_and_integer_noise_levels_agree() -> None:
    denoiser = small()
    x, t, condition = inputs()
    with torch.no_grad():
        torch.testing.assert_close(denoiser(x, t, condition), denoiser(x, t.float(), condition))


def test_attention_equals_the_fused_kernel() -> None:
    g = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 6, 2, 5, 8, generator=g)
    bias = torch.randn(2, 5, 5, generator=g)
    fused = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)
    torch.testing.assert_close(attend(q, k, v, bias), fused)


def test_a_frame_by_itself_attends_to_itself() -> None:
    """As one of two frames of which it cannot see the other."""
    torch.manual_seed(0)
    denoiser = Denoiser(dim=8, cond_dim=4, heads=2, head_dim=8).double()
    attention, x = denoiser.stem_attention, torch.randn(2, 3, 2, 2, 8, dtype=torch.float64)
    alone, together = denoiser.temporal_context(1, x.device), denoiser.temporal_context(2, x.device)
    blind = torch.tensor([[0.0, -torch.inf], [-torch.inf, 0.0]], dtype=torch.float64)
    expected = attention(x, replace(together, bias=together.bias + blind))
    for frame in range(2):
        torch.testing.assert_close(attention(x[frame : frame + 1], alone), expected[frame : frame + 1])
    attention(x[:1], alone).sum().backward()
    assert denoiser.position_bias.table.grad is not None  # several processes wait for every parameter's gradient


def test_attention_knows_the_order_of_frames() -> None:
    """Rotary angles and position bias both: with either alone switched off, reversing a clip still shows."""
    x, t, condition = inputs()
    for silenced in ("position_bias.table", "rotary_frequencies"):
        denoiser = small()
        with torch.no_grad():
            denoiser.get_parameter(silenced).zero_()
            back = denoiser(x.flip(2), t, condition).flip(2)
            assert (denoiser(x, t, condition) - back).abs().max() > 1e-3


def test_compiles_as_one_graph() -> None:
    denoiser = small()
    x, t, condition = inputs()
    drop = torch.tensor([True, False, False])
    compiled = torch.compile(denoiser, fullgraph=True, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, t, condition, drop), denoiser(x, t, condition, drop))


def test_bf16_autocast_stays_near_float32() -> None:
    denoiser = small()
    x, t, condition = inputs()
    with torch.no_grad():
        exact = denoiser(x, t, condition)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = denoiser(x, t, condition)
    assert rough.dtype == torch.float32
    assert ((rough - exact).square().mean() / exact.square().mean()).sqrt() < 0.03


def test_reference_state_dict_round_trip() -> None:
    meta, _, state = golden(32)
    denoiser = Denoiser(dim=32)
    load_reference_state_dict(denoiser, state)
    back = reference_state_dict(denoiser)
    assert {k: list(v.shape) for k, v in back.items()} == {k: s for k, s, _ in meta["state"]}
    for key, tensor in state.items():
        torch.testing.assert_close(back[key], tensor, rtol=0, atol=1e-7)


def test_reference_state_that_does_not_fit_is_refused_and_changes_nothing() -> None:
    denoiser = small()
    before = {k: v.clone() for k, v in denoiser.state_dict().items()}
    good = {k: v + 1 for k, v in reference_state_dict(denoiser).items()}
    lacking = {k: v for k, v in good.items() if k != "ups.0.1.block2.proj.bias"}
    with pytest.raises(UserError, match=r"lacks 'ups\.0\.1\.block2\.proj\.bias'"):
        load_reference_state_dict(denoiser, lacking)
    with pytest.raises(UserError, match=r"'stray\.weight' has no place"):
        load_reference_state_dict(denoiser, {**good, "stray.weight": torch.zeros(1)})
    wrong = {**good, "init_conv.weight": torch.zeros(16, 4, 1, 7, 7)}
    with pytest.raises(UserError, match=r"'init_conv.weight' is \(16, 4, 1, 7, 7\) .* \(8, 4, 1, 7, 7\)"):
        load_reference_state_dict(denoiser, wrong)
    for key, tensor in denoiser.state_dict().items():
        assert torch.equal(tensor, before[key])


def test_presets() -> None:
    x, t, condition = inputs(B=2, T=4)
    for name in ("walkers-small", "walkers", "walkers-large"):
        denoiser = Denoiser.preset(name, cond_dim=12)
        with torch.no_grad():
            assert denoiser(x, t, condition).shape == x.shape
    widths = [Denoiser.preset(name).stem.out_channels for name in ("walkers-small", "walkers", "walkers-large")]
    assert widths == [8, 16, 32]
    with pytest.raises(UserError, match="'walkers'"):
        Denoiser.preset("walker")
    assert set(PRESETS) == {"small", "base", "large", "walkers", "walkers-small", "walkers-large"}
