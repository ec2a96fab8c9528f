"""What stage 1 learns from, by the setting ``objective``: a denoiser that is guided, two clips to be matched, or both.

Each is a module whose forward is the loss, what it takes of a batch, and what is worth watching of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from gaitdiff.config.schema import ContrastiveConfig, DiffusionConfig, PretrainConfig
from gaitdiff.data.augment import Prepared, augment, prepare
from gaitdiff.data.batches import PretrainBatch
from gaitdiff.data.clips import crop_sides
from gaitdiff.data.transfer import send
from gaitdiff.diffusion.autoencoder import Autoencoder, load_autoencoder
from gaitdiff.diffusion.denoiser import Denoiser
from gaitdiff.diffusion.objective import ConditionPooling, DiffusionObjective, Noised, pair_distances
from gaitdiff.diffusion.schedule import NoiseSchedule, make_schedule
from gaitdiff.diffusion.start import (
    SCHEDULE_OF_STARTS,
    freeze,
    list_starts,
    shipped_start,
    start_from,
    without_condition,
)
from gaitdiff.errors import UserError
from gaitdiff.models import Backbone
from gaitdiff.recognition.contrast import ContrastiveHead, ContrastiveObjective, JointObjective, PartProjector
from gaitdiff.training.checkpoint_files import latest_checkpoint, list_checkpoints, read_tensors, tensor_file
from gaitdiff.training.graph import Inputs
from gaitdiff.training.loggers import side_by_side
from gaitdiff.training.run_folder import read_config
from gaitdiff.utils.modes import evaluating
from gaitdiff.utils.precision import has_fast_bfloat16
from gaitdiff.utils.shares import gathered, share

#: A step whose batch no run comes to.
UNTRAINED = 10**9
#: Logarithms of the signal-to-noise ratios at which the condition gap is measured.
GAP_LEVELS = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0)
_NOISE = 10  # the stream of random numbers that noise and noise levels come from


class Pretext(Protocol):
    """What stage 1 learns from."""

    @property
    def module(self) -> nn.Module:
        """All that is trained, a module with a ``backbone``; its forward makes the loss."""

    def parts(self) -> dict[str, nn.Module]:
        """What a checkpoint holds, by file: the backbone first."""

    def networks(self) -> list[nn.Module]:
        """What takes a step's time: modules worth compiling."""

    def inputs(self, batch: PretrainBatch, step: int, rank: int) -> Inputs:
        """What the module's forward takes of a batch, on the device."""

    def diagnostics(self, batch: PretrainBatch, inputs: Inputs) -> dict[str, float]:
        """What is worth watching of a batch that was trained on, in evaluation mode; ``inputs`` are those it had."""

    def distances(self, batch: PretrainBatch, backbone: nn.Module) -> dict[str, float]:
        """Mean distances ``ap`` of two clips of one sequence and ``an`` of clips of two, by a backbone's features."""

    def measure(self, batch: PretrainBatch) -> dict[str, Any]:
        """What else is measured of a batch that is not trained on."""

    def pictures(self, batch: PretrainBatch) -> dict[str, np.ndarray]:
        """What the first sequence of a batch looks like, (H, W) uint8, by name."""


def make_pretext(config: PretrainConfig, backbone: Backbone, device: torch.device) -> Pretext:
    """What a run learns from, its weights drawn from torch's generator; a run that has begun needs no start.

    Raises:
        UserError: there is no autoencoder or no denoiser of this name.
    """
    if config.objective == "contrastive":
        return ContrastivePretext(config, backbone, device)
    diffusion = DiffusionPretext(config, backbone, device)
    return diffusion if config.objective == "diffusion" else JointPretext(config, backbone, device, diffusion)


def clip_frames(config: PretrainConfig) -> list[tuple[str, int]]:
    """Settings of the frames that a step takes of each sequence, and how many there are of each kind."""
    data = config.data
    latent, gait = ("latent_frames", data.latent_frames), ("gait_frames", data.gait_frames)
    return {"diffusion": [latent, gait], "contrastive": [gait, gait], "both": [latent, gait, gait]}[config.objective]


