"""The objective against closed forms: pooling, condition gap, pair distances, batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gaitdiff.config.schema import NO_AUGMENT, AugmentConfig
from gaitdiff.data.batches import IdentityBatches, Prefetcher, PretrainBatches, training_rows
from gaitdiff.data.store import SequenceStore
from gaitdiff.diffusion.objective import ConditionPooling, DiffusionObjective, Noised, pair_distances
from gaitdiff.diffusion.schedule import make_schedule
from gaitdiff.diffusion.weighting import loss_weight
from worlds import make_store


class MeanFrame(nn.Module):
    """A backbone of no weights: the mean frame's first four pixels as channels of two equal parts."""

    def forward(self, clip: Tensor) -> Tensor:
        return clip.mean(1).flatten(1)[:, :4, None].expand(-1, -1, 2)


class Oracle(nn.Module):
    """A denoiser that knows its latents to be their condition everywhere; without one it guesses zero noise."""

    def __init__(self, deaf: bool = False) -> None:
        super().__init__()
        self.deaf, self.schedule = deaf, make_schedule("inverted-cosine")

    def forward(self, x: Tensor, t: Tensor, condition: Tensor, drop: Tensor) -> Tensor:
        x0 = condition[:, :, None, None, None].expand_as(x)
        alpha_bar = self.schedule.alpha_bar[t].view(-1, 1, 1, 1, 1)
        noise = (x - alpha_bar.sqrt() * x0) / (1 - alpha_bar).sqrt()
        quiet = drop if not self.deaf else torch.ones_like(drop)
        return torch.where(quiet.view(-1, 1, 1, 1, 1), torch.zeros_like(noise), noise)


def objective(denoiser: nn.Module, drop: float = 0.0) -> DiffusionObjective:
    pooling = ConditionPooling("mean", 4, 2, normalize=False)
    return DiffusionObjective(MeanFrame(), pooling, denoiser, make_schedule("inverted-cosine"), p_uncond=drop)


def world(count: int = 6) -> tuple[Tensor, Tensor]:
    """Gait clips, and latents that equal their condition everywhere."""
    clips = torch.rand(count, 3, 64, 44, generator=torch.Generator().manual_seed(0))
    condition = MeanFrame()(clips).mean(2)
    return condition[:, :, None, None, None].expand(-1, 4, 3, 8, 8).contiguous(), clips


def test_loss_is_zero_for_who_knows_and_weighted_noise_for_who_does_not() -> None:
    latents, clips = world()
    knowing, deaf = objective(Oracle()), objective(Oracle(deaf=True))
    noised = knowing.draw(latents, torch.Generator().manual_seed(1))
    assert knowing(latents, clips, noised).item() == pytest.approx(0.0, abs=1e-6)
    weight = loss_weight("mnp", deaf.schedule.snr(noised.t), 5.0)
    want = (weight * noised.noise.square().mean((1, 2, 3, 4))).mean()
    assert deaf(latents, clips, noised).item() == pytest.approx(want.item(), rel=1e-5)


def test_dropped_conditions_follow_the_probability() -> None:
    latents, clips = world(400)
    share = objective(Oracle(), drop=0.15)
    noised = share.draw(latents, torch.Generator().manual_seed(0))
    assert noised.drop.float().mean().item() == pytest.approx(0.15, abs=0.05)
    assert noised.t.min() >= 1
    assert noised.t.max() <= 1000
    error = share.per_sample(latents, MeanFrame()(clips).mean(2), noised, noised.drop)
    assert (error[~noised.drop] < 1e-6).all()
    assert (error[noised.drop] > 1e-6).all()


def test_condition_gap_in_closed_form() -> None:
    latents, clips = world()
    knowing = objective(Oracle())
    noised = knowing.draw(latents, torch.Generator().manual_seed(1))
    owner = torch.arange(6)
    gap = knowing.condition_gap(latents, clips, noised, owner)
    # With another's condition c', the predicted noise is off by √(ᾱ/(1-ᾱ))·(c - c').
    condition = latents[:, :, 0, 0, 0]
    snr = knowing.schedule.snr(noised.t)
    off = snr * (condition - condition.roll(1, 0)).square().mean(1)
    want = (loss_weight("mnp", snr, 5.0) * off).mean().item()
    assert gap["gap_shuffled"] == pytest.approx(want, rel=1e-3)
    assert gap["gap_dropped"] == pytest.approx(objective(Oracle(deaf=True))(latents, clips, noised).item(), rel=1e-4)
    deaf = objective(Oracle(deaf=True)).condition_gap(latents, clips, noised, owner)
    assert deaf["gap_shuffled"] == 0
    assert deaf["gap_dropped"] == 0


