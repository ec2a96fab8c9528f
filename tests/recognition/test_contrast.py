"""The contrastive loss against brute force and closed forms, and the modules around it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from gaitdiff.diffusion.objective import ConditionPooling, DiffusionObjective
from gaitdiff.diffusion.schedule import make_schedule
from gaitdiff.errors import UserError
from gaitdiff.recognition.contrast import (
    ContrastiveHead,
    ContrastiveObjective,
    JointObjective,
    PartProjector,
    info_nce,
)

OWNERS = ([0, 1, 2, 3], [5, 1, 1, 2], [7, 7, 7, 7], [3, 3, 4, 4])


def features(count: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, count, 5, 3, generator=generator, dtype=torch.float64)
    return first.requires_grad_(), second.requires_grad_()


def by_loops(first: Tensor, second: Tensor, owner: list[int], temperature: float) -> float:
    """Every anchor, part by part, against the candidates that the definition names."""
    clips = [(i, which) for which in (0, 1) for i in range(len(owner))]
    terms = []
    for part in range(first.shape[2]):
        vectors = {(i, which): (first, second)[which][i, :, part].detach().tolist() for i, which in clips}

        def similar(a: list[float], b: list[float]) -> float:
            dot = sum(x * y for x, y in zip(a, b, strict=True))
            return dot / math.hypot(*a) / math.hypot(*b) / temperature

        for i, which in clips:
            positive = similar(vectors[i, which], vectors[i, 1 - which])
            negatives = [similar(vectors[i, which], vectors[j, k]) for j, k in clips if owner[j] != owner[i]]
            terms.append(math.log(sum(map(math.exp, [positive, *negatives]))) - positive)
    return sum(terms) / len(terms)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
@pytest.mark.parametrize("owner", OWNERS)
def test_info_nce_equals_brute_force(owner: list[int], temperature: float) -> None:
    first, second = features()
    loss = info_nce(first, second, torch.tensor(owner), temperature)
    assert loss.item() == pytest.approx(by_loops(first, second, owner, temperature), abs=1e-10)
    assert info_nce(second, first, torch.tensor(owner), temperature).item() == pytest.approx(loss.item(), abs=1e-12)
    assert torch.autograd.gradcheck(lambda a, b: info_nce(a, b, torch.tensor(owner), temperature), (first, second))


@pytest.mark.parametrize("count", [2, 5, 64])
def test_features_that_tell_nothing_give_the_logarithm_of_the_candidates(count: int) -> None:
    same, owner = torch.ones(count, 5, 3), torch.arange(count)
    assert info_nce(same, same, owner).item() == pytest.approx(math.log(2 * count - 1), rel=1e-5)
    apart = torch.eye(count)[:, :, None].expand(-1, -1, 3)
    assert info_nce(apart, 2 * apart, owner).item() < 1e-3 * count
    assert info_nce(same, same, torch.zeros(count)).item() == 0.0  # one sequence: there are no others


def test_in_half_precision_the_loss_is_sharp() -> None:
    first, second = (value.detach().float() for value in features())
    want = info_nce(first, second, torch.arange(4))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(info_nce(first, second, torch.arange(4)), want)


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(UserError, match=r"\(B, C, P\) and owners"):
        info_nce(torch.ones(4, 5, 3), torch.ones(4, 5, 2), torch.arange(4))
    with pytest.raises(UserError, match=r"\(B, C, P\) and owners"):
        info_nce(torch.ones(4, 5, 3), torch.ones(4, 5, 3), torch.arange(3))


def test_a_projector_is_a_perceptron_for_each_part() -> None:
    torch.manual_seed(0)
    projector, feature = PartProjector(parts=3, channels=5, hidden=7), torch.randn(64, 5, 3)
    out = projector(feature)
    for part in range(3):
        hidden = feature[:, :, part] @ projector.hidden.weight[part]
        hidden = nn.functional.batch_norm(hidden, None, None, training=True).relu()
        want = nn.functional.batch_norm(hidden @ projector.out.weight[part], None, None, training=True)
        torch.testing.assert_close(out[:, :, part], want, atol=1e-5, rtol=1e-4)


class Pixels(nn.Module):
    """A backbone of one weight: the mean frame's first six pixels as three channels of two parts."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))

    def forward(self, clip: Tensor) -> Tensor:
        return self.weight * (clip.mean(1).flatten(1)[:, :6].unflatten(1, (3, 2)) - 0.5)


class Repeats(nn.Module):
    """A denoiser that gives its condition everywhere."""

    def forward(self, x: Tensor, t: Tensor, condition: Tensor, drop: Tensor) -> Tensor:
        return condition.mean(1)[:, None, None, None, None].expand_as(x)


def test_objectives_are_what_their_parts_say() -> None:
    torch.manual_seed(0)
    backbone, owner = Pixels(), torch.tensor([4, 5, 4, 6])
    first, second, latents = torch.rand(4, 2, 64, 44), torch.rand(4, 2, 64, 44), torch.randn(4, 4, 2, 8, 8)
    head = ContrastiveHead(nn.Identity(), temperature=0.2)
    contrast = ContrastiveObjective(backbone, head)(first, second, owner)
    assert torch.equal(contrast, info_nce(backbone(first), backbone(second), owner, 0.2))
    pooling = ConditionPooling("mean", 3, 2, normalize=False)
    diffusion = DiffusionObjective(backbone, pooling, Repeats(), make_schedule("inverted-cosine"))
    noised = diffusion.draw(latents, torch.Generator().manual_seed(0))
    joint = JointObjective(diffusion, head, weight=0.5)
    assert joint.backbone is backbone
    loss = joint(latents, first, noised, second, owner)
    assert loss.item() == pytest.approx((diffusion(latents, first, noised) + 0.5 * contrast).item(), rel=1e-6)