class Clips:
    """What is trained on of batches, on the device.

    Called with a batch and names it gives these: "latent", clips (B, T, 64, 64); "gait" and "second", clips
    (B, T', 64, 44), all augmented and in [0, 1]; "owner", (B,) which sequence each sample is of.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(self, batch: PretrainBatch, *names: str) -> list[Tensor]:
        """Those of a batch, by their names."""
        there = send(tuple(_arrays(batch, name) for name in names), self.device)
        return [_made(name, *arrays) for name, arrays in zip(names, there, strict=True)]


def _arrays(batch: PretrainBatch, name: str) -> tuple[Any, ...]:
    """What ``_made`` takes, on the host."""
    if name == "owner":
        return (batch.sequence,)
    clips = getattr(batch, name)
    return clips, prepare(getattr(batch, f"{name}_plan"), *clips.shape[2:])


def _made(name: str, values: Tensor, plan: Prepared | None = None) -> Tensor:
    if plan is None:
        return values.clone()  # small, where it was sent with all the clips
    clips = augment(values.float().div_(255), plan)
    return clips if name == "latent" else crop_sides(clips)


class DiffusionPretext:
    """Guide a denoiser; see ``DiffusionObjective``."""

    def __init__(self, config: PretrainConfig, backbone: Backbone, device: torch.device) -> None:
        self.seed, self.same_clip, self.clips = config.seed, config.data.same_clip, Clips(device)
        self.batch = config.optim.batch
        self.module = build_objective(backbone, config.diffusion)
        self.module.spares = not config.machine.compile  # what is compiled is compiled for batches of one size
        if config.diffusion.start and not list_checkpoints(Path(config.out)):
            _start(self.module.denoiser, config.diffusion.start, config.diffusion.schedule)
        if config.diffusion.freeze_start:
            if not config.diffusion.start:
                raise UserError("diffusion.freeze_start needs a denoiser that has learned: name one by diffusion.start")
            freeze(self.module.denoiser)
        self.autoencoder: Autoencoder = load_autoencoder(config.diffusion.autoencoder, device)
        chosen = {"float32": False, "bfloat16": True}
        self.autoencoder.in_half = chosen.get(config.machine.precision, has_fast_bfloat16(device.type))

    def parts(self) -> dict[str, nn.Module]:
        """Backbone, denoiser, and the condition's running statistics."""
        return {stem: getattr(self.module, stem) for stem in ("backbone", "denoiser", "pooling")}

    def networks(self) -> list[nn.Module]:
        """Backbone, denoiser, and the frozen encoder."""
        encoder = getattr(self.autoencoder.codec, "encoder", None)
        return [self.module.backbone, self.module.denoiser, *([encoder] if encoder is not None else [])]

    def inputs(self, batch: PretrainBatch, step: int, rank: int) -> tuple[Tensor, Tensor, Noised]:
        """Latents (B, 4, T, 8, 8) of the latent clips, gait clips (B, T', 64, 44), and the noise of this step."""
        latent, gait = self._both(batch)
        return self.made_of(latent, gait, step, rank)

    def made_of(self, latent: Tensor, gait: Tensor, step: int, rank: int) -> tuple[Tensor, Tensor, Noised]:
        """The same of clips (B, T, 64, 64) and (B, T', 64, 44)."""
        # On an accelerator, looking at values would make every step wait for it.
        latents = self.autoencoder.encode(latent, check_values=latent.device.type == "cpu")
        return latents, gait, self._noised(latents, step, rank)

    def diagnostics(self, batch: PretrainBatch, inputs: Inputs) -> dict[str, float]:
        """The condition gap, and the distances of anchor-positive and anchor-negative pairs."""
        latents, gait, noised, *_ = inputs
        latent, owner = self.clips(batch, "latent", "owner")
        values = self.module.condition_gap(latents, gait, noised, owner)
        return values | _distances(self.module.backbone, gait, crop_sides(latent), owner)

    def distances(self, batch: PretrainBatch, backbone: nn.Module) -> dict[str, float]:
        """Of gait clip and latent clip."""
        latent, gait = self._both(batch)
        return _distances(backbone, gait, crop_sides(latent), *self.clips(batch, "owner"))

    def measure(self, batch: PretrainBatch) -> dict[str, Any]:
        """The condition gap by noise level."""
        latents, gait, noised = self.inputs(batch, UNTRAINED, 0)
        (owner,) = self.clips(batch, "owner")
        return {"gap_by_noise": self.module.gap_by_noise(latents, gait, noised.noise, owner, GAP_LEVELS)}

    def pictures(self, batch: PretrainBatch) -> dict[str, np.ndarray]:
        """The first clip as the autoencoder gets it, and what it decodes of it."""
        clip = self.clips(batch, "latent")[0][:1]
        decoded = self.autoencoder.decode(self.autoencoder.encode(clip))
        return {"clip": side_by_side(clip[0]), "decoded": side_by_side(decoded[0])}

    def _both(self, batch: PretrainBatch) -> list[Tensor]:
        """Latent clip and gait clip."""
        if self.same_clip:
            (latent,) = self.clips(batch, "latent")
            return [latent, crop_sides(latent)]
        return self.clips(batch, "latent", "gait")

    def _noised(self, latents: Tensor, step: int, rank: int) -> Noised:
        seed = np.random.SeedSequence([self.seed, step, 0, _NOISE]).generate_state(1, np.uint64)[0]
        generator = torch.Generator(latents.device).manual_seed(int(seed >> np.uint64(1)))
        whole = latents[:1].expand(self.batch, *latents.shape[1:])  # as many as the whole batch has: their shape counts
        shares = self.batch // len(latents)
        return Noised(*(part[share(len(part), rank, shares)] for part in self.module.draw(whole, generator)))


