"""The pretraining objective: predict the noise in a latent clip, guided by the gait feature of another clip.

Source: the paper, eq. 4: L = ‖ε − D(E(s_e)', t, G(s_g)_pooled)‖², weighted by the noise level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from gaitdiff.diffusion.schedule import NoiseSchedule
from gaitdiff.diffusion.weighting import loss_weight
from gaitdiff.errors import UserError, nearest
from gaitdiff.utils.modes import evaluating
from gaitdiff.utils.shares import gathered, own, processes

#: How a gait feature (B, C, P) becomes a condition: the paper's three, and all parts side by side.
POOLINGS = ("mean", "max", "mean+max", "all-parts")

_CONTRAST_SCALE = 0.05  # τ, of the size that a gap has


class ConditionPooling(nn.Module):
    """Gait feature (B, C, P) → condition (B, ``width``).

    ``"mean"`` (the paper's choice), ``"max"`` and ``"mean+max"`` (their sum) over the parts give C numbers;
    ``"all-parts"`` gives C·P. With ``normalize``, each number is batch-normalised (no learned scale): raw features of
    a network fresh from its initialisation are nearly parallel, and a denoiser hears little of their differences.

    With ``projector``, a perceptron with one hidden layer of so many units, both its layers batch-normalised, follows.
    The features before it are what is scored and transferred: it may keep what the denoiser needs and let go of the
    rest, so that they need not (Chen et al. 2020, "A Simple Framework for Contrastive Learning", section 4.2).
    """

    def __init__(self, pooling: str, channels: int, parts: int, normalize: bool, projector: int = 0) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise UserError(
                f"there is no pooling {pooling!r}{nearest(pooling, POOLINGS)}; known: {', '.join(POOLINGS)}"
            )
        self.pooling = pooling
        self.width = channels * parts if pooling == "all-parts" else channels
        self.norm = nn.BatchNorm1d(self.width, affine=False) if normalize else nn.Identity()
        self.projector = nn.Identity() if projector == 0 else _perceptron(self.width, projector)

    def forward(self, feature: Tensor) -> Tensor:
        """(B, C, P) → (B, width)."""
        if self.pooling == "all-parts":
            pooled = feature.flatten(1)
        elif self.pooling == "max":
            pooled = feature.amax(2)
        elif self.pooling == "mean+max":
            pooled = feature.mean(2) + feature.amax(2)
        else:
            pooled = feature.mean(2)
        return self.projector(self.norm(pooled))


def _perceptron(width: int, hidden: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(width, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, width),
        nn.BatchNorm1d(width, affine=False),
    )


class Noised(NamedTuple):
    """What one training step adds to its latents, drawn outside so that a step can be repeated exactly.

    B is the number of latent clips that are noised; with ``frames_apart`` each frame is one.

    Attributes:
        t: (B,) int64 noise levels in 1..T.
        noise: ε, of the latents' shape.
        drop: (B,) bool, whose condition is replaced by the learned null.
    """

    t: Tensor
    noise: Tensor
    drop: Tensor


class DiffusionObjective(nn.Module):
    """Backbone, condition pooling and denoiser as one module whose forward is the loss.

    Args:
        backbone: any module from gait clips (B, T, 64, 44) to features (B, C, P).
        pooling: from features to conditions.
        denoiser: ``denoiser(x, t, condition, drop)`` → noise of x's shape.
        schedule, weighting, gamma: noise levels and how their losses are weighed.
        p_uncond: share of samples trained without a condition.
        frames_apart: denoise each frame of a latent clip by itself, at a noise level of its own. Then nothing but the
            condition tells a frame what its neighbours would, and a step sees T times as many noise levels.
        log_snr: mean and standard deviation of the normal distribution that the logarithm of the signal-to-noise ratio
            is drawn from; None draws each of the schedule's levels alike.
        contrast: weight of a second term, ``wrong_condition``; 0 leaves it out.
        counting: the schedule by whose levels the denoiser counts, where it learned another one before; it is told the
            level there that has the same signal-to-noise ratio.

    Attributes:
        spares: whether on a CPU the backbone is spared the gait clips whose condition is dropped, which nobody hears.
            Loss and gradients are the same; batches come in different sizes, for which an accelerator would have to be
            waited for. Without effect where a clip's condition depends on the others' (BatchNorm) or is needed all the
            same.
    """

    def __init__(
        self,
        backbone: nn.Module,
        pooling: ConditionPooling,
        denoiser: nn.Module,
        schedule: NoiseSchedule,
        weighting: str = "mnp",
        gamma: float = 5.0,
        p_uncond: float = 0.15,
        frames_apart: bool = False,
        log_snr: tuple[float, float] | None = None,
        contrast: float = 0.0,
        counting: NoiseSchedule | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.pooling, self.denoiser, self.schedule = backbone, pooling, denoiser, schedule
        loss_weight(weighting, torch.ones(1), gamma)  # an unknown name is refused here, not after an hour of loading
        self.counting = counting
        self.weighting, self.gamma, self.p_uncond = weighting, gamma, p_uncond
        self.frames_apart, self.log_snr, self.contrast = frames_apart, log_snr, contrast
        self.spares = False

    def apart(self, latents: Tensor) -> Tensor:
        """Latent clips as they are denoised: (B, 4, T, h, w), or with ``frames_apart`` (B·T, 4, 1, h, w)."""
        return latents.transpose(1, 2).flatten(0, 1).unsqueeze(2) if self.frames_apart else latents

    def draw(self, latents: Tensor, generator: torch.Generator) -> Noised:
        """Draw noise levels, noise and dropped conditions for latents (B, 4, T, h, w)."""
        latents = self.apart(latents)
        count, device = len(latents), latents.device
        if self.log_snr is None:
            t = torch.randint(1, self.schedule.steps + 1, (count,), generator=generator, device=device)
        else:
            mean, deviation = self.log_snr
            t = self.schedule.levels(mean + deviation * torch.randn(count, generator=generator, device=device))
        noise = torch.randn(latents.shape, generator=generator, device=device, dtype=torch.float32)
        drop = torch.rand(count, generator=generator, device=device) < self.p_uncond
        return Noised(t, noise, drop)

    def forward(self, latents: Tensor, gait_clip: Tensor, noised: Noised) -> Tensor:
        """The weighted loss, a scalar.

        Args:
            latents: (B, 4, T, h, w) of the latent clips.
            gait_clip: (B, T', 64, 44) in [0, 1].
        """
        if not self.spares or gait_clip.device.type != "cpu" or self._needs_all():
            return self.loss(self.backbone(gait_clip), latents, noised)
        heard = (~noised.drop).nonzero().flatten()
        if len(heard) == 0:
            heard = heard.new_zeros(1)  # one at least: gradients of zero are not the same as none
        found = self.pooling(self.backbone(gait_clip[heard]))
        condition = found.new_zeros(len(gait_clip), found.shape[1]).index_copy(0, heard, found)
        return self._loss(condition, latents, noised)

    def loss(self, feature: Tensor, latents: Tensor, noised: Noised) -> Tensor:
        """The weighted loss where the gait clips' features (B, C, P) are known already, a scalar."""
        return self._loss(self.pooling(feature), latents, noised)

    def _needs_all(self) -> bool:
        """Whether clips are heard whose condition is dropped: in other samples, or through statistics of the batch."""
        parts = (self.backbone, self.pooling)
        norms = any(isinstance(module, _BatchNorm) for part in parts for module in part.modules())
        return norms or self.frames_apart or self.contrast != 0.0

    def _loss(self, condition: Tensor, latents: Tensor, noised: Noised) -> Tensor:
        right = self.per_sample(latents, condition, noised, noised.drop)
        if self.contrast == 0.0:
            return right.mean()
        return right.mean() + self.contrast * self.wrong_condition(latents, condition, noised, right)

    def wrong_condition(self, latents: Tensor, condition: Tensor, noised: Noised, right: Tensor) -> Tensor:
        """How far each latent clip is from being denoised worse with another sequence's condition, a scalar.

        The mean of τ·softplus(-gap/τ), where the gap is the difference of both errors as a share of the right one. The
        denoiser learns nothing from the wrong error: it stays one, and it is the conditions that come to differ. With
        the denoiser for a likelihood, this contrasts the walks as InfoNCE does (van den Oord et al. 2018).
        """
        frozen = {name: value.detach() for name, value in self.denoiser.named_parameters()}
        none = torch.zeros_like(noised.drop)
        wrong = self.per_sample(latents, _others(condition), noised, none, frozen)
        gap = (wrong - right) / right.detach().clamp(min=1e-6)
        each = _CONTRAST_SCALE * nn.functional.softplus(-gap / _CONTRAST_SCALE)
        kept = (~noised.drop).float()  # without a condition there is no right one
        return (each * kept).sum() * processes() / gathered(kept).sum().clamp(min=1)  # their mean is the whole's

    def per_sample(
        self,
        latents: Tensor,
        condition: Tensor,
        noised: Noised,
        drop: Tensor,
        parameters: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """Weighted squared error of the noise predicted for each latent clip, or each frame of them, (B,) or (B·T,).

        With ``parameters``, by name, the denoiser has these instead of its own.
        """
        latents = self.apart(latents)
        condition = condition.repeat_interleave(len(latents) // len(condition), 0)
        x_t = self.schedule.add_noise(latents, noised.noise, noised.t)
        inputs = (x_t, self.told(noised.t), condition, drop)
        predicted = self.denoiser(*inputs) if parameters is None else functional_call(self.denoiser, parameters, inputs)
        error = (predicted.float() - noised.noise).square().flatten(1).mean(1)
        return loss_weight(self.weighting, self.schedule.snr(noised.t), self.gamma) * error

    def told(self, t: Tensor) -> Tensor:
        """Levels t of the schedule, (B,) int64, as the denoiser counts them."""
        return t if self.counting is None else self.counting.levels(self.schedule.snr(t).log())

    def predict(self, noised: Tensor, t: Tensor, condition: Tensor, drop: Tensor | None = None) -> Tensor:
        """The noise in latent clips (B, 4, T, h, w) at levels (B,), with conditions (B, width): of the clips' shape.

        Args:
            drop: (B,) bool, whose condition is replaced by the learned null; nobody's by default.
        """
        each = self.apart(noised)
        times = len(each) // len(noised)
        levels, conditions = self.told(t).repeat_interleave(times), condition.repeat_interleave(times, 0)
        dropped = torch.zeros_like(t, dtype=torch.bool) if drop is None else drop
        found = self.denoiser(each, levels, conditions, dropped.repeat_interleave(times)).float()
        return found.squeeze(2).unflatten(0, (len(noised), -1)).transpose(1, 2) if self.frames_apart else found

    @torch.no_grad()
    def condition_gap(self, latents: Tensor, gait_clip: Tensor, noised: Noised, owner: Tensor) -> dict[str, float]:
        """How much the denoiser gains from the right condition: the method's pulse.

        The loss with another sequence's condition, and with the dropped one, each minus the loss with the right one,
        for the same noise and noise levels, in evaluation mode.

        Args:
            owner: (B,) which sequence each sample comes from; a sample is only compared with another sequence's.

        Returns:
            ``gap_shuffled``, ``gap_dropped`` and ``gap_loss`` (the loss with the right condition).
        """
        with evaluating(self):
            condition = self.pooling(self.backbone(gait_clip))
            none, every = torch.zeros_like(noised.drop), torch.ones_like(noised.drop)
            right = gathered(self.per_sample(latents, condition, noised, none))
            other = gathered(self.per_sample(latents, _others(condition), noised, none))
            without = gathered(self.per_sample(latents, condition, noised, every))
        owner = gathered(owner)
        different = (owner != owner.roll(1, 0)).float().repeat_interleave(len(right) // len(owner))
        shuffled = ((other - right) * different).sum() / different.sum().clamp(min=1)
        return {
            "gap_shuffled": float(shuffled),
            "gap_dropped": float((without - right).mean()),
            "gap_loss": float(right.mean()),
        }

    @torch.no_grad()
    def gap_by_noise(
        self, latents: Tensor, gait_clip: Tensor, noise: Tensor, owner: Tensor, log_snrs: Sequence[float]
    ) -> dict[str, list[float]]:
        """The condition gap at some noise levels: there the denoiser listens, and there it does not.

        At each level the same noise, with the right condition and with another sequence's, in evaluation mode.

        Args:
            noise: as ``draw`` gives it.
            owner: (B,) which sequence each sample comes from.
            log_snrs: logarithms of the signal-to-noise ratios; the schedule's nearest levels are taken.

        Returns:
            ``log_snr`` of these levels; ``gap`` and ``error``, the gap and its standard error in percent of the loss at
            that level, NaN where there are no sequences to tell.
        """
        with evaluating(self):
            return self._gap_by_noise(latents, gait_clip, noise, owner, log_snrs)

    def _gap_by_noise(
        self, latents: Tensor, gait_clip: Tensor, noise: Tensor, owner: Tensor, log_snrs: Sequence[float]
    ) -> dict[str, list[float]]:
        condition = self.pooling(self.backbone(gait_clip))
        different = owner != owner.roll(1, 0)
        none = torch.zeros(len(noise), dtype=torch.bool, device=latents.device)
        found: dict[str, list[float]] = {"log_snr": [], "gap": [], "error": []}
        for level in self.schedule.levels(torch.tensor(log_snrs, device=latents.device)).unique_consecutive().tolist():
            noised = Noised(torch.full_like(none, level, dtype=torch.long), noise, none)
            right = self.per_sample(latents, condition, noised, none)
            wrong = self.per_sample(latents, condition.roll(1, 0), noised, none)
            gap = (wrong - right).unflatten(0, (len(owner), -1)).mean(1)[different]  # one number a sequence
            share = 100.0 / float(right.mean())
            found["log_snr"].append(round(float(self.schedule.snr(noised.t)[0].log()), 2))
            found["gap"].append(share * float(gap.mean()))
            found["error"].append(share * float(gap.std()) / len(gap) ** 0.5 if len(gap) > 1 else math.nan)
        return found


def _others(condition: Tensor) -> Tensor:
    """The condition (B, width) of another sample of the whole batch for each sample, the one before it."""
    return own(gathered(condition).roll(1, 0))


@torch.no_grad()
def pair_distances(first: Tensor, second: Tensor, owner: Tensor) -> dict[str, float]:
    """Mean cosine distance of anchor-positive and anchor-negative pairs (the paper's Fig. 3).

    Args:
        first, second: (B, C, P) features of the two clips of each sequence.
        owner: (B,) which sequence each sample comes from.

    Returns:
        ``ap``: between the two clips of one sequence; ``an``: between clips of different sequences; each the mean
        over parts of the cosine distance, as in evaluation.
    """
    a = nn.functional.normalize(first.float(), dim=1)
    b = nn.functional.normalize(second.float(), dim=1)
    distance = 1.0 - torch.einsum("icp,jcp->ij", a, b) / first.shape[2]
    different = owner[:, None] != owner[None, :]
    negative = distance[different].mean() if bool(different.any()) else distance.new_tensor(float("nan"))
    return {"ap": float(distance.diagonal().mean()), "an": float(negative)}