def test_condition_gap_leaves_out_pairs_of_one_sequence_and_the_mode_alone() -> None:
    latents, clips = world()
    knowing = objective(Oracle())
    knowing.train()
    noised = knowing.draw(latents, torch.Generator().manual_seed(1))
    same = knowing.condition_gap(latents, clips, noised, torch.zeros(6, dtype=torch.long))
    assert same["gap_shuffled"] == 0
    assert knowing.training


@pytest.mark.parametrize(("pooling", "width"), [("mean", 4), ("max", 4), ("mean+max", 4), ("all-parts", 12)])
def test_poolings(pooling: str, width: int) -> None:
    feature = torch.randn(5, 4, 3)
    pool = ConditionPooling(pooling, 4, 3, normalize=False)
    want = {
        "mean": feature.sum(2) / 3,
        "max": torch.stack([feature[:, :, p] for p in range(3)]).max(0).values,
        "mean+max": feature.sum(2) / 3 + feature.max(2).values,
        "all-parts": feature.reshape(5, 12),
    }[pooling]
    assert pool.width == width
    assert torch.allclose(pool(feature), want)
    normal = ConditionPooling(pooling, 4, 3, normalize=True)(feature)
    assert torch.allclose(normal.mean(0), torch.zeros(width), atol=1e-5)
    assert torch.allclose(normal.var(0, unbiased=False), torch.ones(width), atol=1e-3)


def test_pair_distances_equal_brute_force() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 5, 4, 3))
    owner = [0, 1, 1, 2, 3]

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(
            np.mean([1 - a[:, p] @ b[:, p] / np.linalg.norm(a[:, p]) / np.linalg.norm(b[:, p]) for p in range(3)])
        )

    pairs = pair_distances(torch.tensor(first), torch.tensor(second), torch.tensor(owner))
    assert pairs["ap"] == pytest.approx(np.mean([cosine(first[i], second[i]) for i in range(5)]), rel=1e-5)
    apart = [cosine(first[i], second[j]) for i in range(5) for j in range(5) if owner[i] != owner[j]]
    assert pairs["an"] == pytest.approx(np.mean(apart), rel=1e-5)


# --- batches -----------------------------------------------------------------------------------------------


def pretrain_batches(store: SequenceStore, **changed: object) -> PretrainBatches:
    settings: dict[str, object] = {
        "batch": 4,
        "latent_frames": 3,
        "gait_frames": 2,
        "sampling": "unordered",
        "augment": AugmentConfig(),
        "seed": 3,
        **changed,
    }
    return PretrainBatches(store, training_rows(store, 1), **settings)  # type: ignore[arg-type]


def test_batches_depend_on_seed_and_step_alone(tmp_path: Path) -> None:
    store = SequenceStore(make_store(tmp_path / "s"))
    one, other = pretrain_batches(store), pretrain_batches(SequenceStore(tmp_path / "s"))
    late = one(7)
    for step in range(7):
        one(step)
    for again in (one(7), other(7)):
        assert np.array_equal(again.latent, late.latent)
        assert np.array_equal(again.gait, late.gait)
        assert np.array_equal(again.sequence, late.sequence)
        assert np.array_equal(again.gait_plan.homography, late.gait_plan.homography)
    assert not np.array_equal(pretrain_batches(store, seed=4)(7).latent, late.latent)


def test_every_sequence_comes_once_an_epoch(tmp_path: Path) -> None:
    store = SequenceStore(make_store(tmp_path / "s"))  # 12 training sequences
    batches = pretrain_batches(store)
    for epoch in range(3):
        seen = [batches(epoch * 3 + step).sequence for step in range(3)]
        assert sorted(np.concatenate(seen)) == sorted(store.select(split="train"))


