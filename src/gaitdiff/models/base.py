"""What every gait model is: a backbone, a head, and the three things they give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import register_pytree_node

from gaitdiff.errors import UserError
from gaitdiff.utils.frames import HEIGHTS, cut_width
from gaitdiff.utils.ranges import check_range

#: How a model wants its training clips drawn, see ``gaitdiff.data.clips``.
Sampling = Literal["unordered", "ordered", "consecutive"]


@dataclass(eq=False)
class GaitOutput:
    """What a gait model gives for a batch. Torch sees its tensors, in DistributedDataParallel or torch.export.

    Attributes:
        feature: (B, C, P), after temporal and horizontal pooling, before the head.
        logits: (B, K, P), or None for a model without classes.
    """

    feature: Tensor
    _embedding: Tensor | None
    logits: Tensor | None = None

    @property
    def embedding(self) -> Tensor:
        """(B, C', P), what is compared at test time.

        Raises:
            UserError: the model has no trained head, as after pretraining.
        """
        if self._embedding is None:
            raise UserError(
                "this model has no trained head, so it gives no embedding: take .feature, which pretraining has "
                "learned, or finetune it first"
            )
        return self._embedding

    def __repr__(self) -> str:
        shapes = {"feature": self.feature, "embedding": self._embedding, "logits": self.logits}
        return f"GaitOutput({', '.join(f'{k}={v if v is None else tuple(v.shape)}' for k, v in shapes.items())})"


register_pytree_node(  # for torch.export, and whatever else takes outputs apart
    GaitOutput,
    lambda output: ([output.feature, output._embedding, output.logits], None),
    lambda tensors, _: GaitOutput(*tensors),
    serialized_type_name="gaitdiff.GaitOutput",
)


class Backbone(nn.Module):
    """Silhouette clips to gait features; stage 1 (diffusion pretraining) trains this part alone.

    Attributes:
        channels: C of the feature.
        parts: P of the feature.
        sampling: how training clips are drawn for it.
        packs: sequences of unequal lengths may share a batch, packed. False for models with convolutions over time:
            batch equal lengths there.
        height: of the frames it was trained on, in pixels; None where that is not known.
    """

    channels: int
    parts: int
    sampling: Sampling
    packs: bool = True
    height: int | None = None

    def forward(self, clip: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """(B, T, 64, 44) in [0, 1], or packed (1, ΣT, 64, 44) with ``lengths`` → (B, C, P)."""
        raise NotImplementedError

    def blocks(self) -> list[list[nn.Parameter]]:
        """Parameters by depth, the input's first: each convolution or linear layer with what follows until the next."""
        found: list[list[nn.Parameter]] = []
        for module in self.modules():
            own = list(module.parameters(recurse=False))
            if not found or any(parameter.ndim > 1 for parameter in own):
                found.append([])
            found[-1] += own
        return [block for block in found if block]


class Head(nn.Module):
    """Gait features to embeddings and logits.

    Attributes:
        num_classes: K of the logits; 0 where there are none, also for models that never classify.
        cross_entropy: weight of the cross-entropy that the paper fine-tunes it with.
    """

    num_classes: int
    cross_entropy: float = 0.0

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, C, P) → embedding (B, C', P), logits (B, K, P) or None."""
        raise NotImplementedError

    def neck_feature(self, embedding: Tensor) -> Tensor | None:
        """Embedding (B, C', P) → what the BN neck makes of it, of the same shape; None for heads without one."""
        return None


class NoHead(Head):
    """In place of the head of a model that has only been pretrained."""

    num_classes = 0


class GaitModel(nn.Module):
    """A backbone and a head: ``model(clip, lengths) → GaitOutput``.

    Attributes:
        name: what ``create_model`` calls it.
        config: its settings, the dataclass of its presets.
        height: of the frames it was trained on, in pixels, the backbone's; None where that is not known.
        metric: the distance that it was trained with, by which its features are compared; the paper's for a new one.
        fresh_head: some of the head's weights as it was made with them; None where it was loaded.
    """

    def __init__(self, name: str, config: Any, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.name, self.config = name, config
        self.backbone = backbone
        self.head = head
        self.metric = "cosine"
        self.fresh_head = _first_weights(head)

    @property
    def headed(self) -> bool:
        """Whether it has a head whose weights are no longer those that it was made with."""
        weights = _first_weights(self.head)
        fresh = self.fresh_head
        if weights is None or fresh is None:
            return weights is not None
        kinds = (fresh, fresh.half(), fresh.bfloat16())  # that it may have been rounded to, and back
        return not any(weights.equal(some.to(weights.dtype)) for some in kinds)

    @property
    def height(self) -> int | None:
        """Of the frames that the backbone was trained on."""
        return self.backbone.height

    @height.setter
    def height(self, pixels: int | None) -> None:
        self.backbone.height = pixels

    def forward(self, clip: Tensor, lengths: Sequence[int] | Tensor | None = None) -> GaitOutput:
        """Embed silhouettes.

        Args:
            clip: (B, T, 64, 44) or (B, T, 128, 88), values in [0, 1]; or packed (1, ΣT, 64, 44) with ``lengths``.
            lengths: frames of each packed sequence.

        Raises:
            UserError: the clip has another shape or values beyond [0, 1], or the lengths do not add up.
        """
        spans = check_clip(clip, lengths)
        if self.height not in (None, clip.shape[2]):
            raise UserError(
                f"this model was trained on frames {self.height} px high, not {clip.shape[2]}: convert the clips, or "
                "set its attribute height to None to try"
            )
        wanted = next(self.parameters()).dtype
        if clip.dtype != wanted and not torch.is_autocast_enabled(clip.device.type):
            kind, own = (str(dtype).removeprefix("torch.") for dtype in (clip.dtype, wanted))
            raise UserError(f"clips are {kind}, but the model's weights {own}: convert one to the other")
        if not self.training or clip.device.type == "cpu":  # elsewhere each training step would wait for the device
            check_range(clip, "clips")
        feature = self.backbone(clip, spans)
        if isinstance(self.head, NoHead):
            return GaitOutput(feature, None)
        embedding, logits = self.head(feature)
        return GaitOutput(feature, embedding, logits)


def _first_weights(head: nn.Module) -> Tensor | None:
    """Some weights of a head, which any step of training changes, copied to the CPU; None where there are none."""
    first = next(head.parameters(), None)
    return None if first is None or first.is_meta else first.detach().flatten()[:64].cpu().clone()


class NeckModel(nn.Module):
    """A gait model that answers with the feature behind its BN neck, which some published numbers are of.

    Raises:
        UserError: the model has no BN neck, or one that was never trained.
    """

    def __init__(self, model: GaitModel) -> None:
        super().__init__()
        self.model = model
        self.packs = model.backbone.packs
        neck = getattr(model.head, "neck", None)
        if neck is None:
            raise UserError(f"{model.name} has no BN neck: compare its embeddings")
        if bool((neck.norm.running_mean == 0).all() and (neck.norm.running_var == 1).all()):
            raise UserError(f"the BN neck of this {model.name} was never trained: compare its embeddings")

    def forward(self, clip: Tensor, lengths: Sequence[int] | Tensor | None = None) -> Tensor:
        """As a gait model's → (B, C', P)."""
        found = self.model.head.neck_feature(self.model(clip, lengths).embedding)
        assert found is not None
        return found


def check_clip(clip: Tensor, lengths: Sequence[int] | Tensor | None) -> list[int] | None:
    """Check a clip's shape against what gait models take; return the lengths as a list of int.

    Raises:
        UserError: one sentence that names the shape and the remedy.
    """
    if not isinstance(clip, Tensor):
        raise UserError(f"a clip must be a tensor, not {type(clip).__name__}: see torch.from_numpy")
    if clip.layout != torch.strided:
        raise UserError("a clip must be a dense tensor: see its to_dense()")
    if clip.ndim != 4:
        raise UserError(f"a clip must have the shape (B, T, 64, 44), not {tuple(clip.shape)}")
    height, width = clip.shape[2:]
    if width == height:
        raise UserError(
            f"clips are {height}x{width}, but gait models take {height}x{cut_width(height)}: "
            f"cut {height * 10 // 64} columns off each side first (gaitdiff.data.clips.crop_sides)"
        )
    if height not in HEIGHTS or width != cut_width(height):
        raise UserError(f"clips are {height}x{width}, but gait models take 64x44 or 128x88 frames")
    if clip.shape[0] == 0 or clip.shape[1] == 0:
        raise UserError(f"a clip must hold at least one sequence and one frame, not {tuple(clip.shape)}")
    if not clip.is_floating_point():
        remedy = "take .float() of them" if clip.dtype == torch.bool else "divide by 255, or by what is white in them"
        raise UserError(f"clips hold numbers in [0, 1], not {str(clip.dtype).removeprefix('torch.')}: {remedy}")
    if lengths is None:
        return None
    spans = _whole_numbers(lengths)
    if clip.shape[0] != 1 or sum(spans) != clip.shape[1] or min(spans, default=0) < 1:
        raise UserError(
            f"packed clips need the shape (1, sum of lengths, {height}, {width}) with lengths of at least 1, "
            f"not {tuple(clip.shape)} with lengths {spans}"
        )
    return spans


def _whole_numbers(lengths: Sequence[int] | Tensor) -> list[int]:
    """Lengths as a flat list: the field keeps them as [1, n]."""
    try:
        numbers = torch.as_tensor(lengths)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"lengths must be whole numbers, one a sequence, not {lengths!r}") from error
    if numbers.numel() == 0:
        raise UserError("lengths are empty: give the number of frames of each packed sequence")
    if numbers.is_floating_point() or numbers.is_complex() or numbers.dtype == torch.bool:
        raise UserError(f"lengths must be whole numbers, not {numbers.flatten().tolist()}")
    return [int(number) for number in numbers.flatten().tolist()]