class ContrastivePretext:
    """Tell sequences apart by two clips of each; see ``ContrastiveObjective``."""

    def __init__(self, config: PretrainConfig, backbone: Backbone, device: torch.device) -> None:
        self.clips = Clips(device)
        self.module = ContrastiveObjective(backbone, _head(config.contrastive, backbone))

    def parts(self) -> dict[str, nn.Module]:
        """The backbone, and the projector if there is one."""
        return {"backbone": self.module.backbone, **_projector(self.module.head)}

    def networks(self) -> list[nn.Module]:
        """The backbone."""
        return [self.module.backbone]

    def inputs(self, batch: PretrainBatch, step: int, rank: int) -> tuple[Tensor, Tensor, Tensor]:
        """Both clips (B, T', 64, 44) of each sequence, and which sequence it is."""
        gait, second, owner = self.clips(batch, "gait", "second", "owner")
        return gait, second, owner

    def diagnostics(self, batch: PretrainBatch, inputs: Inputs) -> dict[str, float]:
        """Distances of anchor-positive and anchor-negative pairs."""
        return _distances(self.module.backbone, *inputs)

    def distances(self, batch: PretrainBatch, backbone: nn.Module) -> dict[str, float]:
        """Of both gait clips."""
        return _distances(backbone, *self.clips(batch, "gait", "second", "owner"))

    def measure(self, batch: PretrainBatch) -> dict[str, Any]:
        """Nothing."""
        return {}

    def pictures(self, batch: PretrainBatch) -> dict[str, np.ndarray]:
        """Both clips of the first sequence."""
        clips = dict(zip(("clip", "second"), self.clips(batch, "gait", "second"), strict=True))
        return {name: side_by_side(clip[0]) for name, clip in clips.items()}