def test_processes_share_a_batch(tmp_path: Path) -> None:
    """Sequences, clips and plans of shares side by side are those of the whole batch."""
    store = SequenceStore(make_store(tmp_path / "s"))
    whole = pretrain_batches(store, objective="both")(5)
    shares = [pretrain_batches(store, objective="both", world_size=2)(5, rank) for rank in range(2)]
    for name in ("latent", "gait", "second", "sequence"):
        assert np.array_equal(np.concatenate([getattr(share, name) for share in shares]), getattr(whole, name))
    for name in ("latent_plan", "gait_plan", "second_plan"):
        for field in ("homography", "warped", "flip", "dilate", "dilate_band", "blur_band"):
            parts = [getattr(getattr(share, name), field) for share in shares]
            assert np.array_equal(np.concatenate(parts), getattr(getattr(whole, name), field))


def test_two_clips_of_one_sequence_or_one_clip(tmp_path: Path) -> None:
    store = SequenceStore(make_store(tmp_path / "s"))
    batch = pretrain_batches(store)(0)
    for i, row in enumerate(batch.sequence):
        frames = {frame.tobytes() for frame in store[int(row)].frames}
        assert all(frame.tobytes() in frames for frame in (*batch.latent[i], *batch.gait[i]))
    same = pretrain_batches(store, same_clip=True)(0)
    assert np.array_equal(same.latent, same.gait)
    assert np.array_equal(same.latent_plan.homography, same.gait_plan.homography)
    assert np.array_equal(same.latent_plan.dilate, same.gait_plan.dilate)


def test_identity_batches_have_p_people_with_k_sequences(tmp_path: Path) -> None:
    store = SequenceStore(make_store(tmp_path / "s"))
    rows = training_rows(store, 1)
    batches = IdentityBatches(
        store, rows, people=3, sequences=2, frames=2, sampling="consecutive", augment=NO_AUGMENT, seed=0
    )
    owner = {frame.tobytes(): store.rows[row].subject for row in rows for frame in store[int(row)].frames}
    for step in range(5):
        batch = batches(step)
        assert batch.clips.shape == (6, 2, 64, 64)
        assert list(np.bincount(np.unique(batch.labels, return_inverse=True)[1])) == [2, 2, 2]
        for clip, label in zip(batch.clips, batch.labels, strict=True):
            assert owner[clip[0].tobytes()] == batches.subjects[label]


def test_prefetcher_keeps_order_and_hands_errors_on() -> None:
    assert list(Prefetcher(lambda step: step * step, 3, 7)) == [(3, 9), (4, 16), (5, 25), (6, 36)]

    def fail(step: int) -> int:
        if step == 2:
            raise OSError("gone")
        return step

    batches = iter(Prefetcher(fail, 0, 9))
    assert [next(batches), next(batches)] == [(0, 0), (1, 1)]
    with pytest.raises(OSError, match="gone"):
        next(batches)


class Biased(Oracle):
    """The oracle, a tenth beside the noise."""

    def forward(self, x: Tensor, t: Tensor, condition: Tensor, drop: Tensor) -> Tensor:
        return super().forward(x, t, condition, drop) + 0.1


def test_gap_by_noise_in_closed_form() -> None:
    latents, clips = world()
    biased, levels = objective(Biased()), (-4.0, 0.0, 3.0)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    owner = torch.tensor([0, 1, 1, 2, 3, 4])  # the third is compared with its own sequence: it does not count
    found = biased.gap_by_noise(latents, clips, noise, owner, levels)
    condition = MeanFrame()(clips).mean(2).double()
    apart = (condition - condition.roll(1, 0))[owner != owner.roll(1, 0)]
    assert found["log_snr"] == pytest.approx(list(levels), abs=0.2)
    for log_snr, gap, error in zip(found["log_snr"], found["gap"], found["error"], strict=True):
        snr = float(np.exp(log_snr))
        each = ((0.1 + snr**0.5 * apart) ** 2).mean(1) - 0.01
        assert gap == pytest.approx(100 * float(each.mean()) / 0.01, rel=2e-2)
        assert error == pytest.approx(100 * float(each.std()) / 0.01 / len(each) ** 0.5, rel=2e-2)


def test_one_sequence_alone_has_no_gap() -> None:
    latents, clips = world()
    found = objective(Biased()).gap_by_noise(latents, clips, torch.randn_like(latents), torch.zeros(6), (0.0,))
    assert np.isnan([*found["gap"], *found["error"]]).all()


def test_frames_apart_are_clips_of_one_frame() -> None:
    """The loss, its parts, the gap and the prediction, as of a batch whose clips are the frames."""
    latents, clips = world()
    latents = latents + torch.randn(latents.shape, generator=torch.Generator().manual_seed(3))
    apart, plain = objective(Biased()), objective(Biased())
    apart.frames_apart = True
    noised = apart.draw(latents, torch.Generator().manual_seed(1))
    assert noised.noise.shape == (18, 4, 1, 8, 8)
    assert len(noised.t.unique()) > 6  # each frame has a level of its own
    frames = latents.transpose(1, 2).reshape(18, 4, 1, 8, 8)
    condition = MeanFrame()(clips).mean(2)
    each = condition.repeat_interleave(3, 0)
    want = plain.per_sample(frames, each, noised, noised.drop)
    torch.testing.assert_close(apart.per_sample(latents, condition, noised, noised.drop), want)
    torch.testing.assert_close(apart(latents, clips, noised), want.mean())
    owner = torch.arange(6)
    gap = apart.condition_gap(latents, clips, noised, owner)
    other = plain.per_sample(frames, condition.roll(1, 0).repeat_interleave(3, 0), noised, noised.drop)
    assert gap["gap_shuffled"] == pytest.approx(float((other - want).mean()), rel=1e-4)
    by_noise = apart.gap_by_noise(latents, clips, noised.noise, owner, (0.0,))
    same = Noised(plain.schedule.levels(torch.zeros(18)), noised.noise, torch.zeros(18, dtype=torch.bool))
    right = plain.per_sample(frames, each, same, same.drop)
    wrong = plain.per_sample(frames, condition.roll(1, 0).repeat_interleave(3, 0), same, same.drop)
    assert by_noise["gap"][0] == pytest.approx(100 * float((wrong - right).mean() / right.mean()), rel=1e-4)
    t = torch.full((6,), 300)
    found = apart.predict(latents, t, condition)
    torch.testing.assert_close(found, plain.predict(latents, t, condition))


def test_a_projector_makes_conditions_of_the_same_width() -> None:
    torch.manual_seed(0)
    pooling = ConditionPooling("all-parts", 4, 2, normalize=True, projector=16)
    condition = pooling(torch.rand(64, 4, 2))
    assert condition.shape == (64, pooling.width) == (64, 8)
    assert torch.allclose(condition.mean(0), torch.zeros(8), atol=1e-5)
    assert torch.allclose(condition.var(0, correction=0), torch.ones(8), atol=1e-2)


def test_noise_levels_follow_a_normal_distribution() -> None:
    latents, _ = world(2)
    many = latents[:1].expand(20_000, -1, -1, -1, -1)
    plain = objective(Oracle())
    narrow = DiffusionObjective(plain.backbone, plain.pooling, plain.denoiser, plain.schedule, log_snr=(-1.0, 1.5))
    drawn = narrow.schedule.snr(narrow.draw(many, torch.Generator().manual_seed(0)).t).log()
    assert drawn.mean().item() == pytest.approx(-1.0, abs=0.05)
    assert drawn.std().item() == pytest.approx(1.5, abs=0.05)


class Scaled(Oracle):
    """An oracle with a weight to learn."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.9))

    def forward(self, x: Tensor, t: Tensor, condition: Tensor, drop: Tensor) -> Tensor:
        return self.weight * super().forward(x, t, condition, drop)


def test_a_wrong_condition_is_contrasted_with_the_right_one() -> None:
    """Value by hand; of the wrong error the conditions learn, and the denoiser does not."""
    latents, clips = world()
    plain, both = objective(Scaled(), drop=0.3), objective(Scaled(), drop=0.3)
    both.contrast = 2.0
    noised = plain.draw(latents, torch.Generator().manual_seed(3))
    assert 0 < noised.drop.sum() < len(latents)
    condition = MeanFrame()(clips).mean(2).requires_grad_()
    none = torch.zeros_like(noised.drop)
    right = plain.per_sample(latents, condition, noised, noised.drop)
    wrong = plain.per_sample(latents, condition.roll(1, 0), noised, none)
    kept = ~noised.drop
    by_hand = (0.05 * torch.log1p(torch.exp(-(wrong - right) / right / 0.05)))[kept].mean()
    assert (both(latents, clips, noised) - right.mean()).item() == pytest.approx(2.0 * by_hand.item(), rel=1e-4)
    term = plain.wrong_condition(latents, condition, noised, right.detach())
    to_denoiser, to_condition = torch.autograd.grad(term, (plain.denoiser.weight, condition), allow_unused=True)
    assert to_denoiser is None
    assert to_condition.abs().sum() > 0