class JointPretext:
    """Both on one backbone; see ``JointObjective``."""

    def __init__(
        self, config: PretrainConfig, backbone: Backbone, device: torch.device, diffusion: DiffusionPretext
    ) -> None:
        self.diffusion, self.clips = diffusion, Clips(device)
        head = _head(config.contrastive, backbone)
        self.module = JointObjective(diffusion.module, head, config.contrastive.weight)

    def parts(self) -> dict[str, nn.Module]:
        """What diffusion holds, and the projector if there is one."""
        return {**self.diffusion.parts(), **_projector(self.module.head)}

    def networks(self) -> list[nn.Module]:
        """Those of diffusion."""
        return self.diffusion.networks()

    def inputs(self, batch: PretrainBatch, step: int, rank: int) -> tuple[Tensor, Tensor, Noised, Tensor, Tensor]:
        """What diffusion takes, second clips (B, T', 64, 44), and which sequence each sample is of."""
        latent, gait, second, owner = self.clips(batch, "latent", "gait", "second", "owner")
        return *self.diffusion.made_of(latent, gait, step, rank), second, owner

    def diagnostics(self, batch: PretrainBatch, inputs: Inputs) -> dict[str, float]:
        """What diffusion watches, and the contrastive part of the loss."""
        values = self.diffusion.diagnostics(batch, inputs)
        _, gait, _, second, owner = inputs
        with evaluating(self.module), torch.no_grad():
            loss = self.module.head(self.module.backbone(torch.cat([gait, second])), owner)
        return {**values, "contrastive_loss": float(loss)}

    def distances(self, batch: PretrainBatch, backbone: nn.Module) -> dict[str, float]:
        """As diffusion has them."""
        return self.diffusion.distances(batch, backbone)

    def measure(self, batch: PretrainBatch) -> dict[str, Any]:
        """What diffusion measures."""
        return self.diffusion.measure(batch)

    def pictures(self, batch: PretrainBatch) -> dict[str, np.ndarray]:
        """What diffusion shows, and the second clip."""
        return {**self.diffusion.pictures(batch), "second": side_by_side(self.clips(batch, "second")[0][0])}


def _distances(backbone: nn.Module, first: Tensor, second: Tensor, owner: Tensor) -> dict[str, float]:
    was_training = backbone.training
    backbone.eval()
    with torch.no_grad():
        values = pair_distances(gathered(backbone(first)), gathered(backbone(second)), gathered(owner))
    backbone.train(was_training)
    return values


def _head(contrastive: ContrastiveConfig, backbone: Backbone) -> ContrastiveHead:
    """A contrastive head made for a backbone."""
    hidden = contrastive.projector
    projector = PartProjector(backbone.parts, backbone.channels, hidden) if hidden else nn.Identity()
    return ContrastiveHead(projector, contrastive.temperature)


def _projector(head: ContrastiveHead) -> dict[str, nn.Module]:
    return {} if isinstance(head.projector, nn.Identity) else {"projector": head.projector}


def build_objective(backbone: Backbone, diffusion: DiffusionConfig) -> DiffusionObjective:
    """A backbone with a pooling and a denoiser made for it."""
    pooling = ConditionPooling(
        diffusion.pooling, backbone.channels, backbone.parts, diffusion.normalize_condition, diffusion.projector
    )
    return DiffusionObjective(
        backbone,
        pooling,
        Denoiser.preset(diffusion.denoiser, pooling.width),
        make_schedule(diffusion.schedule),
        diffusion.weighting,
        diffusion.gamma,
        diffusion.p_uncond,
        diffusion.frames_apart,
        diffusion.log_snr,
        diffusion.contrast,
        _counting(diffusion),
    )


def _counting(diffusion: DiffusionConfig) -> NoiseSchedule | None:
    """The schedule of a denoiser that ships, where the run has another one."""
    learned = _learned(diffusion.start, diffusion.schedule)
    return make_schedule(learned) if learned != diffusion.schedule else None


def _learned(start: str, schedule: str) -> str:
    """The schedule by which the denoiser of a run counts, by two of its settings alone."""
    return SCHEDULE_OF_STARTS if start in list_starts() else schedule


def _start(denoiser: nn.Module, source: str, schedule: str) -> None:
    """Let a denoiser start from one that ships, whatever folder has its name, or from a run's of the same schedule."""
    if source in list_starts():
        return start_from(denoiser, shipped_start(source), source)
    checkpoint = latest_checkpoint(Path(source))
    if not tensor_file(checkpoint, "denoiser").is_file():
        raise UserError(f"diffusion.start is {source}, which holds no denoiser: give a run of pretraining")
    # The run of "best", or of a numbered checkpoint; of one that was copied away, nobody knows it.
    runs = [run for run in checkpoint.parents[:2] if (run / "config.yaml").is_file()]
    settings = read_config(runs[0])["diffusion"] if runs else {"start": "", "schedule": schedule}
    before = _learned(settings.get("start", ""), settings["schedule"])
    if before != schedule:
        raise UserError(
            f"diffusion.start is {source}, whose denoiser has learned the schedule {before}, not {schedule}: give one "
            "that has learned the same"
        )
    start_from(denoiser, without_condition(read_tensors(checkpoint, "denoiser")), source)
